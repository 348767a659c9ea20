//! This server's files in folders that other users may write: links are not followed, and only open files
//! change owner.
//!
//! A supervisor that is root writes logs and a pid file into folders in which its workers' user may rename,
//! remove and link at any moment. So a name is resolved once, when it is opened; all later checks and changes
//! use the open file. Names of open streams are exempt: `/dev/stdout`, `/dev/stderr`, `/dev/fd/N` and their
//! like under `/proc`.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid, fstat};
use rustix::io::Errno;

/// The mode of a log file: requests and application logs are not public.
pub const LOG_MODE: u32 = 0o640;

/// The mode of a folder that is created for a file.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// The most attempts to open a name that appears and disappears.
const TRIES: usize = 8;

/// The reason why a file is not used although the system would allow it.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Refused(why.into()))
}

/// Whether a file was refused as a possible trap: a link, a second name, a file of another user.
pub fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

/// Opens `path` for appending, and creates it with `mode`.
///
/// Creates its folder too, if only the last one of the path is missing.
///
/// Never blocks: a FIFO is opened without a reader too, and buffers lines. The descriptor is non-blocking.
///
/// # Errors
/// The error of open(2), or a refusal ([`is_refusal`]): a link, or as root a file with several names.
pub fn append(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if is_stream(path) {
        return Ok(rustix::fs::open(path, flags, Mode::empty())?.into());
    }
    let place = Place::of_file_to_make(path)?;
    let (file, _) = place.open_or_make(flags, mode).map_err(|error| place.in_words(error))?;
    let status = fstat(&file)?;
    if kind(&status) == FileType::Fifo {
        return Ok(place.reader_too(flags, &status).unwrap_or(file).into());
    }
    has_one_name(&status)?;
    Ok(file.into())
}

/// Opens the regular file `path` for reading and writing; creates it with `mode`, and returns whether it did.
///
/// Root accepts a file of root or of `user`, and no other. A missing folder is created as by [`append`].
pub(crate) fn rewrite(path: &Path, mode: u32, user: Option<u32>) -> io::Result<(File, bool)> {
    let place = Place::of_file_to_make(path)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (file, is_new) = place.open_or_make(flags, mode).map_err(|error| place.in_words(error))?;
    let status = fstat(&file)?;
    if kind(&status) != FileType::RegularFile {
        return Err(refused("it is no regular file"));
    }
    has_one_name(&status)?;
    if rustix::process::geteuid().is_root() && ![Some(0), user].contains(&Some(status.st_uid)) {
        let owner = super::processes::user_of(status.st_uid);
        return Err(refused(format!("it is a file of user {owner}; remove it, or name another")));
    }
    Ok((file.into(), is_new))
}

/// Opens the regular file `path` for reading. Follows no link, and never blocks.
pub(crate) fn read(path: &Path) -> io::Result<File> {
    let place = Place::of(path)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = place.open(flags).map_err(|error| place.in_words(error))?;
    match kind(&fstat(&file)?) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(refused("it is no regular file")),
    }
}

