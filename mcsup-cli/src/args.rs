//! The words of the command line: every flag, its help and its spelling, in one table.
//!
//! Values stay text here. What they mean, which are allowed and which source wins is [`crate::settings`]' part, since
//! an environment variable's value is judged by the same rules as a flag's. Nothing is printed and nothing ends the
//! process: help is a value ([`Invocation::Show`]), and so is a mistake ([`UsageError`]).

pub mod operator;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Parser, Subcommand};
use mcsup_core::control;

use operator::{OrderArgs, RecycleArgs, ScaleArgs, StatusArgs, StopArgs};

/// First words that have a meaning.
const SUBCOMMANDS: [&str; 9] =
    ["run", "check", "status", "reload", "upgrade", "scale", "recycle", "stop", "reopen-logs"];

/// First words that will have a meaning. Refused today, so that no script comes to rely on another one.
const RESERVED: [&str; 1] = ["exec"];

const USAGE: &str = "mcsup [run] [OPTIONS] APP
       mcsup check [OPTIONS] APP
       mcsup status -p PIDFILE [--json]
       mcsup reload|upgrade|reopen-logs -p PIDFILE [--no-wait] [--timeout SECS] [--json]
       mcsup scale N -p PIDFILE
       mcsup recycle SLOT -p PIDFILE
       mcsup stop -p PIDFILE [--quick] [--timeout SECS]";

const AFTER_HELP: &str = "\
APP is MODULE:ATTRIBUTE, MODULE (its attribute `application`) or MODULE:FACTORY().
A module that is named like a subcommand is reached by `mcsup run NAME`.

Each option may also stand in MCSUP_CMD_ARGS or GUNICORN_CMD_ARGS, quoted as for a shell. The command line wins over
MCSUP_CMD_ARGS, that over GUNICORN_CMD_ARGS, that over the file of --config, that over PORT and WEB_CONCURRENCY; a list
replaces a list.

Signals: TERM stops gracefully, INT and QUIT at once, HUP reloads, USR2 upgrades, TTIN and TTOU scale, USR1 reopens the
logs.";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Serve an application.
    Run(Box<RunArgs>),
    /// Stop a server.
    Stop(StopArgs),
    /// Report on a server.
    Status(StatusArgs),
    /// Have a server do something.
    Order(control::Command, OrderArgs),
    /// Put this text on standard output and end well: help or version.
    Show(String),
}

/// A mistake in the command line or in a setting; one line without the `mcsup: ` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// Keeps it one printable line, whatever was quoted in it.
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        let line = message.as_ref().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
        Self(line.chars().map(escape).collect())
    }

    fn with_hint(message: impl fmt::Display) -> Self {
        Self::new(format!("{message} (try 'mcsup --help')"))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

#[derive(Debug, Parser)]
#[command(name = "mcsup", disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    /// Load an application once, and say whether it can be served.
    Check(Box<RunArgs>),
    Status(StatusArgs),
    /// Replace the workers by new ones with the code and settings of now; the old ones serve until these are ready.
    Reload(OrderArgs),
    /// Replace the supervisor's own program in place; listeners and workers stay.
    Upgrade(OrderArgs),
    Scale(ScaleArgs),
    Recycle(RecycleArgs),
    Stop(StopArgs),
    /// Open the log files anew, in all processes.
    ReopenLogs(OrderArgs),
}

impl Command {
    fn meant(self) -> Invocation {
        let order = Invocation::Order;
        match self {
            Command::Run(args) => Invocation::Run(args),
            Command::Check(args) => Invocation::Run(Box::new(RunArgs { check_config: true, ..*args })),
            Command::Status(args) => Invocation::Status(args),
            Command::Stop(args) => Invocation::Stop(args),
            Command::Reload(args) => order(control::Command::Reload, args),
            Command::Upgrade(args) => order(control::Command::Upgrade, args),
            Command::Scale(args) => order(control::Command::Scale { workers: args.workers }, args.order),
            Command::Recycle(args) => order(control::Command::Recycle { slot: args.slot }, args.order),
            Command::ReopenLogs(args) => order(control::Command::ReopenLogs, args),
        }
    }
}

/// Serve a WSGI application with a pool of worker processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(
    name = "mcsup", display_name = "mcsup", version, disable_version_flag = true, override_usage = USAGE,
    after_help = AFTER_HELP, args_override_self = true, allow_negative_numbers = true, max_term_width = 110
)]
pub struct RunArgs {
    /// The application: MODULE:ATTRIBUTE
    #[arg(value_name = "APP")]
    pub app: Option<String>,

