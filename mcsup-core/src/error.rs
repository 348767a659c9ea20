//! The one error type: the kind of failure, the failed step, its object, and the cause.
//!
//! Nothing here prints or ends the process: the embedding program handles errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use std::iter::successors;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The area of an [`Error`]; an embedder maps it to its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An invalid setting: an address that does not parse, no listener, too many workers, an unknown user.
    Setting,
    /// An address that cannot be bound.
    Bind,
    /// The pid file cannot be written, or another process holds it.
    PidFile,
    /// A user or group that cannot be looked up, or privileges that cannot be dropped.
    Privileges,
    /// A system call failed unexpectedly.
    System,
    /// A worker could not get ready.
    Boot,
    /// The code that workers run could not be loaded.
    Application,
    /// A worker's own code failed while it was running.
    Worker,
}

/// The most bytes of [`one_line`].
const MOST: usize = 4 * 1024;

/// `text` without control characters, cut to a bounded length, for one line of a log or of a terminal.
///
/// Texts of the embedder's code may quote a client.
pub(crate) fn one_line(text: &str) -> String {
    let end = (0..=MOST.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].replace(char::is_control, " ")
}

/// A failed step: its kind, the step's name, the object it was about, and the cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` described by one line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, source: None }
    }

    /// A system call that failed: `step` names it and its object (`"bind 127.0.0.1:80"`).
    pub fn system(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::new(ErrorKind::System, step).caused_by(source.into())
    }

    /// Adds the cause.
    #[must_use]
    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a text of several lines for the operator, such as a traceback.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// An error of a worker's code; of kind `otherwise` unless it has an [`Error`] among its sources, whose
    /// kind and detail it then has.
    pub(crate) fn of_worker(error: Box<dyn StdError + Send + Sync>, otherwise: ErrorKind) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(error) => error,
        };
        let sources = || successors(error.source(), |error| (*error).source());
        let mut text = error.to_string();
        for source in sources().map(ToString::to_string) {
            // Many errors show their source themselves.
            if !text.contains(&source) {
                text.push_str(": ");
                text.push_str(&source);
            }
        }
        let own = sources().find_map(|source| source.downcast_ref::<Self>());
        Self {
            kind: own.map_or(otherwise, Self::kind),
            message: text,
            detail: own.and_then(|own| own.detail.clone()),
            source: None,
        }
    }

    /// The same error as another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// A text of several lines that belongs to the error, such as a traceback.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<io::Error> for Error {
    /// For the embedder's own functions that return this type, such as [`Supervisor::reload`](crate::Supervisor::reload).
    ///
    /// The text is that of `source`, which names no step: [`Error::system`] does.
    fn from(source: io::Error) -> Self {
        Self::new(ErrorKind::System, source.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_step_and_its_cause() {
        let error = Error::system("bind 127.0.0.1:80", io::Error::from_raw_os_error(13));
        assert_eq!(error.to_string(), "bind 127.0.0.1:80: Permission denied (os error 13)");
        assert_eq!(error.kind(), ErrorKind::System);
    }

    #[test]
    fn an_io_error_by_itself_keeps_its_text() {
        let error = Error::from(io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "No such file or directory (os error 2)");
        assert_eq!(error.kind(), ErrorKind::System);
    }

    /// An error that does not show its source.
    #[derive(Debug)]
    struct Context(&'static str, Box<dyn StdError + Send + Sync>);

    impl fmt::Display for Context {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Context {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.1)
        }
    }

    #[test]
    fn a_workers_error_of_any_type_says_what_all_its_sources_say_once() {
        let error = "x".parse::<u8>().map_err(|error| Context("read the settings", error.into()));
        let error = Error::of_worker(error.unwrap_err().into(), ErrorKind::Worker);
        assert_eq!(error.to_string(), "read the settings: invalid digit found in string");
        assert_eq!((error.kind(), error.detail()), (ErrorKind::Worker, None));
        let error = Error::of_worker("the queue is gone".into(), ErrorKind::Boot);
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Boot, "the queue is gone"));
    }

    #[test]
    fn an_error_below_a_workers_own_keeps_its_kind_and_its_detail() {
        let own = || {
            let error = Error::new(ErrorKind::Application, "no module named x");
            error.caused_by(io::Error::from_raw_os_error(2)).with_detail("Traceback")
        };
        let text = "no module named x: No such file or directory (os error 2)";
        let plain = Error::of_worker(own().into(), ErrorKind::Boot);
        let below = Error::of_worker(Context("load", own().into()).into(), ErrorKind::Boot);
        for (error, text) in [(plain, text.to_owned()), (below, format!("load: {text}"))] {
            assert_eq!(error.to_string(), text);
            assert_eq!((error.kind(), error.detail()), (ErrorKind::Application, Some("Traceback")));
        }
    }
}
