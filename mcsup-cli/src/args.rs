//! The command line: every option, its spelling and its help in one table.
//!
//! Values stay text here: [`crate::settings`] parses them, since the rules are the same for an environment variable.
//! Nothing is printed and nothing ends the process: help is a value ([`Invocation::Show`]), and so is a usage error
//! ([`UsageError`]).

pub(crate) mod defaults;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod operator;
pub(crate) mod options;
pub(crate) mod service;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use mcsup_core::control;

use crate::typos;

use doctor::DoctorArgs;
use exec::ExecArgs;
use operator::{ControlArgs, RecycleArgs, ScaleArgs, StatusArgs, StopArgs};
use options::{
    ApplicationArgs, DevelopmentArgs, LoggingArgs, ProcessArgs, RecyclingArgs, ReloadingArgs, ServingArgs,
    SizeLimitsArgs, TimeLimitsArgs,
};
use service::ServiceArgs;

/// Names of the subcommands.
const SUBCOMMANDS: [&str; 12] = [
    "run",
    "exec",
    "check",
    "status",
    "reload",
    "upgrade",
    "scale",
    "recycle",
    "stop",
    "reopen-logs",
    "service",
    "doctor",
];

const USAGE: &str = "mcsup [run] [OPTIONS] APP
       mcsup exec [OPTIONS] [--] PROGRAM [ARGS]...
       mcsup check [OPTIONS] APP
       mcsup status -p PIDFILE [--json]
       mcsup reload|upgrade|reopen-logs -p PIDFILE [--no-wait] [--timeout SECS]
       mcsup scale N -p PIDFILE
       mcsup recycle SLOT -p PIDFILE
       mcsup stop -p PIDFILE [--quick] [--timeout SECS]
       mcsup service systemd|launchd|docker|kubernetes|install [OPTIONS] APP
       mcsup service uninstall NAME
       mcsup doctor [--unit FILE] [OPTIONS]";

/// One line for each paragraph: clap wraps it to the terminal.
const AFTER_HELP: &str = "\
APP is MODULE:ATTRIBUTE, MODULE (its attribute `application`) or MODULE:FACTORY(). `mcsup run NAME` serves a module \
that has the name of a subcommand.

MCSUP_CMD_ARGS and GUNICORN_CMD_ARGS may hold any of these options, quoted as for a shell. The first of these sources \
that names an option sets it: the command line, MCSUP_CMD_ARGS, GUNICORN_CMD_ARGS, the file of --config, PORT and \
WEB_CONCURRENCY, the defaults. A repeatable option is taken from one source alone.

Signals: TERM stops gracefully, INT and QUIT stop at once, HUP reloads, USR2 upgrades, TTIN and TTOU add and remove \
a worker, USR1 reopens the log files.";

/// The action that a command line names, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Serve an application.
    Run(Box<RunArgs>),
    /// Run any program.
    Exec(Box<ExecArgs>),
    /// Stop a server.
    Stop(StopArgs),
    /// Report the state of a server.
    Status(StatusArgs),
    /// Send a command to the control socket of a server.
    Control(control::Command, ControlArgs),
    /// Print or install what runs a server as a service.
    Service(ServiceArgs),
    /// Examine this host.
    Doctor(DoctorArgs),
    /// Print this text, help or version, on standard output.
    Show(String),
}

impl Invocation {
    /// Whether this process becomes a supervisor.
    pub(crate) fn is_for_a_supervisor(&self) -> bool {
        matches!(self, Invocation::Run(_) | Invocation::Exec(_))
    }
}

/// An error in the command line or in a setting: one line, without the `mcsup: ` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageError(String);

impl UsageError {
    /// Escapes control characters, so that quoted input leaves the message on one line.
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        let line = message.as_ref().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
        Self(line.chars().map(escape).collect())
    }

    fn with_hint(message: impl fmt::Display) -> Self {
        Self::with_hint_of("", message)
    }

    /// Names the help of a subcommand, if it has options that `mcsup --help` does not list.
    fn with_hint_of(subcommand: &str, message: impl fmt::Display) -> Self {
        let help = match subcommand {
            "exec" | "service" | "doctor" => format!("mcsup {subcommand} --help"),
            _ => "mcsup --help".to_owned(),
        };
        Self::new(format!("{message} (try '{help}')"))
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
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Exec(Box<ExecArgs>),
    /// Load an application once, and report whether it can be served.
    Check(Box<RunArgs>),
    Status(StatusArgs),
    /// Replace the workers by new ones with the current code and settings; the old ones serve until these are ready.
    Reload(ControlArgs),
    /// Replace the supervisor's own program in place; listeners and workers stay.
    Upgrade(ControlArgs),
    Scale(ScaleArgs),
    Recycle(RecycleArgs),
    Stop(StopArgs),
    /// Reopen the log files in all processes.
    ReopenLogs(ControlArgs),
    Service(ServiceArgs),
    Doctor(DoctorArgs),
}