    /// File of settings: TOML, its keys the long names of the options with _ for -; read anew at each reload
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,

    /// Where to listen: HOST, HOST:PORT or :PORT (IPv6 in brackets), tcp://HOST:PORT, unix:PATH or fd://N; repeatable
    /// [default: 127.0.0.1:8000] [env: PORT, meaning 0.0.0.0:PORT]
    #[arg(short, long, value_name = "ADDR", help_heading = "Serving")]
    pub bind: Vec<String>,
    /// Connections that may wait in the kernel's queue [default: 2048]
    #[arg(long, value_name = "INT", help_heading = "Serving")]
    pub backlog: Option<String>,
    /// Worker processes, 1 to 512 [default: 1] [env: WEB_CONCURRENCY]
    #[arg(short, long, value_name = "INT", help_heading = "Serving")]
    pub workers: Option<String>,
    /// Threads in each worker that call the application, 1 to 1024 [default: 1]
    #[arg(long, value_name = "INT", help_heading = "Serving")]
    pub threads: Option<String>,
    /// Give each worker listening sockets of its own, among which the kernel spreads connections (SO_REUSEPORT)
    #[arg(long, help_heading = "Serving")]
    pub reuse_port: bool,
    /// Path at which mcsup itself says whether it can take requests: 200, or 503 once it drains
    #[arg(long, value_name = "PATH", help_heading = "Serving")]
    pub health_path: Option<String>,
    /// Seconds that a stopping server still accepts connections while --health-path already says no [default: 0]
    #[arg(long, value_name = "SECS", help_heading = "Serving")]
    pub drain_delay: Option<String>,

    /// Directory to change to before the application is loaded [default: where mcsup is started]
    #[arg(long, value_name = "DIR", help_heading = "Application")]
    pub chdir: Option<String>,
    /// Directories to search for modules first, separated by commas
    #[arg(long, value_name = "DIRS", help_heading = "Application")]
    pub pythonpath: Option<String>,
    /// Environment variable for the application; repeatable
    #[arg(short, long, value_name = "NAME=VALUE", help_heading = "Application")]
    pub env: Vec<String>,
    /// Load the application once, say whether it can be served, and end
    #[arg(long, help_heading = "Application")]
    pub check_config: bool,
    /// Do not load what the application imports of Python's standard library before the workers are forked
    #[arg(long, help_heading = "Application")]
    pub no_share_stdlib: bool,
    /// Load the application once, in a process from which the workers are forked: they share its memory
    #[arg(long, help_heading = "Application")]
    pub preload: bool,
    /// What to do about threads that run in that process when it forks: refuse or warn [default: warn]
    #[arg(long, value_name = "WORD", help_heading = "Application")]
    pub preload_threads: Option<String>,

    /// Workers more than asked for that a reload may start at once, 1 to 512; all: a whole second pool [default: 1]
    #[arg(long, value_name = "INT|all", help_heading = "Reloading")]
    pub surge: Option<String>,
    /// Seconds that the first new worker must stay alive after it is ready before a reload goes on; with --reload none
    /// unless given [default: 2]
    #[arg(long, value_name = "SECS", help_heading = "Reloading")]
    pub soak: Option<String>,
    /// New workers that may fail before a reload is given up, 0 to 100 [default: 0]
    #[arg(long, value_name = "INT", help_heading = "Reloading")]
    pub reload_retries: Option<String>,

    /// Requests after which a worker is replaced; 0: any number [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Recycling")]
    pub max_requests: Option<String>,
    /// Up to so many requests more, drawn for each worker [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Recycling")]
    pub max_requests_jitter: Option<String>,
    /// Seconds after which a worker is replaced; 0: any time [default: 0]
    #[arg(long, value_name = "SECS", help_heading = "Recycling")]
    pub max_lifetime: Option<String>,
    /// Up to so many seconds more, drawn for each worker [default: 0]
    #[arg(long, value_name = "SECS", help_heading = "Recycling")]
    pub max_lifetime_jitter: Option<String>,
    /// Resident memory beyond which a worker is replaced, in bytes or like 512K, 256M or 1G; 0: any amount [default: 0]
    #[arg(long, value_name = "BYTES", help_heading = "Recycling")]
    pub max_rss: Option<String>,
    /// Up to so much memory more, drawn for each worker [default: 0]
    #[arg(long, value_name = "BYTES", help_heading = "Recycling")]
    pub max_rss_jitter: Option<String>,

