//! The end of a supervisor, and the exit code of a program that ends with it.

use std::fmt;
use std::io::Write;
use std::process::{ExitCode, Termination};

use crate::error::{Error, ErrorKind};
use crate::policy::{BootFailure, Outcome};

/// The end of a supervisor. [`Ending::code`] is its exit code.
///
/// `main` can return it: the program then prints the reason of a bad end to standard error, and exits with the code.
///
/// ```no_run
/// # use mcsup_core::{Ending, Prefork, Worker, WorkerContext, WorkerResult};
/// # struct Echo;
/// # impl Worker for Echo { fn run(&mut self, _: &WorkerContext) -> WorkerResult { Ok(()) } }
/// fn main() -> Ending {
///     Prefork::new(|| Echo).bind("127.0.0.1:7000").run()
/// }
/// ```
#[derive(Debug)]
#[must_use = "it says whether the pool ended well"]
pub struct Ending {
    outcome: Option<Outcome>,
    error: Option<Error>,
}

impl Ending {
    /// The end of a pool with this outcome, and the failure that is its reason.
    pub(super) fn of(outcome: Outcome, failure: Option<BootFailure>) -> Self {
        let error = failure.map(|failure| {
            let error = Error::new(failure.kind, failure.summary);
            match failure.detail {
                Some(detail) => error.with_detail(detail),
                None => error,
            }
        });
        Self { outcome: Some(outcome), error }
    }

    /// The end of a pool in another process.
    pub(super) fn of_process(outcome: Option<Outcome>, error: Option<Error>) -> Self {
        Self { outcome, error }
    }

    /// The end of a pool that could not start or continue.
    pub(super) fn of_error(error: Error) -> Self {
        Self { outcome: None, error: Some(error) }
    }

    /// The outcome of the pool; `None`: it could not start or continue.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The first reason why the pool could not start or continue. The log has it already.
    ///
    /// `None` after a stop, also if processes had to be killed or are left.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// The exit code: 0 stopped, 1 could not start or continue, 3 workers could not boot, 4 the application could not be
    /// loaded, 5 stopped but workers had to be killed at the graceful timeout, 10 stopped but SIGKILL did not end a
    /// process.
    pub fn code(&self) -> u8 {
        match self.outcome {
            Some(Outcome::Stopped) => 0,
            Some(Outcome::Forced { .. }) => 5,
            Some(Outcome::BootFailed(ErrorKind::Application)) => 4,
            Some(Outcome::BootFailed(_)) => 3,
            Some(Outcome::Unkillable { .. }) => 10,
            None => 1,
        }
    }
}

impl fmt::Display for Ending {
    /// One line: `stopped`, or the reason of another end. A detail of several lines follows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, self.outcome) {
            (Some(error), _) => {
                write!(f, "{error}")?;
                match error.detail() {
                    Some(detail) => write!(f, "\n{}", detail.trim_end()),
                    None => Ok(()),
                }
            }
            (None, Some(Outcome::Forced { killed })) => {
                write!(f, "stopped; workers killed before they had finished: {killed}")
            }
            (None, Some(Outcome::Unkillable { left })) => {
                write!(f, "stopped; processes that SIGKILL did not end are still there: {left}")
            }
            (None, Some(Outcome::BootFailed(_))) => f.write_str("the first workers could not boot"),
            (None, Some(Outcome::Stopped) | None) => f.write_str("stopped"),
        }
    }
}

impl From<Ending> for ExitCode {
    /// The [code](Ending::code). Prints nothing.
    fn from(ending: Ending) -> Self {
        ExitCode::from(ending.code())
    }
}

impl Termination for Ending {
    /// Prints the reason of an end with another code than 0 to standard error.
    fn report(self) -> ExitCode {
        if self.code() != 0 {
            // Without standard error there is no other place for it.
            let _ = writeln!(std::io::stderr(), "Error: {self}");
        }
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_reason_and_its_code() {
        let failure = BootFailure {
            kind: ErrorKind::Application,
            summary: "no module named server".to_owned(),
            detail: Some("Traceback:\n  line\n".to_owned()),
        };
        let taken = Error::system("bind 127.0.0.1:80", std::io::Error::from_raw_os_error(98));
        let boot_failed = Outcome::BootFailed(ErrorKind::Application);
        for (ending, code, text) in [
            (Ending::of(Outcome::Stopped, None), 0, "stopped"),
            (Ending::of_error(taken), 1, "bind 127.0.0.1:80: "),
            (Ending::of(boot_failed, Some(failure)), 4, "no module named server\nTraceback:\n  line"),
            (Ending::of(Outcome::Forced { killed: 2 }, None), 5, "stopped; workers killed"),
            (Ending::of(Outcome::Unkillable { left: 1 }, None), 10, "stopped; processes that SIGKILL"),
        ] {
            assert_eq!(ending.code(), code);
            assert!(ending.to_string().starts_with(text), "{ending}");
        }
    }
}
