//! The settings of a server, grouped by their users, each with its source.
//!
//! [`Settings::resolve`] has no side effects: functions that the caller passes look up variables and read the settings
//! file. A reload calls it again. It does not check whether a directory exists or a port is free.

mod conf;
mod env_file;
mod file;
mod lifecycle;
mod listing;
mod logging;
pub(crate) mod program;
mod proxies;
mod sources;
mod tls;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use conf::{Conf, known_names, read as read_conf};
pub(crate) use file::{ReadFile, reader};
pub(crate) use lifecycle::{Control, ControlSocket, Development, Draining, Mold, Recycling, Rollout};
pub(crate) use logging::Logging;
pub(crate) use proxies::Proxies;
pub(crate) use sources::{DEFAULT_CONF, Environment, NamedConf, Origin, Sourced};

use mcsup_core::Address;
use mcsup_py::conf::{MASTER_HOOKS, Script};
use mcsup_py::engine::ServerField;
use mcsup_py::tls::TlsSettings;

use crate::args::UsageError;
use crate::table::Given;
use crate::values::{self, SocketOwner};
use sources::Sources;

/// Largest number of threads in a worker: more would only wait for each other.
const MOST_THREADS: usize = 1024;

/// Largest number of connections of a worker: the system's own limits are below.
const MOST_CONNECTIONS: usize = 1 << 24;

/// Largest request head: bytes of one line, and fields.
const LARGEST_LINE: usize = 1 << 20;
const MOST_FIELDS: usize = 32_768;

/// The configuration in Python that the sources name; without a settings file gunicorn's own, if `has_default`.
pub(crate) fn named_conf(
    command_line: &Given,
    environment: &Environment<'_>,
    has_default: bool,
) -> Result<Option<NamedConf>, UsageError> {
    Sources::conf(command_line, environment, has_default)
}

/// All settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The application, as `MODULE:ATTRIBUTE`.
    pub app: Option<Sourced<String>>,
    /// A file of PasteDeploy in place of an application, as `INI#SECTION`.
    pub paste: Option<Sourced<String>>,
    /// Variables for that file.
    pub paste_globals: Sourced<Vec<(String, String)>>,
    /// Whether files are not sent by sendfile(2).
    pub no_sendfile: Sourced<bool>,
    /// Directories to search for modules first.
    pub python_path: Option<Sourced<Vec<String>>>,
    /// Addresses to listen on.
    pub binds: Sourced<Vec<Address>>,
    /// Connections that may wait in the queue of a listening socket.
    pub backlog: Sourced<i32>,
    /// Worker processes, 1 to 512.
    pub workers: Sourced<usize>,
    /// Threads in each worker that call the application, 1 to 1024.
    pub threads: Sourced<usize>,
    /// Folders whose files are served without the application, each with its path.
    pub static_routes: Sourced<Vec<(String, PathBuf)>>,
    /// Load the application, report, and exit.
    pub check_config: Sourced<bool>,
    /// Whether each worker imports the standard library itself.
    pub no_share_stdlib: Sourced<bool>,
    /// Whether each worker has its own listening sockets.
    pub reuse_port: Sourced<bool>,
    /// Timeouts of the supervisor.
    pub pool: PoolTimeouts,
    /// Timeouts of the request engine.
    pub http: HttpTimeouts,
    /// Proxies before the server.
    pub proxies: Proxies,
    /// TLS; `None`: plain HTTP.
    pub tls: Option<TlsSettings>,
    /// The field Server of responses.
    pub server_field: ServerField,
    /// Size limits of the request engine.
    pub limits: Limits,
    /// User, directory, name and files of the processes.
    pub process: Process,
    /// Logs.
    pub logging: Logging,
    /// Reload.
    pub rollout: Rollout,
    /// Replacement of healthy workers.
    pub recycling: Recycling,
    /// Stop.
    pub draining: Draining,
    /// The mold, which forks workers with `--preload`.
    pub mold: Mold,
    /// Reload on changed files.
    pub development: Development,
    /// Control socket.
    pub control: Control,
    /// The configuration in Python, which workers execute too.
    pub conf: Option<ConfInUse>,
    /// Warnings about settings without an effect.
    pub warnings: Vec<String>,
    /// Text of `--print-config`, if it is asked for.
    pub listing: Option<String>,
}

/// A configuration in Python, as the processes of the pool need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfInUse {
    /// Its place and its text.
    pub script: Script,
    /// The names of the hooks that it defines.
    pub hooks: Vec<&'static str>,
    /// Whether workers need it: it defines hooks of workers, or `logconfig_dict`.
    pub is_needed_by_workers: bool,
    /// The settings by gunicorn's names that another source gives.
    pub beside: Vec<(&'static str, serde_json::Value)>,
    /// The report on its execution, for [`Conf::of_note`].
    pub note: Arc<str>,
}