    /// Reload when a file that the application loaded has changed
    #[arg(long, help_heading = "Development")]
    pub reload: bool,
    /// How changes are noticed: auto, poll or inotify [default: auto]
    #[arg(long, value_name = "WORD", help_heading = "Development")]
    pub reload_engine: Option<String>,
    /// Further file to watch; repeatable
    #[arg(long, value_name = "PATH", help_heading = "Development")]
    pub reload_extra_file: Vec<String>,

    /// Seconds without a sign of life after which a worker is killed and replaced; 0: never [default: 30]
    #[arg(short, long, value_name = "SECS", help_heading = "Time limits")]
    pub timeout: Option<String>,
    /// Seconds that the application may take for a request before its client is told and its worker replaced; 0: any number
    /// [default: --timeout with one thread, otherwise 0]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub request_timeout: Option<String>,
    /// Seconds that a worker may go on with its requests after it was asked to stop [default: 30]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub graceful_timeout: Option<String>,
    /// Seconds within which a new worker must be ready [default: 60]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub boot_timeout: Option<String>,
    /// Seconds that an idle connection is kept open for its next request [default: 2]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub keep_alive: Option<String>,
    /// Seconds within which the whole head of a request must arrive [default: 15]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub header_timeout: Option<String>,
    /// Seconds without progress after which the upload of a request body is given up [default: 30]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub body_timeout: Option<String>,
    /// Seconds without progress after which the sending of a response is given up [default: 60]
    #[arg(long, value_name = "SECS", help_heading = "Time limits")]
    pub write_timeout: Option<String>,

    /// Connections that a worker keeps open at once: a further one replaces the longest idle one, or waits; 0: as many as it
    /// has descriptors, less about 64 for the application [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Size limits")]
    pub worker_connections: Option<String>,
    /// Bytes of a request line, up to 1048576; 0: as many [default: 8190]
    #[arg(long, value_name = "BYTES", help_heading = "Size limits")]
    pub limit_request_line: Option<String>,
    /// Header fields of a request, up to 32768; 0: as many [default: 100]
    #[arg(long, value_name = "INT", help_heading = "Size limits")]
    pub limit_request_fields: Option<String>,
    /// Bytes of one header field, up to 1048576; 0: as many [default: 8190]
    #[arg(long, value_name = "BYTES", alias = "limit-request-field_size", help_heading = "Size limits")]
    pub limit_request_field_size: Option<String>,
    /// Bytes of a request body; 0: unlimited [default: 1073741824]
    #[arg(long, value_name = "BYTES", help_heading = "Size limits")]
    pub limit_request_body: Option<String>,

    /// File that names the supervisor's process id, and whose lock keeps a second server out
    #[arg(short, long, value_name = "FILE", help_heading = "Process")]
    pub pid: Option<String>,
    /// Go to the background once the pool is ready
    #[arg(short = 'D', long, help_heading = "Process")]
    pub daemon: bool,
    /// Run the workers as this user, a name or number
    #[arg(short, long, value_name = "USER", help_heading = "Process")]
    pub user: Option<String>,
    /// Run the workers as this group, a name or number
    #[arg(short, long, value_name = "GROUP", help_heading = "Process")]
    pub group: Option<String>,
    /// Permission bits that a Unix socket shall not have, octal like 007 [default: sockets get mode 0660]
    #[arg(short = 'm', long, value_name = "OCTAL", help_heading = "Process")]
    pub umask: Option<String>,
    /// End processes that the application has started together with their worker: by SIGTERM, 2 seconds later by SIGKILL;
    /// without it they are named in the log
    #[arg(long, help_heading = "Process")]
    pub end_children: bool,
    /// Name to show in process listings
    #[arg(short, long, value_name = "NAME", help_heading = "Process")]
    pub name: Option<String>,
    /// Socket for `mcsup status`, `mcsup reload` and the like [default: beside the pid file]
    #[arg(long, value_name = "PATH", help_heading = "Process")]
    pub control_socket: Option<String>,
    /// Have no such socket
    #[arg(long, help_heading = "Process")]
    pub no_control_socket: bool,

