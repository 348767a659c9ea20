//! The builder of a pool: its settings by name, and the call that runs it.

mod settings;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::Supervisor;
use super::config::Config;
use super::ending::Ending;
use super::event_loop::RunningPool;
use super::pool::Pool;
use super::signals::SignalUse;
use super::spawning::{self, ParentReport, Spawned};
use crate::control::handle_end::HandleEnd;
use crate::control::{Handle, handle};
use crate::error::{Error, Result};
use crate::host::service_manager::ServiceManager;
use crate::listener::{Address, Listener};
use crate::policy::Outcome;
use crate::sys::fork;
use crate::sys::unshared::Marks;
use crate::upgrade::Resumption;
use crate::upgrade::calls::{self, Task};

/// A pre-fork pool: settings, then [`run`](Self::run).
///
/// ```no_run
/// use mcsup_core::{Prefork, Worker, WorkerContext, WorkerResult};
///
/// struct Echo;
///
/// impl Worker for Echo {
///     fn run(&mut self, context: &WorkerContext) -> WorkerResult {
///         while let Some(mut connection) = context.accept()? {
///             std::io::copy(&mut connection.try_clone()?, &mut connection)?;
///         }
///         Ok(())
///     }
/// }
///
/// fn main() -> mcsup_core::Ending {
///     Prefork::new(|| Echo).bind("127.0.0.1:7000").workers(4).run()
/// }
/// ```
#[derive(Debug)]
pub struct Prefork<S> {
    supervisor: S,
    config: Config,
    mistake: Option<Error>,
    resumption: Option<Resumption>,
    handles: Vec<HandleEnd>,
    signal_use: SignalUse,
    /// The number of the call that begins the pool; `None`: not yet.
    call: Option<u32>,
    /// Keeps the own listeners from workers of other pools until this one starts.
    withheld: Vec<Marks>,
}

impl<S: Supervisor> Prefork<S> {
    /// A pool of one worker that listens nowhere yet.
    pub fn new(supervisor: S) -> Self {
        Self::with_config(supervisor, Config::default())
    }

    /// A pool with any other settings.
    pub fn with_config(supervisor: S, config: Config) -> Self {
        let withheld = vec![Marks::withholding(config.listeners.iter().map(|own| own.as_fd().as_raw_fd()))];
        Self {
            supervisor,
            config,
            mistake: None,
            resumption: None,
            handles: Vec::new(),
            signal_use: SignalUse::Handled,
            call: None,
            withheld,
        }
    }

