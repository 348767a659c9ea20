//! The builder: a supervisor's settings by name, and its life in one call.

use std::process::ExitCode;

use super::config::Config;
use super::{Supervisor, event_loop};
use crate::error::{Error, ErrorKind};
use crate::listener::Address;
use crate::policy::Outcome;
use crate::sys::fork;
use crate::upgrade::Resumption;

/// A pre-fork pool: settings, then [`run`](Self::run).
///
/// ```no_run
/// use mcsup_core::{Prefork, Result, Worker, WorkerContext};
///
/// struct Echo;
///
/// impl Worker for Echo {
///     fn run(&mut self, context: &WorkerContext) -> Result<()> {
///         while let Some(mut connection) = context.accept()? {
///             std::io::copy(&mut connection.try_clone()?, &mut connection)?;
///         }
///         Ok(())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     Prefork::new(|| Echo).bind("127.0.0.1:7000").workers(4).run().into()
/// }
/// ```
#[derive(Debug)]
pub struct Prefork<S> {
    supervisor: S,
    config: Config,
    mistake: Option<Error>,
    resumption: Option<Resumption>,
}

impl<S: Supervisor> Prefork<S> {
    /// A pool of one worker that listens nowhere yet.
    pub fn new(supervisor: S) -> Self {
        Self::with_config(supervisor, Config::default())
    }

    /// A pool with any other settings.
    pub fn with_config(supervisor: S, config: Config) -> Self {
        Self { supervisor, config, mistake: None, resumption: None }
    }

    /// Listens on `address` as well (see [`Address`] for its forms). What does not parse is an error of
    /// [`run`](Self::run).
    #[must_use]
    pub fn bind(mut self, address: &str) -> Self {
        match address.parse::<Address>() {
            Ok(address) => self.config.addresses.push(address),
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }

    /// How many workers; at least one.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.policy.workers = workers;
        self
    }

    /// Takes the place of another image of this supervisor. Needed only where
    /// [`Resumption::from_environment`] was called already; otherwise [`run`](Self::run) does so.
    #[must_use]
    pub fn resume(mut self, resumption: Option<Resumption>) -> Self {
        self.resumption = resumption;
        self
    }

    /// Supervises until the pool ends. A process may call it again.
    ///
    /// Call it on the process's only thread: a process with another one (the ctrlc crate starts one, a multi-thread runtime
    /// several until it is dropped) cannot fork. On Linux it is refused, before anything is opened, by an error that names
    /// the threads; elsewhere the caller's word counts.
    ///
    /// What it changes of the process meanwhile, and puts back before it returns:
    /// - what the process does at CHLD, TERM, INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH, which are the
    ///   supervisor's, and at PIPE, which is ignored: handler, flags and mask as they were. Handlers that the host has
    ///   registered do not run until then. [In workers](#signals-in-workers) they do not run either, except for CHLD;
    /// - the signal mask, in which those signals are unblocked;
    /// - the soft limit of open descriptors, which is raised to the hard one (workers have the one that was given);
    /// - on Linux, that it adopts its orphaned descendants (PR_SET_CHILD_SUBREAPER), where it needs to;
    /// - the umask, for the moment in which a Unix socket is made.
    ///
    /// [`VARIABLE`](crate::upgrade::VARIABLE) is taken out of the environment and not put back: the state that it names is
    /// read by then. The program of a new image begins with all signals blocked, and they stay unblocked.
    ///
    /// When it returns no worker or mold is left. The name of the process is never changed: workers and molds alone have
    /// names.
    ///
    /// # Signals in workers
    /// A worker handles TERM, INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH itself, and does nothing at CHLD, ALRM, VTALRM,
    /// PROF and ABRT. What the host has installed for these becomes:
    /// - actions that were registered through the signal-hook-registry crate are removed, except those for CHLD, which run.
    ///   The signal stays caught: ALRM, VTALRM, PROF and ABRT do not end such a worker. A handler that the registry found
    ///   there when it was installed is still called by it;
    /// - other handlers are replaced: by the worker's own, and by the default for the last five.
    ///
    /// Handlers for all other signals (CONT, TSTP, URG, real-time signals and so on) run in workers as after any fork. What a
    /// worker itself registers through signal-hook-registry runs, beside what the worker does at the signal.
    ///
    /// If the host has used `tokio::signal` or `tokio::process`, its workers cannot rely on `tokio::signal`: tokio registers
    /// a signal once per process, believes so after a fork, and wakes by a pipe that all forked processes share. Use
    /// signal-hook-registry in such a host, or start tokio in workers only.
    pub fn run(self) -> Ending {
        let Self { supervisor, config, mistake, resumption } = self;
        let result = match resumption.map_or_else(Resumption::from_environment, |given| Ok(Some(given))) {
            Err(error) => Err(error),
            Ok(resumption) => match mistake.or_else(|| obstacle(&config, resumption.as_ref())) {
                None => event_loop::run(supervisor, config, resumption),
                Some(error) => {
                    if let Some(resumption) = resumption {
                        resumption.give_up(&error.to_string());
                    }
                    Err(error)
                }
            },
        };
        match result {
            Ok((outcome, failure)) => Ending {
                outcome: Some(outcome),
                error: failure.map(|failure| {
                    let error = Error::new(failure.kind, failure.summary);
                    match failure.detail {
                        Some(detail) => error.with_detail(detail),
                        None => error,
                    }
                }),
            },
            Err(error) => {
                log::error!("{error}");
                Ending { outcome: None, error: Some(error) }
            }
        }
    }
}

/// What keeps the pool from a start.
fn obstacle(config: &Config, resumption: Option<&Resumption>) -> Option<Error> {
    mistake_in(config).or_else(|| {
        // The old image, here again, is the last one that can supervise the pool: better without forks than not at all.
        let is_last = resumption.is_some_and(|resumption| resumption.failure().is_some());
        let threads = fork::require_one_thread().err().filter(|_| !is_last)?;
        Some(Error::system("cannot supervise", threads))
    })
}

fn mistake_in(config: &Config) -> Option<Error> {
    let policy = &config.policy;
    if policy.workers > 0 && policy.workers <= policy.max_workers {
        return None;
    }
    let range = format!("{} workers: expected 1 to {}", policy.workers, policy.max_workers);
    Some(Error::new(ErrorKind::Setting, range))
}

/// How a supervisor's life ended. Turned into an exit code it is 0 after a clean stop, and otherwise what
/// [`Ending::code`] says.
#[derive(Debug)]
#[must_use = "it says whether the pool ended well"]
pub struct Ending {
    outcome: Option<Outcome>,
    error: Option<Error>,
}

impl Ending {
    /// How the pool ended; `None`: it never began, or broke.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Why the pool did not start, or broke: the first reason. It is in the log already.
    ///
    /// `None` after a stop, also where processes had to be killed or are left.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// The exit code: 0 stopped as asked, 1 could not start or go on, 3 workers could not boot, 4 what they were to
    /// run could not be loaded, 5 stopped but workers had to be killed at the graceful timeout, 10 stopped but a process
    /// is still there after SIGKILL.
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

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        ExitCode::from(ending.code())
    }
}
