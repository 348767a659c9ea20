//! The pid file: its lock, held for life, says whether a supervisor runs; its text says which.
//!
//! The lock (flock(2)) belongs to the open file and ends with the process, however it ends, so that neither a stale
//! file nor a recycled pid can keep a supervisor from starting.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::processes;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// A pid file that this process holds.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
    owner: u32,
}

/// A pid file that outlives its supervisor's image: the lock stays with the open file, and the pid is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PidFileRecord {
    pub(crate) fd: RawFd,
    path: PathBuf,
}

/// What a pid file says about a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// There is no file, or nobody holds its lock.
    No,
    /// This process holds it.
    Pid(i32),
}

impl PidFile {
    /// What the next image needs.
    pub(crate) fn describe(&self) -> PidFileRecord {
        PidFileRecord { fd: self.file.as_raw_fd(), path: self.path.clone() }
    }

    /// The file that was described, in the process that has inherited its descriptor, and with it the lock.
    pub(crate) fn adopt(record: PidFileRecord) -> io::Result<Self> {
        let PidFileRecord { fd, path } = record;
        Ok(Self { file: File::from(descriptor::take_inherited(fd)?), path, owner: std::process::id() })
    }

    /// Locks `path` and writes this process's pid into it. Where another process holds it, the error names it.
    pub fn hold(path: &Path) -> Result<Self> {
        // A path that still works after a change of directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let fail = |error: io::Error| {
            Error::new(ErrorKind::PidFile, format!("cannot write the pid file {}", path.display()))
                .caused_by(error)
        };
        loop {
            let mut file = open(&path).map_err(fail)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(&path, &mut file)),
                Err(error) => return Err(fail(error.into())),
            }
            // Whoever held it before may have removed the path between our open and our lock.
            if !is_still(&file, &path) {
                continue;
            }
            write_pid(&mut file).map_err(fail)?;
            return Ok(Self { file, path, owner: std::process::id() });
        }
    }

    /// Who holds the pid file `path`.
    pub fn running(path: &Path) -> Result<Running> {
        let fail = |error: io::Error| {
            Error::new(ErrorKind::PidFile, format!("cannot read the pid file {}", path.display()))
                .caused_by(error)
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Running::No),
            Err(error) => return Err(fail(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Running::No),
            Err(rustix::io::Errno::WOULDBLOCK) => match read_pid(&mut file) {
                Some(pid) => Ok(Running::Pid(pid)),
                None => Err(fail(io::Error::other("it is locked, but holds no pid"))),
            },
            Err(error) => Err(fail(error.into())),
        }
    }
}

impl Drop for PidFile {
    /// Removes the path, then lets go of the lock. A forked copy only closes its descriptor.
    fn drop(&mut self) {
        if self.owner == std::process::id() && is_still(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // 0644 whatever the umask: a pid is no secret, and `mcsup status` may be somebody else.
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
    if file.metadata()?.len() == 0 {
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    Ok(file)
}

fn held(path: &Path, file: &mut File) -> Error {
    let who = match read_pid(file) {
        Some(pid) => processes::describe(pid),
        None => "another process".to_owned(),
    };
    Error::new(
        ErrorKind::PidFile,
        format!("already running: the pid file {} is held by {who}", path.display()),
    )
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    // One write: a reader sees all of it or nothing.
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_pid_file_names_its_holder_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        assert_eq!(PidFile::running(&path).unwrap(), Running::No);
        let held = PidFile::hold(&path).unwrap();
        let ours = std::process::id();
        assert_eq!(PidFile::running(&path).unwrap(), Running::Pid(ours.try_into().unwrap()));
        let refused = PidFile::hold(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {ours} ")), "{refused}");
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_keeps_nobody_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(PidFile::running(&path).unwrap(), Running::No);
        let _held = PidFile::hold(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = PidFile::hold(Path::new("/no/such/dir/a.pid")).unwrap_err().to_string();
        assert!(error.contains("/no/such/dir/a.pid"), "{error}");
    }
}
