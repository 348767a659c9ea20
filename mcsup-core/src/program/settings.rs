//! The description of a program.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::running::Running;
use crate::host::privileges::RunAs;

/// A program of any language, as a worker.
///
/// Each worker is a process of this library and the program as its child. The program inherits the pool's
/// listeners and reports when it is ready; a signal makes it end. [`Program::new`] has the defaults.
///
/// ```no_run
/// use mcsup_core::{Prefork, Program};
///
/// fn main() -> std::process::ExitCode {
///     let node = Program::new("node").args(["server.js", "--fd", "{fd}"]);
///     Prefork::new(move || node.clone()).bind("127.0.0.1:3000").workers(4).run().into()
/// }
/// ```
///
/// # Listeners
/// The listeners are the descriptors from 3 on, in the order of their addresses. These variables name them:
///
/// | variable | value |
/// |---|---|
/// | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | as in sd_listen_fds(3); a name is the address with `-` for `:` |
/// | `EINHORN_FD_COUNT`, `EINHORN_FD_0` and so on, `EINHORN_CHILD_INDEX` | as of Einhorn; the index is the slot |
/// | `SERVER_STARTER_PORT` | `HOST:PORT=FD` or `PATH=FD`, separated by `;` |
/// | `MCSUP_FDS`, `MCSUP_SLOT` | `ADDRESS=FD`, separated by `,`, with `%` escapes; the slot |
///
/// In the arguments `{fd}` or `{fd:N}`, `{port}` or `{port:N}`, `{address}` or `{address:N}`, and `{slot}` are
/// replaced; N counts the listeners from 0.
///
/// # Readiness
/// The program is ready when it writes a newline to the descriptor in `MCSUP_READY_FD`, or sends `READY=1` to
/// `NOTIFY_SOCKET` (sd_notify(3); Linux). A report from a process that is no descendant of the worker, or that
/// runs as another user than the program, is logged and not believed. [`Ready`] adds other ways. A helper that
/// reports waits until its report is read (`sd_notify_barrier(3)`): a process that was reaped before is unknown.
///
/// At `NOTIFY_SOCKET` the program may also send `STATUS=`, `WATCHDOG=1`, `STOPPING=1`, and `MAINPID=` for a
/// descendant that takes its place.
///
/// # End
/// When the worker is to end the program gets the [stop signal](Self::stop_signal). It is killed shortly
/// before the pool's graceful timeout. Its descendants that outlive it get SIGTERM, and SIGKILL two seconds
/// later. A program that is to end before it is ready ends in the same way, since it may have clients.
///
/// The kernel kills the program if the worker dies (Linux). It does not kill a program that has changed its user,
/// or has gained capabilities by an exec (`PR_SET_PDEATHSIG`, prctl(2)): such a program serves on beside its
/// successor. With [`Children::End`](crate::Children::End) the supervisor ends it, and all descendants of the
/// program.
#[derive(Debug)]
pub struct Program {
    pub(super) plan: Plan,
    pub(super) running: Option<Running>,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) ready: Ready,
    pub(super) stdin: Stdin,
    pub(super) output: Output,
    pub(super) is_blocking: bool,
    pub(super) stop_signal: i32,
    pub(super) reopen_signal: Option<i32>,
    pub(super) on_reopen: Hook,
    pub(super) watchdog: Option<Duration>,
    pub(super) limits: Vec<Limit>,
    pub(super) nice: Option<i32>,
    pub(super) cpus: Vec<Vec<usize>>,
    pub(super) umask: Option<u32>,
    pub(super) run_as: Option<RunAs>,
    pub(super) no_new_privileges: bool,
}

/// Code of the embedder, in the worker's process.
#[derive(Clone, Default)]
pub(super) struct Hook(Option<Arc<dyn Fn() + Send + Sync>>);

impl Hook {
    pub(super) fn run(&self) {
        if let Some(code) = &self.0 {
            code();
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({})", self.0.is_some())
    }
}

impl Plan {
    /// The program, for messages.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// A further way to detect that a program is ready, beside its own report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ready {
    /// Only its own report counts.
    #[default]
    Reported,
    /// It accepts a connection at the first TCP listener. Linux only.
    ///
    /// A connection that another worker accepts does not count: /proc shows the process that holds it.
    Accepts,
    /// It accepts such a connection, and answers a request. Linux only.
    Answers {
        /// The bytes to send.
        request: Vec<u8>,
        /// The possible beginnings of its answer.
        answers: Vec<Vec<u8>>,
    },
    /// It has run for this time. Nothing proves that it is ready, and a warning says so.
    After(Duration),
}

/// The standard input of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stdin {
    /// /dev/null.
    #[default]
    Null,
    /// The first listener, as inetd passes it with `wait`. It is also descriptor 3.
    Listener,
}

/// The standard output and error of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Output {
    /// Each line is logged by the worker, at the level `info` with the target `mcsup_core::program::output`. The
    /// record has no pid: a logger adds its own process id.
    ///
    /// The program never waits for the log. Lines beyond 1 MiB that wait are dropped, and their number is
    /// logged; a line of more than 8 KiB is split, not within a character of UTF-8. Control characters stay.
    #[default]
    Log,
    /// Those of the supervisor.
    Inherit,
}

/// A limit of a program's resources (setrlimit(2)); `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The resource.
    pub resource: LimitedResource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// The limit up to which the program may raise it.
    pub hard: Option<u64>,
}

