//! The settings of a server, grouped by who reads them, each with the source that it came from.
//!
//! [`Settings::resolve`] is pure: it takes the command line, a way to look up variables and a way to read the settings
//! file, and touches neither the process's environment nor the file system. So it can be asked again at a reload. Whether a directory exists or a port is free shows when it is used.

pub(crate) mod values;

mod choices;
mod file;
mod lifecycle;
mod sources;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use choices::{ControlSocket, PreloadThreads, ReloadEngine, Surge};
pub use file::{ReadFile, reader};
pub use lifecycle::{Control, Development, Draining, Mold, Recycling, Rollout};
pub use sources::{Environment, Origin, Sourced};

use crate::args::{RunArgs, UsageError};
use crate::logging::{Destination, Level};
use sources::Sources;

/// The defaults, as the lowest of the command lines. The help repeats them; a test compares the two.
const DEFAULTS: [(&str, &str); 31] = [
    ("--bind", "127.0.0.1:8000"),
    ("--backlog", "2048"),
    ("--workers", "1"),
    ("--threads", "1"),
    ("--drain-delay", "0"),
    ("--preload-threads", "warn"),
    ("--surge", "1"),
    ("--soak", "2"),
    ("--reload-retries", "0"),
    ("--max-requests", "0"),
    ("--max-requests-jitter", "0"),
    ("--max-lifetime", "0"),
    ("--max-lifetime-jitter", "0"),
    ("--max-rss", "0"),
    ("--max-rss-jitter", "0"),
    ("--reload-engine", "auto"),
    ("--timeout", "30"),
    ("--graceful-timeout", "30"),
    ("--boot-timeout", "60"),
    ("--keep-alive", "2"),
    ("--header-timeout", "15"),
    ("--body-timeout", "30"),
    ("--write-timeout", "60"),
    ("--worker-connections", "0"),
    ("--limit-request-line", "8190"),
    ("--limit-request-fields", "100"),
    ("--limit-request-field-size", "8190"),
    ("--limit-request-body", "1073741824"),
    ("--access-logformat", r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#),
    ("--error-logfile", "-"),
    ("--log-level", "info"),
];

/// The most threads in a worker: beyond that they only wait for each other.
const MOST_THREADS: usize = 1024;

/// The most connections of a worker: beyond that the system's own limits come first.
const MOST_CONNECTIONS: usize = 1 << 24;

/// The largest head that is worth a connection's memory: bytes of one line, and fields.
const LARGEST_LINE: usize = 1 << 20;
const MOST_FIELDS: usize = 32_768;

/// Everything that a server is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What to serve, as `MODULE:ATTRIBUTE`.
    pub app: Option<Sourced<String>>,
    /// Directories to search for modules first.
    pub python_path: Option<Sourced<Vec<String>>>,
    /// Where to listen; each is known to be an address.
    pub binds: Sourced<Vec<String>>,
    /// Connections that may wait in the kernel's queue.
    pub backlog: Sourced<i32>,
    /// Worker processes, 1 to 512.
    pub workers: Sourced<usize>,
    /// Threads in each worker that call the application, 1 to 1024.
    pub threads: Sourced<usize>,
    /// Load the application, report, and end.
    pub check_config: Sourced<bool>,
    /// Whether what is imported of the standard library is left to each worker.
    pub no_share_stdlib: Sourced<bool>,
    /// Whether each worker has listening sockets of its own.
    pub reuse_port: Sourced<bool>,
    /// For the supervisor.
    pub pool: PoolTimeouts,
    /// For the request engine.
    pub http: HttpTimeouts,
    /// For the request engine.
    pub limits: Limits,
    /// For whoever makes the processes what they are.
    pub process: Process,
    /// For the logs.
    pub logging: Logging,
    /// For a reload.
    pub rollout: Rollout,
    /// For when a worker is replaced though nothing is wrong with it.
    pub recycling: Recycling,
    /// For a stop.
    pub draining: Draining,
    /// For the process that workers are forked from.
    pub mold: Mold,
    /// For whoever changes the application while it is served.
    pub development: Development,
    /// For the operator's commands.
    pub control: Control,
}

/// How long the supervisor waits for its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// For a sign of life; `None`: for ever.
    pub timeout: Sourced<Option<Duration>>,
    /// For requests to be finished, once asked to stop; zero: not at all.
    pub graceful: Sourced<Duration>,
    /// For a new worker to be ready.
    pub boot: Sourced<Duration>,
}

/// How long a connection may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// For the whole head of a request.
    pub header: Sourced<Duration>,
    /// For the next bytes of a request body.
    pub body: Sourced<Duration>,
    /// For the next request; zero: no connection is kept.
    pub keep_alive: Sourced<Duration>,
    /// For the application to answer a request; `None`: as the pool's timeout where there is one thread, otherwise for ever.
    pub request: Option<Sourced<Option<Duration>>>,
    /// For the client to take the next bytes of a response.
    pub write: Sourced<Duration>,
}

/// How large a request may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one worker; 0: any number.
    pub connections: Sourced<usize>,
    /// Bytes of the request line.
    pub line: Sourced<usize>,
    /// Header fields.
    pub fields: Sourced<usize>,
    /// Bytes of one header field.
    pub field_size: Sourced<usize>,
    /// Bytes of the body; `u64::MAX`: unlimited.
    pub body: Sourced<u64>,
}