    /// Adds an address to listen on (see [`Address`] for its forms). An invalid one is an error of [`run`](Self::run).
    #[must_use]
    pub fn bind(mut self, address: &str) -> Self {
        match address.parse::<Address>() {
            Ok(address) => self.config.addresses.push(address),
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }

    /// Adds a listener of the program's own: an implementation of [`Listener`] with its own accept, or any open
    /// socket ([`from_socket`](crate::listener::from_socket)).
    ///
    /// The pool owns it from now on, makes it non-blocking, and closes it at the end. Two of them with one name,
    /// the text of [`Listener::local`], are an error of [`run`](Self::run).
    ///
    /// The socket may serve others afterwards, so new clients can connect until the pool closes it: one that does so in
    /// the last moment of a stop is reset, unless another process holds the socket too. A TCP address of
    /// [`bind`](Self::bind) lets no new client into its queue then.
    ///
    /// In a new image after an upgrade the socket is already open: such a program takes the
    /// [`Resumption`] first, and makes its listener from [`Resumption::listener`] instead of binding again.
    #[must_use]
    pub fn listener(mut self, listener: impl Listener + 'static) -> Self {
        self.withheld.push(Marks::withholding([listener.as_fd().as_raw_fd()]));
        self.config.listeners.push(Arc::new(listener));
        self
    }

    /// Listens on the sockets that the service manager has passed and no address names (`LISTEN_FDS`,
    /// sd_listen_fds(3)). They may be of any kind. That none was passed is an error of [`run`](Self::run).
    ///
    /// It reads and removes the variables ([`ServiceManager::from_environment`]) unless that is done: with
    /// [`service_manager`](Self::service_manager) it is `bind("fd://*")`.
    #[must_use]
    pub fn listen_fds(mut self) -> Self {
        match ServiceManager::from_environment() {
            Ok(found) if !found.sockets().is_empty() => self.config.service_manager = found,
            Ok(_) => {}
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self.bind("fd://*")
    }

    /// Lets the pool run without a listener: its workers pull their work, for example from a queue.
    ///
    /// Such a worker waits by [`WorkerContext::pause`](crate::WorkerContext::pause) or
    /// [`readable`](crate::WorkerContext::readable).
    #[must_use]
    pub fn without_listeners(mut self) -> Self {
        self.config.without_listeners = true;
        self
    }

    /// The number of workers; at least one.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.policy.workers = workers;
        self
    }

    /// Takes over from another image of this supervisor. Needed only if the embedder has called
    /// [`Resumption::from_environment`]; otherwise [`run`](Self::run) calls it. Until this pool has taken over, the calls
    /// of other pools begin nothing.
    #[must_use]
    pub fn resume(mut self, resumption: Option<Resumption>) -> Self {
        self.resumption = resumption;
        self
    }

    /// Runs the pool until it ends. A process may call it again.
    ///
    /// Call it on the process's only thread: a process with further threads (of the ctrlc crate, of a multi-thread
    /// runtime that is not dropped yet) cannot fork. On Linux `run` counts the threads, and returns an error that names
    /// them before it opens anything. Elsewhere it does not check.
    ///
    /// It changes these attributes of the process, and restores them before it returns:
    /// - the handlers, flags and masks of CHLD, TERM, INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH, which the
    ///   supervisor handles, and of PIPE, which is ignored. Handlers of the host do not run meanwhile.
    ///   [In workers](#signals-in-workers) they do not run either, except for CHLD;
    /// - the signal mask, in which those signals are unblocked;
    /// - the soft limit of open descriptors, which is raised to the hard limit (workers have the original one);
    /// - on Linux, the adoption of orphaned descendants (PR_SET_CHILD_SUBREAPER), if the settings need it;
    /// - the umask, while a Unix socket is made.
    ///
    /// With several pools in one process ([`start`](Self::start)) the last one restores them. Each pool that handles
    /// signals gets each of them.
    ///
    /// In a new image that takes over the pool of another call, it returns at once, as after an orderly stop
    /// ([`spawn`](Self::spawn)).
    ///
    /// It removes [`VARIABLE`](crate::upgrade::VARIABLE) from the environment and does not restore it: the state that it
    /// names has been read. The program of a new image begins with all signals blocked; they are unblocked afterwards.
    ///
    /// When it returns no worker or mold is left, unless SIGKILL did not end it. The supervisor keeps the name of the
    /// process; only workers and molds get names.
    ///
    /// # Signals in workers
    /// A worker handles TERM, INT, QUIT, HUP, USR1, USR2, TTIN, TTOU and WINCH itself, and does nothing at CHLD, ALRM, VTALRM,
    /// PROF and ABRT. It treats the handlers of the host for these signals so:
    /// - actions that were registered through the signal-hook-registry crate are removed, except those for CHLD, which run.
    ///   The signal stays caught: ALRM, VTALRM, PROF and ABRT do not end such a worker. A handler that the registry found
    ///   there when it was installed is still called by it;
    /// - other handlers are replaced: by the worker's own, and by the default for the last five.
    ///
    /// Handlers for all other signals (CONT, TSTP, URG, real-time signals and so on) run in workers as after any fork. An
    /// action that a worker itself registers through signal-hook-registry runs beside the worker's own handler.
    ///
    /// If the host has used `tokio::signal` or `tokio::process`, its workers cannot rely on `tokio::signal`: tokio registers
    /// a signal once per process, believes so after a fork, and wakes by a pipe that all forked processes share. Use
    /// signal-hook-registry in such a host, or start tokio in workers only.
    pub fn run(self) -> Ending {
        match self.begin() {
            // This was a dry run, or another call takes over.
            Ok(None) => Ending::of(Outcome::Stopped, None),
            Ok(Some(pool)) => pool.run(),
            Err(error) => {
                log::error!("{error}");
                Ending::of_error(error)
            }
        }
    }

    /// Whether the supervisor handles signals ([`run`](Self::run) lists them); it does by default.
    ///
    /// With `false` the program handles all of them itself, and ends the pool by a [`Handle`]. Only SIGPIPE is ignored, and
    /// an ignored SIGCHLD, or one with SA_NOCLDWAIT, is not: the kernel would discard how workers end. Where the program
    /// reaps a worker itself, the pool notices its end without the cause. Workers have their handlers in any case.
    #[must_use]
    pub fn signals(mut self, are_handled: bool) -> Self {
        self.signal_use = if are_handled { SignalUse::Handled } else { SignalUse::Left };
        self
    }

    /// Runs the pool, and reports its start, or why there is none, to the program that has spawned this process.
    pub(super) fn run_and_report(self) -> Ending {
        let parent = self.handles.iter().find(|end| end.is_of_parent());
        // Workers get neither of the two: their copies would hide the end of this process from the program.
        let reporter = parent.and_then(|end| end.reporter().ok());
        let report = move |report: ParentReport| {
            if let Some(reporter) = &reporter {
                reporter.report(&report.into_line());
            }
        };
        match self.begin() {
            // This was a dry run, or another call takes over.
            Ok(None) => Ending::of(Outcome::Stopped, None),
            Ok(Some(pool)) => {
                report(ParentReport::Started);
                drop(report);
                pool.run()
            }
            Err(error) => {
                log::error!("{error}");
                let ending = Ending::of_error(error);
                report(ParentReport::ended(&ending));
                ending
            }
        }
    }

    /// Takes requests of these handles too.
    pub(super) fn serve(&mut self, handles: HandleEnd) {
        self.handles.push(handles);
    }

    /// Lets processes that are forked from now on have the descriptors of this pool.
    pub(super) fn share_descriptors(&mut self) {
        self.withheld.clear();
        self.handles.iter_mut().for_each(HandleEnd::share);
    }

    /// A handle on the pool, for requests from code. Each call makes a new one; clones share theirs.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn handle(&mut self) -> Result<Handle> {
        let (handle, end) = handle::pair()?;
        self.handles.push(end);
        Ok(handle)
    }

