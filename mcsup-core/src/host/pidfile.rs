//! The pid file. Its lock identifies the running supervisor; its text tells other programs the same.
//!
//! The lock is a write lock of fcntl(2), held until the process ends. The kernel reports the process that has
//! it, so no text is trusted. A process that may only read the file cannot take it. It survives an exec, and
//! no child shares it. Its drawback: it ends when the process closes *any* descriptor of the file. So this
//! process never opens a pid file that it holds (`HELD`).

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{own_file, processes};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;
use crate::sys::record_lock::{self, Conflict};

/// The longest wait for a reader's lock, and for a missing text.
const PATIENCE: Duration = Duration::from_millis(500);

/// The interval between checks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The pid files that a process of this program holds: the process, device and inode. A forked child has a
/// copy of the list and is another process.
static HELD: Mutex<Vec<(u32, Identity)>> = Mutex::new(Vec::new());

/// Device and inode.
type Identity = (u64, u64);

/// A pid file held by this process.
#[derive(Debug)]
pub struct PidFile {
    file: File,
    path: PathBuf,
    owner: u32,
}

/// A [`PidFile`] as one image of the supervisor passes it to the next: process, lock and pid stay the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PidFileRecord {
    pub(crate) fd: RawFd,
    #[serde(with = "crate::host::recorded_path")]
    path: PathBuf,
}

/// The supervisor of a pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// There is no file, or no process holds its lock.
    No,
    /// This process holds it.
    Pid(i32),
}

impl PidFile {
    /// Records the file for the next image.
    pub(crate) fn describe(&self) -> PidFileRecord {
        PidFileRecord { fd: self.file.as_raw_fd(), path: self.path.clone() }
    }

    /// The recorded file, in the same process, which has inherited its descriptor.
    pub(crate) fn adopt(record: PidFileRecord) -> io::Result<Self> {
        let PidFileRecord { fd, path } = record;
        let file = File::from(descriptor::take_recorded(fd)?);
        // The lock is held already, except after an image with another kind of lock.
        let _ = record_lock::take(&file);
        Self::register(file, path)
    }

    /// Locks `path` and writes this process's pid into it.
    ///
    /// A lock that needs only the right to read delays a start for half a second; then a new file replaces
    /// the locked one.
    ///
    /// # Errors
    /// Another process holds the file, or its lock prevents the replacement; the error names it.
    pub fn hold(path: &Path) -> Result<Self> {
        Self::hold_beside(path, None)
    }

    /// Like [`hold`](Self::hold), but also accepts a file of the pool's user.
    pub(crate) fn hold_beside(path: &Path, user: Option<u32>) -> Result<Self> {
        // A path that still works after a change of directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let fail = |error: io::Error| {
            let folder = path.parent().filter(|folder| !folder.exists());
            let missing = folder.map(|folder| format!(" (there is no directory {})", folder.display()));
            let missing = missing.unwrap_or_default();
            Error::new(ErrorKind::PidFile, format!("cannot write the pid file {}{missing}", path.display()))
                .caused_by(error)
        };
        if is_ours(&path) {
            return Err(held(&path, Some(processes::own_pid())));
        }
        let deadline = clock::now() + PATIENCE;
        loop {
            // Private to its owner until it is locked.
            let (mut file, is_new) = own_file::rewrite(&path, 0o600, user).map_err(fail)?;
            if record_lock::take(&file).map_err(fail)? {
                // The last holder may have removed the path before this process locked the file.
                if !is_still(&file, &path) {
                    continue;
                }
                if let Err(error) = write_pid(&mut file, is_new) {
                    // It names no process, and this process still has the lock.
                    if is_still(&file, &path) {
                        let _ = std::fs::remove_file(&path);
                    }
                    return Err(fail(error));
                }
                return Self::register(file, path.clone()).map_err(fail);
            }
            match record_lock::in_the_way(&file).map_err(fail)? {
                Some(Conflict { is_exclusive: true, pid }) => return Err(held(&path, pid)),
                Some(_) if clock::now() < deadline => std::thread::sleep(LOOK_EVERY),
                Some(Conflict { pid, .. }) => {
                    remove_stale(&file, &path).map_err(|error| kept_out(&path, pid, error))?;
                }
                None => {}
            }
        }
    }

    /// The holder of the pid file `path`. Takes no lock.
    ///
    /// # Errors
    /// The file cannot be read, its holder is in another PID namespace, or its text names another process.
    pub fn running(path: &Path) -> Result<Running> {
        let fail = |error: io::Error| {
            Error::new(ErrorKind::PidFile, format!("cannot read the pid file {}", path.display()))
                .caused_by(error)
        };
        if is_ours(path) {
            return Ok(Running::Pid(processes::own_pid()));
        }
        let mut file = match own_file::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Running::No),
            Err(error) => return Err(fail(error)),
        };
        let deadline = clock::now() + PATIENCE;
        loop {
            let Some(writer) = record_lock::writer(&file).map_err(fail)? else { return Ok(Running::No) };
            let named = read_pid(&mut file);
            match (writer.pid, named) {
                (Some(pid), Some(named)) if pid == named => return Ok(Running::Pid(pid)),
                // It has the lock, and is about to write.
                (Some(_), _) if clock::now() < deadline => std::thread::sleep(LOOK_EVERY),
                (pid, named) => return Err(fail(io::Error::other(disagreement(pid, named)))),
            }
        }
    }

    /// Adds the file to the list of held ones.
    fn register(file: File, path: PathBuf) -> io::Result<Self> {
        let (owner, there) = (std::process::id(), file.metadata()?);
        let mut all = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((owner, (there.dev(), there.ino())));
        Ok(Self { file, path, owner })
    }
}

