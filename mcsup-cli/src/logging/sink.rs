//! The open file behind the log: writes records whole, and loses some rather than wait.
//!
//! The next record for which there is room says how many were lost.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use mcsup_core::host::outlet::{Cut, Outlet};
use mcsup_core::host::own_file::{self, LOG_MODE};
use mcsup_core::host::patience::Patience;

use super::{Destination, LogError, line};

static NONE: Patience = Patience::none();

/// Where the bytes go.
#[derive(Debug)]
pub(super) struct Sink {
    /// `None`: standard error.
    path: Option<PathBuf>,
    /// Of the open file. It stays the same, so that no copy of it (faulthandler's) ever means another file.
    number: RawFd,
    held: RwLock<Held>,
    /// Records that this process could not write.
    lost: AtomicU64,
    /// A worker's, which waits for a slow reader; the supervisor never does.
    is_patient: AtomicBool,
    patience: Patience,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Held {
    outlet: Outlet,
    /// Who owns the files that are made from now on.
    owner: Option<(u32, u32)>,
}

impl Sink {
    pub(super) fn open(destination: &Destination) -> Result<Self, LogError> {
        let Destination::File(path) = destination else {
            return Ok(Self::with(None, Outlet::of_stream(rustix::stdio::stderr())));
        };
        let path = std::path::absolute(path).map_err(|source| failed("find", path, source))?;
        let file = own_file::append(&path, LOG_MODE).map_err(|source| failed("open", &path, source))?;
        Ok(Self::with(Some(path), Outlet::of_file(file)))
    }

    fn with(path: Option<PathBuf>, outlet: Outlet) -> Self {
        Self {
            path,
            number: outlet.number(),
            held: RwLock::new(Held { outlet, owner: None }),
            lost: AtomicU64::new(0),
            is_patient: AtomicBool::new(false),
            patience: Patience::with_a_reader(),
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.number
    }

    /// Writes all of `bytes`, in one call where the system takes them so.
    pub(super) fn write(&self, bytes: &[u8]) {
        // While records are lost each further one is tried at once.
        let waits = self.is_patient.load(Relaxed) && self.lost.load(Relaxed) == 0;
        let patience = if waits { &self.patience } else { &NONE };
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(cut) = self.tell(&held.outlet).and_then(|()| held.outlet.write(bytes, patience)) {
            self.note(cut);
        }
    }

    /// In the child of a fork: the parent reports its own lost records.
    pub(super) fn is_a_workers(&self) {
        self.lost.store(0, Relaxed);
        self.is_patient.store(true, Relaxed);
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let file = own_file::append(path, LOG_MODE).map_err(|source| failed("reopen", path, source))?;
        if let Some(owner) = held.owner {
            own_file::give(path, &file, owner).map_err(|source| failed("give away", path, source))?;
        }
        held.outlet.replace(file).map_err(|source| failed("reopen", path, source))
    }

    pub(super) fn give_to(&self, uid: u32, gid: u32) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        own_file::give(path, &held.outlet, (uid, gid)).map_err(|source| failed("give away", path, source))?;
        held.owner = Some((uid, gid));
        Ok(())
    }

    pub(super) fn take_standard_streams(&self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        rustix::stdio::dup2_stdout(&held.outlet)
            .and_then(|()| rustix::stdio::dup2_stderr(&held.outlet))
            .map_err(|error| failed("print to", path, error.into()))
    }

    /// Before the next record: says how many this process has lost. On a line of its own, since the one before may have
    /// been written in part.
    fn tell(&self, outlet: &Outlet) -> Result<(), Cut> {
        let count = self.lost.swap(0, Relaxed);
        if count == 0 {
            return Ok(());
        }
        let text = format!("This log could not be written: {count} records of this process are lost");
        let line = line::of(log::Level::Error, &text);
        outlet.write(format!("\n{line}").as_bytes(), &NONE).inspect_err(|_| {
            self.lost.fetch_add(count, Relaxed);
        })
    }

    /// A record is lost. The first loss is reported on standard error.
    fn note(&self, cut: Cut) {
        let is_first = self.lost.fetch_add(1, Relaxed) == 0;
        let Some(path) = self.path.as_ref().filter(|_| is_first) else { return };
        let error = io::Error::from(cut.error);
        let text = format!("Cannot write the log file {}: {error}; records are lost", path.display());
        let outlet = Outlet::of_stream(rustix::stdio::stderr());
        let _ = outlet.write(line::of(log::Level::Error, &text).as_bytes(), &NONE);
    }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> LogError {
    LogError { step: format!("{verb} the log file {}", path.display()), source }
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
impl Sink {
    /// A sink over any descriptor.
    pub(super) fn over(fd: std::os::fd::OwnedFd) -> Sink {
        Self::with(Some(PathBuf::from("/")), Outlet::of_file(fd))
    }

    /// Writes go to `fd` from now on.
    pub(super) fn put(&self, fd: std::os::fd::OwnedFd) {
        self.held.write().unwrap().outlet.replace(fd).unwrap();
    }
}