    /// Opens the listeners and forks the first workers, for a program with an own loop (see [`Pool`]).
    ///
    /// All else is as in [`run`](Self::run): the one thread, the attributes of the process, the signals. What the program
    /// changes of its signals after the start stays at the end: a disposition that it has set, a signal that it has blocked.
    ///
    /// # Errors
    /// The pool cannot start; nothing is left of it.
    pub fn start(self) -> Result<Pool<S>> {
        Pool::new(|| self.begin())
    }

    /// Forks a process that runs the pool, for a program that starts threads later. Returns when the listeners are open
    /// and the first workers are forked.
    ///
    /// The process ends with the pool; no code of the program's `main` runs in it. Its signals are those of
    /// [`run`](Self::run), or with [`signals(false)`](Self::signals) none that others send has an effect.
    ///
    /// Handles of [`handle`](Self::handle) are closed in that process, also for the methods of [`Supervisor`].
    ///
    /// An upgrade executes the program's command line in that process. So `main` runs again there, up to this call, which
    /// then takes over the pool and does not return. Earlier calls of `spawn`, [`start`](Self::start) and
    /// [`run`](Self::run) begin nothing there, and return the value of a pool that has ended: the new image must make the
    /// same calls in the same order. An upgrade of a pool of the program itself is refused while a spawned one runs.
    ///
    /// That process sends no messages to the service manager, which awaits them from the program
    /// ([`ServiceManager::notify`]), and stores no sockets there. Passed sockets are served.
    ///
    /// # Errors
    /// The process has further threads or cannot be forked, or the pool cannot start there.
    pub fn spawn(self) -> Result<Spawned> {
        let signal_use = match self.signal_use {
            SignalUse::Handled => SignalUse::Handled,
            SignalUse::Left | SignalUse::Unused => SignalUse::Unused,
        };
        let call = self.call.unwrap_or_else(calls::next);
        let mut config = self.config;
        config.service_manager = config.service_manager.without_messages();
        let task = calls::task(call, self.resumption)?;
        let pool = |resumption| Self { config, resumption, signal_use, call: Some(call), ..self };
        match task {
            Task::Begin => spawning::spawn(pool(None)),
            Task::TakeOver(resumption) => spawning::run_to_the_end(pool(Some(*resumption))),
            Task::PassOver => Spawned::passed_over(),
        }
    }

    /// Begins the pool; `None`: this was a dry run, or another call takes over.
    pub(super) fn begin(self) -> Result<Option<RunningPool<S>>> {
        let Self { supervisor, config, mistake, resumption, handles, signal_use, call, withheld } = self;
        let call = call.unwrap_or_else(calls::next);
        let resumption = match calls::task(call, resumption)? {
            Task::Begin => None,
            Task::TakeOver(resumption) => Some(*resumption),
            Task::PassOver => return Ok(None),
        };
        drop(withheld);
        match mistake.or_else(|| obstacle(&config, resumption.as_ref())) {
            None => RunningPool::begin(supervisor, config, (call, resumption), (handles, signal_use)),
            Some(error) => {
                if let Some(resumption) = resumption {
                    resumption.give_up(&error.to_string());
                }
                Err(error)
            }
        }
    }
}

/// The reason why the pool cannot start.
fn obstacle(config: &Config, resumption: Option<&Resumption>) -> Option<Error> {
    config.mistake().or_else(|| {
        // The old image after a failed upgrade is the last one that can supervise the pool, even if it cannot fork.
        let is_last = resumption.is_some_and(|resumption| resumption.failure().is_some());
        let threads = fork::require_one_thread().err().filter(|_| !is_last)?;
        Some(Error::system("cannot supervise", threads))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use crate::worker::{Worker, WorkerContext, WorkerResult};

    /// A worker that has nothing to do.
    pub(in crate::supervisor) struct Idle;

    impl Worker for Idle {
        fn run(&mut self, _: &WorkerContext) -> WorkerResult {
            Ok(())
        }
    }
}