/// What the processes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Where to be before the application is loaded.
    pub chdir: Option<Sourced<PathBuf>>,
    /// Variables to add to the application's environment, in the order given.
    pub env: Sourced<Vec<(String, String)>>,
    /// Whom to run the workers as: a name or number.
    pub user: Option<Sourced<String>>,
    /// Which group to run the workers as: a name or number.
    pub group: Option<Sourced<String>>,
    /// Bits that a Unix socket shall not have, 0 to 0o777; without it the socket's mode is 0660.
    pub umask: Option<Sourced<u32>>,
    /// The pid file.
    pub pid: Option<Sourced<PathBuf>>,
    /// Whether to go to the background.
    pub daemon: Sourced<bool>,
    /// Whether what the application has started ends with its worker.
    pub end_children: Sourced<bool>,
    /// What process listings show.
    pub name: Option<Sourced<String>>,
}

/// What is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// The least level.
    pub level: Sourced<Level>,
    /// The error log; standard means standard error.
    pub errors: Sourced<Destination>,
    /// The access log; standard means standard output.
    pub access: Option<Sourced<Destination>>,
    /// The form of a line in the access log; `json` for one object a line.
    pub access_format: Sourced<String>,
}

impl Settings {
    /// Settles every setting from the command line, the environment, the settings file and the defaults.
    ///
    /// A reload asks again with the same command line and environment; the file is read anew each time. A path in it
    /// is passed to `read_file` as it was given: [`reader`] settles it against the directory of the start.
    pub fn resolve(
        command_line: RunArgs,
        environment: &Environment<'_>,
        read_file: &ReadFile<'_>,
    ) -> Result<Self, UsageError> {
        let sources = Sources::collect(command_line, environment, read_file)?;
        Ok(Self {
            app: sources.optional("app", |args| &args.app, values::text)?,
            python_path: sources.optional("pythonpath", |args| &args.pythonpath, values::directories)?,
            binds: sources.many("bind", |args| &args.bind, values::bind)?,
            backlog: sources.one(
                "backlog",
                |args| &args.backlog,
                |text| values::whole(text, 1..=i32::MAX),
            )?,
            workers: sources.one("workers", |args| &args.workers, values::workers)?,
            threads: sources.one(
                "threads",
                |args| &args.threads,
                |text| values::whole(text, 1..=MOST_THREADS),
            )?,
            check_config: sources.flag(|args| args.check_config),
            no_share_stdlib: sources.flag(|args| args.no_share_stdlib),
            reuse_port: sources.flag(|args| args.reuse_port),
            pool: PoolTimeouts::resolve(&sources)?,
            http: HttpTimeouts::resolve(&sources)?,
            limits: Limits::resolve(&sources)?,
            process: Process::resolve(&sources)?,
            logging: Logging::resolve(&sources)?,
            rollout: Rollout::resolve(&sources)?,
            recycling: Recycling::resolve(&sources)?,
            draining: Draining::resolve(&sources)?,
            mold: Mold::resolve(&sources)?,
            development: Development::resolve(&sources)?,
            control: Control::resolve(&sources)?,
        })
    }

    /// The application to serve, or the one line that says it is missing.
    pub fn target(&self) -> Result<&str, UsageError> {
        let missing = || UsageError::new("no application: name one as MODULE:ATTRIBUTE (try 'mcsup --help')");
        self.app.as_ref().map(|app| app.value.as_str()).ok_or_else(missing)
    }
}

impl PoolTimeouts {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            timeout: sources.one("timeout", |args| &args.timeout, values::seconds_or_off)?,
            graceful: sources.one("graceful_timeout", |args| &args.graceful_timeout, values::seconds)?,
            boot: sources.one("boot_timeout", |args| &args.boot_timeout, values::positive_seconds)?,
        })
    }
}

impl HttpTimeouts {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            header: sources.one("header_timeout", |args| &args.header_timeout, values::positive_seconds)?,
            body: sources.one("body_timeout", |args| &args.body_timeout, values::positive_seconds)?,
            keep_alive: sources.one("keep_alive", |args| &args.keep_alive, values::seconds)?,
            request: sources.optional(
                "request_timeout",
                |args| &args.request_timeout,
                values::seconds_or_off,
            )?,
            write: sources.one("write_timeout", |args| &args.write_timeout, values::positive_seconds)?,
        })
    }
}

impl Limits {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        let bytes = |text: &str| values::limit(text, LARGEST_LINE);
        let fields = |text: &str| values::limit(text, MOST_FIELDS);
        let body = |text: &str| values::limit(text, u64::MAX);
        Ok(Self {
            connections: sources.one(
                "worker_connections",
                |args| &args.worker_connections,
                |text| values::whole(text, 0..=MOST_CONNECTIONS),
            )?,
            line: sources.one("limit_request_line", |args| &args.limit_request_line, bytes)?,
            fields: sources.one("limit_request_fields", |args| &args.limit_request_fields, fields)?,
            field_size: sources.one(
                "limit_request_field_size",
                |args| &args.limit_request_field_size,
                bytes,
            )?,
            body: sources.one("limit_request_body", |args| &args.limit_request_body, body)?,
        })
    }
}

impl Process {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            chdir: sources.optional("chdir", |args| &args.chdir, values::path)?,
            env: sources.many("env", |args| &args.env, values::variable)?,
            user: sources.optional("user", |args| &args.user, values::text)?,
            group: sources.optional("group", |args| &args.group, values::text)?,
            umask: sources.optional("umask", |args| &args.umask, values::umask)?,
            pid: sources.optional("pid", |args| &args.pid, values::path)?,
            daemon: sources.flag(|args| args.daemon),
            end_children: sources.flag(|args| args.end_children),
            name: sources.optional("name", |args| &args.name, values::text)?,
        })
    }
}

impl Logging {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            level: sources.one("log_level", |args| &args.log_level, values::level)?,
            errors: sources.one("error_logfile", |args| &args.error_logfile, values::destination)?,
            access: sources.optional("access_logfile", |args| &args.access_logfile, values::destination)?,
            access_format: sources.one("access_logformat", |args| &args.access_logformat, values::text)?,
        })
    }
}
