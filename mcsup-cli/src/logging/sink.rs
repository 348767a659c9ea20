//! The open file behind the log. Writes bytes whole, drops what cannot be written, and says how much that was as soon
//! as it can.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use mcsup_core::host::own_file;
use rustix::io::{Errno, FdFlags};

use super::{Destination, LogError, line};

/// Mode of a log file: what applications log is not for everyone.
const MODE: u32 = 0o640;

/// Where the bytes go.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File { path: PathBuf, number: RawFd, held: RwLock<Held>, lost: AtomicU64 },
}

/// An open file.
#[derive(Debug)]
pub(super) struct Held {
    /// Never replaced: reopening puts another file behind the same number, so that nobody who was given the number
    /// (faulthandler) is left with a stale one.
    fd: OwnedFd,
    /// Who owns the files that are made from now on.
    owner: Option<(u32, u32)>,
}

impl Sink {
    pub(super) fn open(destination: &Destination) -> Result<Self, LogError> {
        let Destination::File(path) = destination else { return Ok(Sink::Stderr) };
        let path = std::path::absolute(path).map_err(|source| failed("find", path, source))?;
        let fd: OwnedFd =
            own_file::append(&path, MODE).map_err(|source| failed("open", &path, source))?.into();
        let number = fd.as_raw_fd();
        Ok(Sink::File { path, number, held: RwLock::new(Held { fd, owner: None }), lost: AtomicU64::new(0) })
    }

    pub(super) fn fd(&self) -> RawFd {
        match self {
            Sink::Stderr => rustix::stdio::stderr().as_raw_fd(),
            Sink::File { number, .. } => *number,
        }
    }

    /// Writes all of `bytes`, in one call where the system takes them so.
    pub(super) fn write(&self, bytes: &[u8]) {
        match self {
            // There is nobody to tell that this fails.
            Sink::Stderr => drop(write_whole(rustix::stdio::stderr(), bytes)),
            Sink::File { path, held, lost, .. } => {
                let held = held.read().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = tell_of(lost, &held.fd).and_then(|()| write_whole(&held.fd, bytes)) {
                    note(lost, path, error);
                }
            }
        }
    }

    /// In the child of a fork: what its parent has lost is its parent's to tell.
    pub(super) fn forget_losses(&self) {
        if let Sink::File { lost, .. } = self {
            lost.store(0, Relaxed);
        }
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let Sink::File { path, held, .. } = self else { return Ok(()) };
        let mut held = held.write().unwrap_or_else(PoisonError::into_inner);
        let file = own_file::append(path, MODE).map_err(|source| failed("reopen", path, source))?;
        if let Some(owner) = held.owner {
            own_file::give(path, &file, owner).map_err(|source| failed("give away", path, source))?;
        }
        put_behind(&file, &mut held.fd).map_err(|source| failed("reopen", path, source))
    }

    pub(super) fn give_to(&self, uid: u32, gid: u32) -> Result<(), LogError> {
        let Sink::File { path, held, .. } = self else { return Ok(()) };
        let mut held = held.write().unwrap_or_else(PoisonError::into_inner);
        own_file::give(path, &held.fd, (uid, gid)).map_err(|source| failed("give away", path, source))?;
        held.owner = Some((uid, gid));
        Ok(())
    }

    pub(super) fn take_standard_streams(&self) -> Result<(), LogError> {
        let Sink::File { path, held, .. } = self else { return Ok(()) };
        let held = held.read().unwrap_or_else(PoisonError::into_inner);
        rustix::stdio::dup2_stdout(&held.fd)
            .and_then(|()| rustix::stdio::dup2_stderr(&held.fd))
            .map_err(|error| failed("print to", path, error.into()))
    }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> LogError {
    LogError { step: format!("{verb} the log file {}", path.display()), source }
}

/// Makes the number of `old` mean `file`.
fn put_behind(file: &File, old: &mut OwnedFd) -> io::Result<()> {
    // Not dup3, which is not everywhere. A program that is started between the two inherits the log, no more.
    rustix::io::dup2(file, old)?;
    rustix::io::fcntl_setfd(old, FdFlags::CLOEXEC)?;
    Ok(())
}

/// There is room again: says how much this process has lost. On a line of its own, since what came before may have been
/// written in part.
fn tell_of(lost: &AtomicU64, to: &OwnedFd) -> Result<(), Errno> {
    let count = lost.swap(0, Relaxed);
    if count == 0 {
        return Ok(());
    }
    let text = format!("This log could not be written: {count} records of this process are lost");
    let line = line::of(log::Level::Error, &text);
    write_whole(to, format!("\n{line}").as_bytes()).inspect_err(|_| {
        lost.fetch_add(count, Relaxed);
    })
}

/// A record is lost. The first one is told where it can still be heard.
fn note(lost: &AtomicU64, path: &Path, error: Errno) {
    if lost.fetch_add(1, Relaxed) == 0 {
        let error = io::Error::from(error);
        let text = format!("Cannot write the log file {}: {error}; records are lost", path.display());
        let _ = write_whole(rustix::stdio::stderr(), line::of(log::Level::Error, &text).as_bytes());
    }
}

/// Stops at the first error.
fn write_whole(to: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to.as_fd(), bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The sink as env_logger wants it, which hands over each record in one call.
pub(super) struct Whole(pub(super) Arc<Sink>);

impl io::Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Held {
    /// Writes go to `fd` from now on.
    pub(super) fn put(&mut self, fd: OwnedFd) {
        self.fd = fd;
    }

    /// A sink over any descriptor.
    pub(super) fn over(fd: OwnedFd) -> Sink {
        let number = fd.as_raw_fd();
        let held = RwLock::new(Held { fd, owner: None });
        Sink::File { path: PathBuf::from("/"), number, held, lost: AtomicU64::new(0) }
    }
}