impl ConfInUse {
    fn of(conf: &Conf, sources: &Sources) -> Self {
        let hooks = sources.hooks();
        let has_dictionary = matches!(sources.written("logconfig_dict"), Some((Origin::Conf(_), [_, ..])));
        Self {
            script: Script { source: conf.source.clone(), text: conf.report.text.clone() },
            is_needed_by_workers: has_dictionary || hooks.iter().any(|hook| !MASTER_HOOKS.contains(hook)),
            hooks,
            beside: sources.beside_the_conf(),
            note: conf.note().into(),
        }
    }
}

/// Timeouts of the supervisor for its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolTimeouts {
    /// Longest time without a beat; `None`: unlimited.
    pub timeout: Sourced<Option<Duration>>,
    /// Longest drain of a stopping worker; zero: none.
    pub graceful: Sourced<Duration>,
    /// Longest boot.
    pub boot: Sourced<Duration>,
}

/// Timeouts of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTimeouts {
    /// Longest time for the head of a request.
    pub header: Sourced<Duration>,
    /// Longest time without progress of a request body.
    pub body: Sourced<Duration>,
    /// Longest idle time before the next request; zero: no keep-alive.
    pub keep_alive: Sourced<Duration>,
    /// Longest time of a request in the application; `None`: the pool's timeout with one thread, otherwise unlimited.
    pub request: Option<Sourced<Option<Duration>>>,
    /// Longest time without progress of a response.
    pub write: Sourced<Duration>,
}

/// Size limits of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections of one worker; 0: no limit.
    pub connections: Sourced<usize>,
    /// Bytes of the request line.
    pub line: Sourced<usize>,
    /// Header fields.
    pub fields: Sourced<usize>,
    /// Bytes of one header field.
    pub field_size: Sourced<usize>,
    /// Bytes of the body; `u64::MAX`: no limit.
    pub body: Sourced<u64>,
}

/// Properties of the processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Directory to change to before the application is loaded.
    pub chdir: Option<Sourced<PathBuf>>,
    /// Variables for the application's environment, in order: of several of one name the last counts.
    pub env: Sourced<Vec<(String, String)>>,
    /// User of the workers: a name or number.
    pub user: Option<Sourced<String>>,
    /// Group of the workers: a name or number.
    pub group: Option<Sourced<String>>,
    /// Permission bits that a Unix socket lacks, 0 to 0o777; without it the mode is 0660.
    pub umask: Option<Sourced<u32>>,
    /// The mode of a Unix socket, over `umask`.
    pub socket_mode: Option<Sourced<u32>>,
    /// User and group of a Unix socket, over those of the workers.
    pub socket_owner: Option<Sourced<SocketOwner>>,
    /// Whether a daemon keeps standard output and error.
    pub keeps_streams: Sourced<bool>,
    /// The pid file.
    pub pid: Option<Sourced<PathBuf>>,
    /// Whether the server runs in the background.
    pub daemon: Sourced<bool>,
    /// Whether processes that the application has started end with their worker.
    pub end_children: Sourced<bool>,
    /// Name in process listings.
    pub name: Option<Sourced<String>>,
}

impl Settings {
    /// Merges command line, environment, settings file and defaults.
    ///
    /// A reload calls it again with the same command line and environment; each call reads the file. `read_file` gets
    /// the path as it was given: [`reader`] resolves it against the directory of the start. A configuration in Python is
    /// passed over.
    pub(crate) fn resolve(
        command_line: Given,
        environment: &Environment<'_>,
        read_file: &ReadFile<'_>,
    ) -> Result<Self, UsageError> {
        Self::resolve_with(command_line, environment, (read_file, None))
    }

