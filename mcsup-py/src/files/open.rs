//! Opens a file below a folder, and never one outside of it.
//!
//! A symbolic link may lead to another place in the same folder, and to no other: the path is first resolved, and must
//! still be below the folder. Then it is opened without following links (openat2(2), RESOLVE_NO_SYMLINKS), so that a link
//! that is made in between opens nothing.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A regular file and its properties; `None`: there is none that may be served.
///
/// # Errors
/// Those that do not say whether there is one: no descriptor or no memory is left, or the disk fails.
pub(super) fn open(folder: &Path, file: &Path) -> io::Result<Option<(File, Metadata)>> {
    match open_regular(folder, file) {
        Err(error) if is_failure(&error) => Err(error),
        opened => Ok(opened.ok().flatten()),
    }
}

fn open_regular(folder: &Path, file: &Path) -> io::Result<Option<(File, Metadata)>> {
    let folder = folder.canonicalize()?;
    let path = folder.join(file).canonicalize()?;
    let Ok(below) = path.strip_prefix(&folder) else { return Ok(None) };
    // Before it is opened: the open of a device may have effects.
    if !path.symlink_metadata()?.is_file() {
        return Ok(None);
    }
    let file = open_below(&folder, below)?;
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

fn is_failure(error: &io::Error) -> bool {
    let failures = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO];
    Errno::from_io_error(error).is_some_and(|error| failures.contains(&error))
}

/// Whether a file is there, by the same rules.
///
/// # Errors
/// As those of [`open`].
pub(super) fn is_there(folder: &Path, file: &Path) -> io::Result<bool> {
    Ok(open(folder, file)?.is_some())
}

/// A FIFO would wait for its other end.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn open_below(folder: &Path, below: &Path) -> io::Result<File> {
    use rustix::fs::{ResolveFlags, openat2};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let folder_fd = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match openat2(&folder_fd, below, FLAGS, Mode::empty(), resolve) {
        // Linux before 5.6, or a filter of system calls from before.
        Err(Errno::NOSYS | Errno::PERM) => open_resolved(&folder.join(below)),
        opened => Ok(opened?.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open_below(folder: &Path, below: &Path) -> io::Result<File> {
    open_resolved(&folder.join(below))
}

/// Where the system cannot refuse links in the middle of a path.
fn open_resolved(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, FLAGS, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_files_of_the_folder_alone_and_only_regular_files_are_opened() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("folder");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("sub/a"), "a").unwrap();
        std::fs::write(top.path().join("secret"), "s").unwrap();
        symlink("sub/a", folder.join("inside")).unwrap();
        symlink(folder.join("sub"), folder.join("absolute")).unwrap();
        symlink("../secret", folder.join("outside")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        let opens = |file: &str| open(&folder, Path::new(file)).unwrap().is_some();
        for file in ["sub/a", "inside", "absolute/a"] {
            assert!(opens(file), "{file}");
        }
        for file in ["outside", "up/secret", "../secret", "/etc/hostname", "sub", "socket", "none", "sub/a/b"]
        {
            assert!(!opens(file), "{file}");
        }
        // The folder itself may be a link, as deployments make it.
        symlink(&folder, top.path().join("current")).unwrap();
        assert!(open(&top.path().join("current"), Path::new("sub/a")).unwrap().is_some());
        assert!(open_resolved(&folder.join("inside")).is_err());
    }
}