/// A resource of getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitedResource {
    /// `RLIMIT_AS`: bytes of address space.
    AddressSpace,
    /// `RLIMIT_CORE`: bytes of a core file.
    Core,
    /// `RLIMIT_CPU`: seconds of processor time.
    Cpu,
    /// `RLIMIT_DATA`: bytes of data.
    Data,
    /// `RLIMIT_FSIZE`: bytes of a file.
    FileSize,
    /// `RLIMIT_MEMLOCK`: bytes of locked memory.
    LockedMemory,
    /// `RLIMIT_NOFILE`: open descriptors.
    Descriptors,
    /// `RLIMIT_NPROC`: processes of the user.
    Processes,
    /// `RLIMIT_STACK`: bytes of a stack.
    Stack,
}

impl Clone for Program {
    /// The same description. A running program is not part of it.
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), running: None }
    }
}

impl Program {
    /// A program by its path, or by a name that is looked up in `PATH`. Unlike with execvp(3) no shell runs a
    /// script without `#!`.
    ///
    /// It gets the supervisor's environment, no arguments, the stop signal SIGTERM, /dev/null as its input,
    /// and the log for its output.
    pub fn new(program: impl Into<OsString>) -> Self {
        let plan = Plan {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            ready: Ready::default(),
            stdin: Stdin::default(),
            output: Output::default(),
            is_blocking: false,
            stop_signal: libc::SIGTERM,
            reopen_signal: None,
            on_reopen: Hook::default(),
            watchdog: None,
            limits: Vec::new(),
            nice: None,
            cpus: Vec::new(),
            umask: None,
            run_as: None,
            no_new_privileges: false,
        };
        Self { plan, running: None }
    }

    fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    /// Adds arguments. Placeholders in them are replaced.
    #[must_use]
    pub fn args<A: Into<OsString>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.with(|plan| plan.arguments.extend(arguments.into_iter().map(Into::into)))
    }

    /// Sets a variable of its environment. Those of the contracts, such as `LISTEN_PID`, have other values.
    #[must_use]
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.with(|plan| plan.environment.push((name.into(), value.into())))
    }

    /// Changes its working directory. A relative path of the program counts from there.
    #[must_use]
    pub fn current_dir(self, directory: impl Into<PathBuf>) -> Self {
        self.with(|plan| plan.directory = Some(directory.into()))
    }

    /// Adds a way to detect that it is ready.
    #[must_use]
    pub fn ready(self, ready: Ready) -> Self {
        self.with(|plan| plan.ready = ready)
    }

    /// Sets its standard input.
    #[must_use]
    pub fn stdin(self, stdin: Stdin) -> Self {
        self.with(|plan| plan.stdin = stdin)
    }

    /// Sets its standard output and error.
    #[must_use]
    pub fn output(self, output: Output) -> Self {
        self.with(|plan| plan.output = output)
    }

    /// Passes listeners on which accept(2) waits, for a program that expects that.
    ///
    /// The mode belongs to the socket, which all workers share. With
    /// [`reuse_port`](crate::listener::Options::reuse_port), where the supervisor accepts as well, it may wait.
    #[must_use]
    pub fn blocking_listeners(self, is_blocking: bool) -> Self {
        self.with(|plan| plan.is_blocking = is_blocking)
    }

    /// Sets the signal that makes it end gracefully, by its number in signal(7).
    ///
    /// A number without a name is an error of the worker's boot.
    #[must_use]
    pub fn stop_signal(self, number: i32) -> Self {
        self.with(|plan| plan.stop_signal = number)
    }

    /// Sets the signal that makes it reopen its log files. Without one it gets none.
    #[must_use]
    pub fn reopen_signal(self, number: i32) -> Self {
        self.with(|plan| plan.reopen_signal = Some(number))
    }

    /// Runs `code` in the worker's process when log files should be reopened, for the log of this process.
    #[must_use]
    pub fn on_reopen(self, code: impl Fn() + Send + Sync + 'static) -> Self {
        self.with(|plan| plan.on_reopen = Hook(Some(Arc::new(code))))
    }

    /// Makes the program's own signs of life those of the worker: `WATCHDOG=1` at `NOTIFY_SOCKET`, at least
    /// once in `interval`.
    ///
    /// The program finds it in `WATCHDOG_USEC`. The pool's
    /// [`timeout`](crate::policy::Policy::timeout) decides, and should not be shorter. Linux only.
    #[must_use]
    pub fn watchdog(self, interval: Duration) -> Self {
        self.with(|plan| plan.watchdog = Some(interval))
    }

    /// Adds a limit of its resources.
    #[must_use]
    pub fn limit(self, limit: Limit) -> Self {
        self.with(|plan| plan.limits.push(limit))
    }

    /// Adds to its nice value, as nice(2).
    #[must_use]
    pub fn nice(self, addition: i32) -> Self {
        self.with(|plan| plan.nice = Some(addition))
    }

    /// Sets the processors that it may use, by number: the worker of slot N gets the set N modulo their count.
    /// Linux only.
    #[must_use]
    pub fn cpus(self, sets: Vec<Vec<usize>>) -> Self {
        self.with(|plan| plan.cpus = sets)
    }

    /// Sets its umask.
    #[must_use]
    pub fn umask(self, mask: u32) -> Self {
        self.with(|plan| plan.umask = Some(mask))
    }

    /// Sets its user and groups. The worker keeps those of the supervisor, unless
    /// [`Config::run_as`](crate::Config::run_as) changes them too.
    #[must_use]
    pub fn run_as(self, run_as: RunAs) -> Self {
        self.with(|plan| plan.run_as = Some(run_as))
    }

    /// Makes it and its descendants unable to gain privileges by an exec (`PR_SET_NO_NEW_PRIVS`). Linux only.
    #[must_use]
    pub fn no_new_privileges(self, is_set: bool) -> Self {
        self.with(|plan| plan.no_new_privileges = is_set)
    }
}
