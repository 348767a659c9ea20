//! The open file of the log: writes whole records, and drops records instead of waiting.
//!
//! The next record that is written states how many were dropped.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use mcsup_core::host::outlet::{Cut, Outlet};
use mcsup_core::host::own_file::{self, LOG_MODE};
use mcsup_core::host::patience::Patience;
use mcsup_py::targets::{Report, Severity};

use super::{Destination, Form, LogError};

static NONE: Patience = Patience::none();

/// The open log and its count of lost records.
#[derive(Debug)]
pub(super) struct Sink {
    /// `None`: standard error.
    path: Option<PathBuf>,
    /// Descriptor number of the open file. It never changes, since faulthandler keeps a copy.
    number: RawFd,
    form: Form,
    file: RwLock<OpenFile>,
    /// Records that this process could not write.
    lost: AtomicU64,
    /// Whether this is a worker, which waits for a slow reader; the supervisor never waits.
    is_patient: AtomicBool,
    patience: Patience,
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    outlet: Outlet,
    /// User and group of the files that are created from now on.
    owner: Option<(u32, u32)>,
}

impl Sink {
    pub(super) fn open(destination: &Destination, form: Form) -> Result<Self, LogError> {
        let Destination::File(path) = destination else {
            return Ok(Self::with(None, Outlet::of_stream(rustix::stdio::stderr()), form));
        };
        let path = std::path::absolute(path).map_err(|source| failed("find", path, source))?;
        let file = own_file::append(&path, LOG_MODE).map_err(|source| failed("open", &path, source))?;
        Ok(Self::with(Some(path), Outlet::of_file(file), form))
    }

    fn with(path: Option<PathBuf>, outlet: Outlet, form: Form) -> Self {
        Self {
            path,
            form,
            number: outlet.number(),
            file: RwLock::new(OpenFile { outlet, owner: None }),
            lost: AtomicU64::new(0),
            is_patient: AtomicBool::new(false),
            patience: Patience::with_a_reader(),
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.number
    }

    /// Writes all of `bytes`, in one call where the system takes them at once.
    pub(super) fn write(&self, bytes: &[u8]) {
        // No waiting after a loss: the reader is still slow.
        let waits = self.is_patient.load(Relaxed) && self.lost.load(Relaxed) == 0;
        let patience = if waits { &self.patience } else { &NONE };
        let held = self.file.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(cut) = self.report_lost(&held.outlet).and_then(|()| held.outlet.write(bytes, patience)) {
            self.count_lost(&cut);
        }
    }

    /// Writes text of the application.
    pub(super) fn write_application(&self, bytes: &[u8]) {
        match self.form.application(bytes) {
            None => self.write(bytes),
            Some(line) if line.is_empty() => {}
            Some(line) => self.write(&line),
        }
    }

    /// Writes a line of the log itself, which is no record.
    pub(super) fn write_own(&self, level: log::Level, text: &dyn std::fmt::Display) {
        self.write(self.form.own(level, text).as_bytes());
    }

    /// Writes a record of another logger.
    pub(super) fn write_record(&self, severity: Severity, text: &dyn std::fmt::Display) {
        self.write(self.form.record(severity, text).as_bytes());
    }

    /// Writes the report on a further target. Not as a record, which would go to the same targets.
    pub(super) fn write_report(&self, report: &Report) {
        let level = if report.is_loss() { log::Level::Error } else { log::Level::Warn };
        self.write_own(level, report);
    }

    /// Resets the count in the child of a fork: the parent reports its own lost records.
    pub(super) fn use_in_worker(&self) {
        self.lost.store(0, Relaxed);
        self.is_patient.store(true, Relaxed);
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut held = self.file.write().unwrap_or_else(PoisonError::into_inner);
        let file = own_file::append(path, LOG_MODE).map_err(|source| failed("reopen", path, source))?;
        if let Some(owner) = held.owner {
            own_file::give(path, &file, owner).map_err(|source| failed("give away", path, source))?;
        }
        held.outlet.replace(file).map_err(|source| failed("reopen", path, source))
    }

    pub(super) fn give_to(&self, uid: u32, gid: u32) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut held = self.file.write().unwrap_or_else(PoisonError::into_inner);
        own_file::give(path, &held.outlet, (uid, gid)).map_err(|source| failed("give away", path, source))?;
        held.owner = Some((uid, gid));
        Ok(())
    }

    pub(super) fn take_standard_streams(&self) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let held = self.file.read().unwrap_or_else(PoisonError::into_inner);
        rustix::stdio::dup2_stdout(&held.outlet)
            .and_then(|()| rustix::stdio::dup2_stderr(&held.outlet))
            .map_err(|error| failed("print to", path, error.into()))
    }

    /// Writes the number of records that this process has lost, before the next record.
    ///
    /// On its own line, since the previous record may be incomplete.
    fn report_lost(&self, outlet: &Outlet) -> Result<(), Cut> {
        let count = self.lost.swap(0, Relaxed);
        if count == 0 {
            return Ok(());
        }
        let text = format!("This log could not be written: {count} records of this process are lost");
        let line = self.form.own(log::Level::Error, &text);
        outlet.write(format!("\n{line}").as_bytes(), &NONE).inspect_err(|_| {
            self.lost.fetch_add(count, Relaxed);
        })
    }

    /// Counts a lost record. The first loss is reported on standard error.
    fn count_lost(&self, cut: &Cut) {
        let is_first = self.lost.fetch_add(1, Relaxed) == 0;
        let Some(path) = self.path.as_ref().filter(|_| is_first) else { return };
        let error = io::Error::from(cut.error);
        let text = format!("Cannot write the log file {}: {error}; records are lost", path.display());
        let outlet = Outlet::of_stream(rustix::stdio::stderr());
        let _ = outlet.write(self.form.own(log::Level::Error, &text).as_bytes(), &NONE);
    }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> LogError {
    LogError { step: format!("{verb} the log file {}", path.display()), source }
}

/// The sink as a writer for env_logger, which passes each record in one call.
pub(super) struct RecordWriter(pub(super) Arc<Sink>);

impl io::Write for RecordWriter {
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
    /// A sink that writes to any descriptor.
    pub(super) fn over(fd: std::os::fd::OwnedFd) -> Sink {
        Self::with(Some(PathBuf::from("/")), Outlet::of_file(fd), Form::Text)
    }

    /// Redirects writes to `fd`.
    pub(super) fn redirect(&self, fd: std::os::fd::OwnedFd) {
        self.file.write().unwrap().outlet.replace(fd).unwrap();
    }
}
