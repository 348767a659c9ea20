//! The error of a command: an exit code, and a text for standard error.

use std::fmt;

use mcsup_core::{Error, ErrorKind};

use crate::args::UsageError;
use crate::exit::Exit;
use crate::logging::LogError;

/// An exit code and its reason, the summary in the first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code of the process.
    pub exit: Exit,
    /// Whether the error log already has the reason.
    pub(crate) is_logged: bool,
    reason: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, is_logged: false, reason: reason.into() }
    }

    /// An error in the usage or in a setting.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::new(Exit::Usage, reason)
    }

    /// Marks the failure as written to the error log.
    pub(crate) fn logged(mut self) -> Self {
        self.is_logged = true;
        self
    }

    /// A refusal by the system or by the server.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::new(Exit::Refused, reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Setting => Exit::Usage,
            ErrorKind::Boot => Exit::BootFailed,
            ErrorKind::Application => Exit::NotLoaded,
            _ => Exit::Refused,
        };
        let reason = match error.detail() {
            Some(detail) => format!("{error}\n{}", detail.trim_end()),
            None => error.to_string(),
        };
        Self::new(exit, reason)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}