impl Command {
    fn invocation(self) -> Invocation {
        let control = Invocation::Control;
        match self {
            Command::Run(args) => Invocation::Run(args),
            Command::Exec(args) => Invocation::Exec(args),
            Command::Check(mut args) => {
                args.application.check_config = true;
                Invocation::Run(args)
            }
            Command::Status(args) => Invocation::Status(args),
            Command::Stop(args) => Invocation::Stop(args),
            Command::Reload(args) => control(control::Command::Reload, args),
            Command::Upgrade(args) => control(control::Command::Upgrade, args),
            Command::Scale(args) => control(control::Command::Scale { workers: args.workers }, args.control),
            Command::Recycle(args) => control(control::Command::Recycle { slot: args.slot }, args.control),
            Command::ReopenLogs(args) => control(control::Command::ReopenLogs, args),
            Command::Service(args) => Invocation::Service(args),
            Command::Doctor(args) => Invocation::Doctor(args),
        }
    }
}

/// Serve a WSGI application with a pool of worker processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(
    name = "mcsup", display_name = "mcsup", version, disable_version_flag = true, override_usage = USAGE,
    after_help = AFTER_HELP, args_override_self = true, allow_negative_numbers = true, max_term_width = 110
)]
pub(crate) struct RunArgs {
    /// The application: MODULE:ATTRIBUTE
    #[arg(value_name = "APP")]
    pub app: Option<String>,

    /// Settings file: TOML, its keys the long names of the options with _ for -; each reload reads it again
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,
    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    pub(crate) version: Option<bool>,

    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub application: ApplicationArgs,
    #[command(flatten)]
    pub reloading: ReloadingArgs,
    #[command(flatten)]
    pub recycling: RecyclingArgs,
    #[command(flatten)]
    pub development: DevelopmentArgs,
    #[command(flatten)]
    pub time_limits: TimeLimitsArgs,
    #[command(flatten)]
    pub size_limits: SizeLimitsArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// The command line as clap reads it, its help with the defaults.
fn command() -> clap::Command {
    let subcommands = ["run", "check", "exec"];
    subcommands
        .into_iter()
        .fold(CommandLine::command(), |command, name| command.mut_subcommand(name, defaults::stated))
        .mut_subcommand("exec", exec::hide_foreign)
}

/// Parses a command line, the program's own name first.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut argv: Vec<OsString> = argv.into_iter().collect();
    if argv.is_empty() {
        argv.push("mcsup".into());
    }
    let first = argv.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let named = SUBCOMMANDS.contains(&first.as_str());
    if first == "help" {
        rewrite_help(&mut argv);
    } else if !named {
        argv.insert(1, "run".into());
    }
    let mut command = command();
    let matches = command.try_get_matches_from_mut(argv);
    if let Some(("exec", of_exec)) = matches.as_ref().ok().and_then(clap::ArgMatches::subcommand) {
        exec::refuse_foreign(of_exec)?;
    }
    let parsed = matches.and_then(|mut matches| {
        CommandLine::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    match parsed {
        Ok(CommandLine { command: Command::Run(args) }) if !named => refuse_late_subcommand(args),
        Ok(CommandLine { command }) => Ok(command.invocation()),
        Err(error) if is_shown(&error) => Ok(Invocation::Show(error.render().to_string())),
        Err(error) => Err(UsageError::with_hint_of(&first, one_line(&error))),
    }
}

/// Parses the options in the environment variable of the name `variable`.
pub(crate) fn parse_variable(variable: &str, value: &str) -> Result<RunArgs, UsageError> {
    let words = split(value);
    let words =
        words.ok_or_else(|| UsageError::new(format!("{variable}: a quote or a backslash has no end")))?;
    parse_words(variable, words.iter().map(String::as_str))
}

/// Splits words as a shell does, without its comments: `#` begins a word like any other, as for gunicorn.
fn split(value: &str) -> Option<Vec<String>> {
    // The crate drops comments, and all options behind them. NUL replaces `#`: no variable can hold it.
    let words = shlex::split(&value.replace('#', "\0"))?;
    Some(words.into_iter().map(|word| word.replace('\0', "#")).collect())
}

/// Parses options that stand in `place`, without a program's name in front.
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

/// Turns `mcsup help stop` into `mcsup stop --help`, and `mcsup help` into `mcsup run --help`.
fn rewrite_help(argv: &mut Vec<OsString>) {
    argv.remove(1);
    if argv.len() < 2 {
        argv.push("run".into());
    }
    argv.truncate(2);
    argv.push("--help".into());
}

/// Refuses `mcsup -p FILE stop`, which would serve a module named `stop`.
fn refuse_late_subcommand(args: Box<RunArgs>) -> Result<Invocation, UsageError> {
    match args.app.as_deref() {
        Some(app) if SUBCOMMANDS.contains(&app) => Err(UsageError::with_hint(format!(
            "'{app}' must be the first word; a module of that name is served by 'mcsup run {app}'"
        ))),
        _ => Ok(Invocation::Run(args)),
    }
}

fn is_shown(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// The first paragraph of clap's message, or a clearer one where that is too general.
fn one_line(error: &clap::Error) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match (error.kind(), word(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(option)) if option.starts_with('-') => {
            match word(ContextKind::SuggestedArg) {
                Some(near) if typos::is_near(near, option) => {
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
