//! A held file in a folder of another user, which may swap its name.

use std::fs;
use std::io;
use std::path::Path;

/// A held file. Linux can hold a socket file; elsewhere this is its name, never followed as a link.
#[derive(Debug)]
pub(crate) struct HeldFile<'a> {
    #[cfg(target_os = "linux")]
    file: fs::File,
    #[cfg(target_os = "linux")]
    _path: std::marker::PhantomData<&'a Path>,
    #[cfg(not(target_os = "linux"))]
    path: &'a Path,
}

#[cfg(target_os = "linux")]
impl<'a> HeldFile<'a> {
    /// Holds the file that is at `path` now.
    pub(crate) fn at(path: &'a Path) -> io::Result<Self> {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::empty())?.into();
        Ok(Self { file, _path: std::marker::PhantomData })
    }

    pub(crate) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.file.metadata()
    }

    pub(crate) fn change_mode(&self, mode: u32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::PermissionsExt;
        // fchmod(2) refuses such a descriptor. This name leads the kernel to the held file, not to its path.
        let held = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::set_permissions(held, fs::Permissions::from_mode(mode))
    }

    pub(crate) fn change_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        use rustix::fs::{AtFlags, chownat};
        use rustix::process::{Gid, Uid};
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(chownat(&self.file, "", uid, gid, AtFlags::EMPTY_PATH)?)
    }
}

#[cfg(not(target_os = "linux"))]
impl<'a> HeldFile<'a> {
    /// Refers to the file that is at `path` at each call.
    pub(crate) fn at(path: &'a Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|_| Self { path })
    }

    pub(crate) fn metadata(&self) -> io::Result<fs::Metadata> {
        fs::symlink_metadata(self.path)
    }

    pub(crate) fn change_mode(&self, mode: u32) -> io::Result<()> {
        use rustix::fs::{AtFlags, CWD, Mode, chmodat};
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        Ok(chmodat(CWD, self.path, mode, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn change_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        std::os::unix::fs::lchown(self.path, Some(uid), Some(gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_held_socket_file_is_changed_though_its_name_means_another_by_then() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside, victim) =
            (dir.path().join("a.sock"), dir.path().join("aside"), dir.path().join("victim"));
        let _listening = UnixListener::bind(&path).unwrap();
        fs::write(&victim, "").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let held = HeldFile::at(&path).unwrap();
        fs::rename(&path, &aside).unwrap();
        symlink(&victim, &path).unwrap();
        let own = held.metadata().unwrap();
        held.change_owner(own.uid(), own.gid()).unwrap();
        held.change_mode(0o666).unwrap();
        assert_eq!(fs::metadata(&aside).unwrap().mode() & 0o777, 0o666);
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("link"), dir.path().join("victim"));
        fs::write(&victim, "").unwrap();
        symlink(&victim, &link).unwrap();
        let held = HeldFile::at(&link).unwrap();
        assert!(held.metadata().unwrap().file_type().is_symlink());
    }
}