/// Gives the open file to a user. Only regular files change owner, standard streams never do.
///
/// # Errors
/// A refusal: the file has several names, or belongs to another user than root, this process's, or that one.
pub fn give(path: &Path, file: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let status = fstat(file.as_fd())?;
    let same = (status.st_uid, status.st_gid) == (uid, gid);
    if same || kind(&status) != FileType::RegularFile || is_stream(path) {
        return Ok(());
    }
    if status.st_nlink > 1 {
        return Err(several_names(&status));
    }
    if ![0, rustix::process::geteuid().as_raw(), uid].contains(&status.st_uid) {
        return Err(refused(format!(
            "it is a file of user id {}, neither root's nor that user's",
            status.st_uid
        )));
    }
    Ok(rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// Refuses a file with several names, as root: another name may be in a place where only root may write.
fn has_one_name(status: &Stat) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let is_one = kind(status) != FileType::RegularFile || status.st_nlink <= 1;
    if is_root && !is_one { Err(several_names(status)) } else { Ok(()) }
}

fn several_names(status: &Stat) -> io::Error {
    refused(format!("it has {} names (hard links)", status.st_nlink))
}

/// Whether an operator means an open stream by this name.
fn is_stream(path: &Path) -> bool {
    let parts: Option<Vec<&str>> = path.components().map(|part| part.as_os_str().to_str()).collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match parts.as_deref() {
        Some(["/", "dev", "stdout" | "stderr"]) => true,
        Some(["/", "dev", "fd", number]) => is_number(number),
        Some(["/", "proc", process, "fd", number]) => {
            (*process == "self" || is_number(process)) && is_number(number)
        }
        _ => false,
    }
}

/// The folder of a file: `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A name in a held folder.
struct Place<'a> {
    path: &'a Path,
    folder: OwnedFd,
    name: &'a std::ffi::OsStr,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        Ok(Self { path, folder: folder::hold(folder_of(path))?, name })
    }

    /// Holds the folder of `path`, and creates it if its parent exists.
    ///
    /// Only the last folder: a path that is wrong further up stays an error.
    fn of_file_to_make(path: &'a Path) -> io::Result<Self> {
        match Self::of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Ok(Self { folder, name, .. }) = Place::of(folder_of(path)) else { return Err(error) };
                match rustix::fs::mkdirat(&folder, name, FOLDER_MODE) {
                    Ok(()) => {
                        // Against any umask: workers that run as another user have files in it.
                        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let made = rustix::fs::openat(&folder, name, OFlags::RDONLY | flags, Mode::empty())?;
                        rustix::fs::fchmod(&made, FOLDER_MODE)?;
                        Self::of(path)
                    }
                    Err(Errno::EXIST) => Self::of(path),
                    Err(error) => Err(error.into()),
                }
            }
            place => place,
        }
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.folder, self.name, flags | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Opens or creates the file. A created one is new: no other process has put it there.
    fn open_or_make(&self, flags: OFlags, mode: u32) -> Result<(OwnedFd, bool), Errno> {
        let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
        let make = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        for _ in 0..TRIES {
            match self.open(flags) {
                Err(Errno::NOENT) => {}
                // A FIFO without a reader.
                Err(Errno::NXIO) => return Ok((self.open((flags - OFlags::WRONLY) | OFlags::RDWR)?, false)),
                opened => return Ok((opened?, false)),
            }
            match rustix::fs::openat(&self.folder, self.name, make, mode) {
                Err(Errno::EXIST) => {}
                made => return Ok((made?, true)),
            }
        }
        Err(Errno::EXIST)
    }

    /// Reopens a FIFO for reading too, if permitted, so that it outlives its readers.
    fn reader_too(&self, flags: OFlags, status: &Stat) -> Option<OwnedFd> {
        let both = self.open((flags - OFlags::WRONLY) | OFlags::RDWR).ok()?;
        let now = fstat(&both).ok()?;
        ((now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)).then_some(both)
    }

    fn in_words(&self, error: Errno) -> io::Error {
        let is_link = || std::fs::symlink_metadata(self.path).is_ok_and(|there| there.is_symlink());
        if !matches!(error, Errno::LOOP | Errno::EXIST | Errno::MLINK) || !is_link() {
            return error.into();
        }
        let target = std::fs::read_link(self.path);
        let advice = target.map(|target| format!(" (it leads to {}; name that instead)", target.display()));
        refused(format!("it is a symbolic link, which is never followed{}", advice.unwrap_or_default()))
    }
}

/// Folders on the path to a file.
#[cfg(target_os = "linux")]
mod folder {
    use super::*;
    use std::collections::VecDeque;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStringExt;

    /// The most links in one path, as in the kernel.
    const MOST_LINKS: usize = 40;

    /// Holds a folder. Root follows only root's links on the path: another user may redirect its own.
    pub(super) fn hold(path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !rustix::process::geteuid().is_root() {
            return Ok(rustix::fs::open(path, flags, Mode::empty())?);
        }
        let mut at = rustix::fs::open(if path.is_absolute() { "/" } else { "." }, flags, Mode::empty())?;
        let (mut way, mut links) = (steps(path), 0);
        while let Some(step) = way.pop_front() {
            let next = step_into(&at, &step, OFlags::empty())?;
            let status = fstat(&next)?;
            match kind(&status) {
                // Only this resolves an automount point to the mounted directory (open(2): O_PATH).
                FileType::Directory => at = step_into(&at, &step, OFlags::DIRECTORY)?,
                FileType::Symlink => {
                    links += 1;
                    let target = follow(&next, &status, links, path, &step)?;
                    if target.is_absolute() {
                        at = rustix::fs::open("/", flags, Mode::empty())?;
                    }
                    steps(&target).into_iter().rev().for_each(|step| way.push_front(step));
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }

    fn steps(path: &Path) -> VecDeque<OsString> {
        let named = |part: Component<'_>| match part {
            Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
            _ => None,
        };
        path.components().filter_map(named).collect()
    }

    fn step_into(at: &OwnedFd, step: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags;
        Ok(rustix::fs::openat(at, step, flags, Mode::empty())?)
    }

    /// The target of a link, if it may be followed.
    fn follow(
        link: &OwnedFd,
        status: &Stat,
        links: usize,
        path: &Path,
        step: &OsStr,
    ) -> io::Result<std::path::PathBuf> {
        if status.st_uid != 0 || status.st_nlink > 1 {
            let (folder, step) = (path.display(), step.to_string_lossy());
            return Err(refused(format!(
                "{step} on the way to {folder} is a symbolic link of user id {}, and root follows only root's",
                status.st_uid
            )));
        }
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }
}

/// Folders on the path to a file: the system has no handle on a link here.
#[cfg(not(target_os = "linux"))]
mod folder {
    use super::*;

    /// Holds a folder.
    pub(super) fn hold(path: &Path) -> io::Result<OwnedFd> {
        let _ = Component::CurDir;
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

#[cfg(test)]
#[path = "own_file_tests.rs"]
mod tests;
