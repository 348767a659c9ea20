//! The access log for handlers of Python's `logging`, which write one line after another.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::AccessSettings;
use super::sink::Sink;
use crate::targets::{Severity, Syslog};

/// Opens the file at the first line.
#[derive(Debug)]
pub(crate) struct DirectLog {
    /// `-` for standard output, otherwise an absolute path; `None`: syslog alone gets lines.
    place: Option<String>,
    syslog: Option<Arc<Syslog>>,
    file: Mutex<File>,
}

#[derive(Debug)]
enum File {
    Unopened,
    Open(Sink),
    /// It cannot be opened, and that is in the error log.
    Refused,
}

impl DirectLog {
    /// `None` if the settings name no target for lines.
    pub(crate) fn of(settings: &AccessSettings) -> Option<Self> {
        let AccessSettings { place, syslog, .. } = settings;
        if place.is_none() && syslog.is_none() {
            return None;
        }
        // The application may change the directory before the first line.
        let absolute = |place: &String| match place.as_str() {
            "-" => place.clone(),
            path => {
                std::path::absolute(path).map_or(place.clone(), |path| path.to_string_lossy().into_owned())
            }
        };
        let (place, file) = (place.as_ref().map(absolute), Mutex::new(File::Unopened));
        Some(Self { place, syslog: syslog.clone(), file })
    }

    /// Writes a line, with its end.
    pub(crate) fn write(&self, line: &[u8]) {
        if let Some(report) =
            self.syslog.as_ref().and_then(|syslog| syslog.send(Severity::Info, line.trim_ascii_end()))
        {
            report.log();
        }
        let Some(place) = &self.place else { return };
        let mut held = match self.file.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A process that the application has forked may lack the thread that has the lock.
            Err(TryLockError::WouldBlock) if mcsup_core::is_forked_off() => return,
            Err(TryLockError::WouldBlock) => self.file.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if matches!(*held, File::Unopened) {
            *held = match Sink::open(place) {
                Ok(sink) => File::Open(sink),
                Err(error) => {
                    log::error!("cannot open the access log {place}: {error}; lines are lost");
                    File::Refused
                }
            };
        }
        if let File::Open(sink) = &mut *held {
            sink.write(line);
        }
    }

    /// Opens the file again, if it was opened.
    pub(crate) fn reopen(&self) {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            File::Open(sink) => sink.reopen(),
            File::Unopened | File::Refused => *held = File::Unopened,
        }
    }
}