    /// Merges the same sources and a configuration in Python, that of [`named_conf`].
    pub(crate) fn resolve_with(
        command_line: Given,
        environment: &Environment<'_>,
        (read_file, conf): (&ReadFile<'_>, Option<&Conf>),
    ) -> Result<Self, UsageError> {
        let served = command_line.served;
        let (sources, mut warnings) = Sources::collect(command_line, environment, read_file, conf)?;
        warnings.extend(sources.warnings()?);
        let tls = tls::resolve(&sources, &mut warnings)?;
        let listing = sources.flag("print_config")?.then(|| listing::text(&sources, served));
        let conf = conf.map(|conf| ConfInUse::of(conf, &sources));
        let process = Process::resolve(&sources, read_file)?;
        // Those that exist differ in the number of their threads alone.
        let text = |name| sources.written(name).and_then(|(_, texts)| texts.first()).map(String::as_str);
        let beside = values::Beside { workers: text("workers"), bind: text("bind"), app: text("app") };
        sources.one("worker_class", |text| values::worker_class(text, beside))?;
        Ok(Self {
            app: sources.optional("app", values::text)?,
            paste: sources.optional("paste", values::text)?,
            paste_globals: sources.many("raw_paste_global_conf", values::variable)?,
            no_sendfile: sources.flag("no_sendfile")?,
            python_path: sources.optional("pythonpath", values::directories)?,
            binds: sources.many("bind", values::address)?,
            backlog: sources.one("backlog", |text| values::whole(text, 0..=i32::MAX))?,
            workers: sources.one("workers", values::workers_or_auto)?,
            threads: sources.one("threads", |text| values::threads(text, MOST_THREADS))?,
            check_config: sources.check_only()?,
            static_routes: sources.many("static", values::static_route)?,
            no_share_stdlib: sources.flag("no_share_stdlib")?,
            reuse_port: sources.flag("reuse_port")?,
            pool: PoolTimeouts::resolve(&sources)?,
            http: HttpTimeouts::resolve(&sources)?,
            limits: Limits::resolve(&sources)?,
            server_field: sources.one("server_header", values::server_field)?.value,
            proxies: Proxies::resolve(&sources, &mut warnings)?,
            tls,
            logging: Logging::resolve(&sources, &process, &mut warnings)?,
            process,
            rollout: Rollout::resolve(&sources)?,
            recycling: Recycling::resolve(&sources)?,
            draining: Draining::resolve(&sources)?,
            mold: Mold::resolve(&sources)?,
            development: Development::resolve(&sources)?,
            control: Control::resolve(&sources)?,
            conf,
            warnings,
            listing,
        })
    }

    /// The configuration in Python as text for [`Conf::of_note`], or that there is none.
    pub(crate) fn note_of_conf(&self) -> &str {
        self.conf.as_ref().map_or("null", |conf| &conf.note)
    }

    /// These settings with the paths that refer to the directory of the start, which `chdir` changes.
    pub(crate) fn anchored(mut self, start: &Path) -> Self {
        if let Some(paste) = &mut self.paste {
            paste.value = start.join(&paste.value).to_string_lossy().into_owned();
        }
        self
    }

    /// The application to serve, or the file that names it; an error if there is none.
    pub(crate) fn target(&self) -> Result<&str, UsageError> {
        if let Some(paste) = &self.paste {
            return match &self.app {
                None => Ok(&paste.value),
                Some(app) => Err(UsageError::new(format!(
                    "an application {} (from {}) and paste (from {}): name one of them",
                    app.value, app.origin, paste.origin
                ))),
            };
        }
        let missing = || UsageError::new("no application: name one as MODULE:ATTRIBUTE (try 'mcsup --help')");
        self.app.as_ref().map(|app| app.value.as_str()).ok_or_else(missing)
    }
}

impl PoolTimeouts {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            timeout: sources.one("timeout", values::liveness_or_off)?,
            graceful: sources.one("graceful_timeout", values::seconds)?,
            boot: sources.one("boot_timeout", values::positive_seconds)?,
        })
    }
}

impl HttpTimeouts {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            header: sources.one("header_timeout", values::positive_seconds)?,
            body: sources.one("body_timeout", values::positive_seconds)?,
            keep_alive: sources.one("keep_alive", values::seconds)?,
            request: sources.optional("request_timeout", values::seconds_or_off)?,
            write: sources.one("write_timeout", values::positive_seconds)?,
        })
    }
}

impl Limits {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        let bytes = |text: &str| values::limit(text, LARGEST_LINE);
        let fields = |text: &str| values::limit(text, MOST_FIELDS);
        let body = |text: &str| values::limit(text, u64::MAX);
        Ok(Self {
            connections: sources
                .one("worker_connections", |text| values::whole(text, 0..=MOST_CONNECTIONS))?,
            line: sources.one("limit_request_line", bytes)?,
            fields: sources.one("limit_request_fields", fields)?,
            field_size: sources.one("limit_request_field_size", bytes)?,
            body: sources.one("limit_request_body", body)?,
        })
    }
}

impl Process {
    fn resolve(sources: &Sources, read_file: &ReadFile<'_>) -> Result<Self, UsageError> {
        let files = sources.many("env_file", values::path)?;
        Ok(Self {
            chdir: sources.optional("chdir", values::path)?,
            env: env_file::below(&files, sources.many("env", values::variable)?, read_file)?,
            user: sources.optional("user", values::text)?,
            group: sources.optional("group", values::text)?,
            umask: sources.optional("umask", values::umask)?,
            socket_mode: sources.optional("socket_mode", values::umask)?,
            socket_owner: sources.optional("socket_owner", values::socket_owner)?,
            keeps_streams: sources.flag("enable_stdio_inheritance")?,
            pid: sources.optional("pid", values::path)?,
            daemon: sources.flag("daemon")?,
            end_children: sources.flag("end_children")?,
            name: sources.optional("name", values::text)?,
        })
    }
}