impl Drop for PidFile {
    /// Removes the path, then releases the lock. A forked copy only closes its descriptor.
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        if is_still(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Ok(there) = self.file.metadata() {
            let ours = (self.owner, (there.dev(), there.ino()));
            HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != ours);
        }
    }
}

/// Whether this process holds the file at `path`. Does not open it.
fn is_ours(path: &Path) -> bool {
    let Ok(there) = std::fs::symlink_metadata(path) else { return false };
    let ours = (std::process::id(), (there.dev(), there.ino()));
    HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(&ours)
}

fn held(path: &Path, by: Option<i32>) -> Error {
    let holder = by.map_or_else(|| UNSEEN.to_owned(), processes::describe);
    Error::new(
        ErrorKind::PidFile,
        format!("already running: the pid file {} is held by {holder}", path.display()),
    )
}

/// The description of a holder that has no pid in this namespace.
const UNSEEN: &str = "a process that cannot be seen from here (of another PID namespace)";

/// The reason why the holder is not accepted as the named process.
fn disagreement(holder: Option<i32>, named: Option<i32>) -> String {
    let holder = holder.map_or_else(|| UNSEEN.to_owned(), processes::describe);
    match named {
        Some(named) => format!("it names pid {named}, but is held by {holder}"),
        None => format!("it names no process, but is held by {holder}"),
    }
}

/// The error for a reader's lock on a file that cannot be replaced.
fn kept_out(path: &Path, by: Option<i32>, error: io::Error) -> Error {
    let holder = by.map_or_else(|| "a process that the system does not name".to_owned(), processes::describe);
    let why = format!(
        "cannot write the pid file {}: {holder} has a read lock on it, and no new file can take its place; end that \
         process, or choose another pid file",
        path.display()
    );
    Error::new(ErrorKind::PidFile, why).caused_by(error)
}

/// Removes `path` if it is still `file`, because another process prevents its locking.
///
/// It never removes the file of a start that succeeds at the same time, although check and removal are two
/// steps:
///
/// - No other start can remove the path between them and create its own file: it would need the [`Turn`].
/// - No other start can lock `file` between them if the reader ends: this process's read lock prevents it. A
///   start that locked it before prevents the read lock.
fn remove_stale(file: &File, path: &Path) -> io::Result<()> {
    let _turn = Turn::wait_for(path)?;
    if record_lock::take_shared(file)? && is_still(file, path) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The exclusive right to remove a stale pid file: a lock on a file that no other user may open.
struct Turn {
    path: PathBuf,
    _locked: File,
}

impl Turn {
    fn wait_for(pid_file: &Path) -> io::Result<Self> {
        let mut path = pid_file.as_os_str().to_owned();
        path.push(".replacing");
        let path = PathBuf::from(path);
        let deadline = clock::now() + PATIENCE;
        loop {
            let (file, _) = own_file::rewrite(&path, 0o600, None)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Its former holder has removed the path.
                Ok(()) if !is_still(&file, &path) => {}
                Ok(()) => return Ok(Self { path, _locked: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if clock::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Turn {
    /// Removes the path while it is locked: no other start has the lock then.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
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

fn write_pid(file: &mut File, is_new: bool) -> io::Result<()> {
    // 0644 with any umask: a pid is public, and `mcsup status` may run as another user.
    if is_new || file.metadata()?.len() == 0 {
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    // A single write, so that no reader sees a part of it.
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
#[path = "pidfile_tests.rs"]
mod tests;