    /// Write a line for each request to this file; `-`: standard output
    #[arg(long, value_name = "FILE", help_heading = "Logging")]
    pub access_logfile: Option<String>,
    /// Form of those lines: gunicorn's atoms, or the word `json`
    /// [default: %(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"]
    #[arg(long, value_name = "FORMAT", help_heading = "Logging")]
    pub access_logformat: Option<String>,
    /// Write everything else to this file; `-`: standard error [default: -]
    #[arg(long, visible_alias = "log-file", value_name = "FILE", help_heading = "Logging")]
    pub error_logfile: Option<String>,
    /// Least level to log: debug, info, warning, error or critical [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub log_level: Option<String>,

    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    pub(crate) version: Option<bool>,
}

/// Reads a command line, the program's own name first.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut argv: Vec<OsString> = argv.into_iter().collect();
    if argv.is_empty() {
        argv.push("mcsup".into());
    }
    let first = argv.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    if RESERVED.contains(&first.as_str()) {
        let reason = format!(
            "'{first}' is not in this version; a module of that name is served by 'mcsup run {first}'"
        );
        return Err(UsageError::with_hint(reason));
    }
    let named = SUBCOMMANDS.contains(&first.as_str());
    if first == "help" {
        ask_for_help(&mut argv);
    } else if !named {
        argv.insert(1, "run".into());
    }
    match Line::try_parse_from(argv) {
        Ok(Line { command: Command::Run(args) }) if !named => refuse_late_subcommand(args),
        Ok(Line { command }) => Ok(command.meant()),
        Err(error) if is_shown(&error) => Ok(Invocation::Show(error.render().to_string())),
        Err(error) => Err(UsageError::with_hint(one_line(&error))),
    }
}

/// Reads the options in an environment variable; `variable` is its name.
pub(crate) fn parse_variable(variable: &str, value: &str) -> Result<RunArgs, UsageError> {
    let words = split(value);
    let words =
        words.ok_or_else(|| UsageError::new(format!("{variable}: a quote or a backslash has no end")))?;
    parse_words(variable, words.iter().map(String::as_str))
}

/// Splits words as a shell does, but for comments: a word that begins with `#` is a word, as it is for gunicorn.
fn split(value: &str) -> Option<Vec<String>> {
    // The crate drops comments, and with them all options behind. NUL stands in for `#`: no variable can hold it.
    let words = shlex::split(&value.replace('#', "\0"))?;
    Some(words.into_iter().map(|word| word.replace('\0', "#")).collect())
}

/// Reads options that stand in `place`, without a program's name in front.
pub(crate) fn parse_words<'a>(
    place: &str,
    words: impl Iterator<Item = &'a str>,
) -> Result<RunArgs, UsageError> {
    RunArgs::try_parse_from(std::iter::once("mcsup").chain(words)).map_err(|error| {
        let reason = match is_shown(&error) {
            true => "help and version are for the command line".to_owned(),
            false => one_line(&error),
        };
        UsageError::new(format!("{place}: {reason}"))
    })
}

/// `mcsup help` and `mcsup help stop` are what they look like.
fn ask_for_help(argv: &mut Vec<OsString>) {
    argv.remove(1);
    if argv.len() < 2 {
        argv.push("run".into());
    }
    argv.truncate(2);
    argv.push("--help".into());
}

/// `mcsup -p FILE stop` would otherwise go and serve a module named `stop`.
fn refuse_late_subcommand(args: Box<RunArgs>) -> Result<Invocation, UsageError> {
    match args.app.as_deref() {
        Some(app) if SUBCOMMANDS.contains(&app) || RESERVED.contains(&app) => Err(UsageError::with_hint(
            format!("'{app}' must be the first word; a module of that name is served by 'mcsup run {app}'"),
        )),
        _ => Ok(Invocation::Run(args)),
    }
}

fn is_shown(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// Whether a slip of the finger explains the difference: clap also suggests what merely has some letters in common.
fn is_near(option: &str, suggested: &str) -> bool {
    option.len().abs_diff(suggested.len()) <= 2 && option.as_bytes().get(2) == suggested.as_bytes().get(2)
}

/// The first paragraph of what clap says, or better words where it is too general.
fn one_line(error: &clap::Error) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match (error.kind(), word(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(option)) if option.starts_with('-') => {
            match word(ContextKind::SuggestedArg) {
                Some(near) if is_near(option, near) => {
                    format!("unknown option '{option}'; is '{near}' meant?")
                }
                _ => format!("unknown option '{option}'"),
            }
        }
        (ErrorKind::UnknownArgument, Some(extra)) => format!("'{extra}' is one word too many"),
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.split("\n\n").next().unwrap_or(text).to_owned()
        }
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
