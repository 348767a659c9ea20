//! The command line: the options of [`crate::table`], and the other subcommands.
//!
//! Values stay text here: [`crate::settings`] parses them, since the rules are the same for an environment variable.
//! Nothing is printed and nothing ends the process: help is a value ([`Invocation::Show`]), and so is a usage error
//! ([`UsageError`]).

pub(crate) mod command;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod generated;
pub(crate) mod migrate;
pub(crate) mod operator;
pub(crate) mod service;
pub(crate) mod words;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, FromArgMatches, Subcommand};
use mcsup_core::control;

use crate::table::{Given, Served, row};
use crate::typos;

use command::Extent;
use doctor::DoctorArgs;
use exec::ExecArgs;
use generated::{CompletionsArgs, ManArgs};
use migrate::MigrateArgs;
use operator::{ControlArgs, RecycleArgs, ScaleArgs, StatusArgs, StopArgs};
use service::ServiceArgs;
use words::SUBCOMMANDS;

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
       mcsup doctor [--unit FILE] [OPTIONS]
       mcsup migrate -- gunicorn [OPTIONS] APP
       mcsup completions bash|zsh|fish
       mcsup man [COMMAND]";

/// One line for each paragraph: clap wraps it to the terminal.
const AFTER_HELP: &str = "\
APP is MODULE:ATTRIBUTE, MODULE (its attribute `application`) or MODULE:FACTORY(). `mcsup run NAME` serves a module \
that has the name of a subcommand.

MCSUP_CMD_ARGS and GUNICORN_CMD_ARGS may hold any of these options, quoted as for a shell. The first of these sources \
that names an option sets it: the command line, MCSUP_CMD_ARGS, GUNICORN_CMD_ARGS, the file of --config, PORT, \
WEB_CONCURRENCY and FORWARDED_ALLOW_IPS, the defaults. A repeatable option is taken from one source alone.

Signals: TERM stops gracefully, INT and QUIT stop at once, HUP reloads, USR2 upgrades, TTIN and TTOU add and remove \
a worker, USR1 reopens the log files.";

/// The action that a command line names, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Serve an application.
    Run(Given),
    /// Run any program.
    Exec(ExecArgs),
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
    /// Translate a command line of gunicorn.
    Migrate(MigrateArgs),
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
            "exec" | "service" | "doctor" | "migrate" => format!("mcsup {subcommand} --help"),
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

/// The subcommands that are not about a new pool.
#[derive(Debug, Subcommand)]
enum Command {
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
    Migrate(MigrateArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    fn invocation(self) -> Result<Invocation, UsageError> {
        let control = Invocation::Control;
        Ok(match self {
            Command::Status(args) => Invocation::Status(args),
            Command::Stop(args) => Invocation::Stop(args),
            Command::Reload(args) => control(control::Command::Reload, args),
            Command::Upgrade(args) => control(control::Command::Upgrade, args),
            Command::Scale(args) => control(control::Command::Scale { workers: args.workers }, args.control),
            Command::Recycle(args) => control(control::Command::Recycle { slot: args.slot }, args.control),
            Command::ReopenLogs(args) => control(control::Command::ReopenLogs, args),
            Command::Service(args) => Invocation::Service(args),
            Command::Doctor(args) => Invocation::Doctor(args),
            Command::Migrate(args) => Invocation::Migrate(args),
            Command::Completions(args) => {
                Invocation::Show(generated::completions(command(Extent::Shown), &args))
            }
            Command::Man(args) => Invocation::Show(generated::man(command(Extent::Shown), &args)?),
        })
    }
}

/// The command line as clap reads it.
fn command(extent: Extent) -> clap::Command {
    let check = "Load an application once, and report whether it can be served";
    let command = clap::Command::new("mcsup")
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(run("run", extent))
        .subcommand(run("check", extent).about(check))
        .subcommand(exec::exec(extent));
    Command::augment_subcommands(command)
}

/// The command that serves an application.
fn run(name: &'static str, extent: Extent) -> clap::Command {
    let version = clap::Arg::new("version").short('v').short_alias('V').long("version").help("Print version");
    let command = clap::Command::new(name)
        .display_name("mcsup")
        .about("Serve a WSGI application with a pool of worker processes")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .override_usage(USAGE)
        .after_help(AFTER_HELP);
    let command = command::with_settings(command, Served::Application, extent);
    command.arg(version.action(clap::ArgAction::Version))
}

/// The action that clap has found.
fn invocation(matches: &ArgMatches) -> Result<Result<Invocation, UsageError>, clap::Error> {
    let application = |matches| command::given(matches, Served::Application);
    match matches.subcommand() {
        Some(("run", run)) => Ok(Ok(Invocation::Run(application(run)))),
        Some(("check", check)) => {
            let mut given = application(check);
            if let Some(row) = row("check_config") {
                given.turn_on(row);
            }
            Ok(Ok(Invocation::Run(given)))
        }
        Some(("exec", exec)) => Ok(exec::parsed(exec).map(Invocation::Exec)),
        _ => Command::from_arg_matches(matches).map(Command::invocation),
    }
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
    let mut command = command(Extent::Parsed);
    let matches = command.try_get_matches_from_mut(argv);
    let parsed = matches.and_then(|matches| invocation(&matches).map_err(|error| error.format(&mut command)));
    match parsed {
        Ok(Ok(Invocation::Run(given))) if !named => refuse_late_subcommand(given),
        Ok(invocation) => invocation,
        Err(error) if is_shown(&error) => Ok(Invocation::Show(error.render().to_string())),
        Err(error) => {
            let subcommand = if named { first.as_str() } else { "run" };
            Err(UsageError::with_hint_of(&first, one_line(&error, command.find_subcommand(subcommand))))
        }
    }
}

/// Parses the options of a pool in the environment variable of the name `variable`.
pub(crate) fn parse_variable(variable: &str, value: &str, served: Served) -> Result<Given, UsageError> {
    let wrong = |reason: String| UsageError::new(format!("{variable}: {reason}"));
    let words = split(value).ok_or_else(|| wrong("a quote or a backslash has no end".to_owned()))?;
    let mut command = run("mcsup", Extent::Parsed);
    let words = std::iter::once("mcsup".to_owned()).chain(words);
    let matches = command.try_get_matches_from_mut(words).map_err(|error| {
        wrong(match is_shown(&error) {
            true => "help and version are for the command line".to_owned(),
            false => one_line(&error, Some(&command)),
        })
    })?;
    let mut given = command::given(&matches, Served::Application);
    given.served = served;
    match command::foreign(&given) {
        Some(row) if row.flag.is_empty() => {
            Err(wrong("an application has no meaning for a program".to_owned()))
        }
        Some(row) => Err(wrong(exec::has_no_meaning(&format!("--{}", row.flag), row))),
        None => Ok(given),
    }
}

/// A clearer error for `words` that are refused with `error`: an option of `subcommand` stands too late among them.
pub(crate) fn late_option(subcommand: &str, words: &[String], error: UsageError) -> UsageError {
    let command = command(Extent::Parsed);
    let own = command.find_subcommand(subcommand).into_iter();
    let own = own.flat_map(|own| own.get_subcommands().chain([own]).flat_map(clap::Command::get_arguments));
    let own: Vec<String> = own.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
    let is_own = |word: &&String| own.iter().any(|option| word.split('=').next() == Some(option));
    match words.iter().find(is_own) {
        Some(word) => UsageError::with_hint_of(
            subcommand,
            format!("{word} is an option of mcsup {subcommand}: it stands before the options of the server"),
        ),
        None => error,
    }
}

/// Splits words as a shell does, without its comments: `#` begins a word like any other, as for gunicorn.
fn split(value: &str) -> Option<Vec<String>> {
    // The crate drops comments, and all options behind them. NUL replaces `#`: no variable can hold it.
    let words = shlex::split(&value.replace('#', "\0"))?;
    Some(words.into_iter().map(|word| word.replace('\0', "#")).collect())
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
fn refuse_late_subcommand(given: Given) -> Result<Invocation, UsageError> {
    match given.text("app") {
        Some(app) if SUBCOMMANDS.contains(&app) => Err(UsageError::with_hint(format!(
            "'{app}' must be the first word; a module of that name is served by 'mcsup run {app}'"
        ))),
        _ => Ok(Invocation::Run(given)),
    }
}

fn is_shown(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

/// The first paragraph of clap's message, or a clearer one where that is too general.
///
/// `command` has the known options.
fn one_line(error: &clap::Error, command: Option<&clap::Command>) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match (error.kind(), word(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(option)) if option.starts_with('-') => {
            match nearest_option(command, option) {
                Some(near) => format!("unknown option '{option}'; is '{near}' meant?"),
                None => format!("unknown option '{option}'"),
            }
        }
        (ErrorKind::UnknownArgument, Some(extra)) => format!("'{extra}' is one word too many"),
        (ErrorKind::InvalidSubcommand, _) => {
            unknown_command(command, word(ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.split("\n\n").next().unwrap_or(text).to_owned()
        }
    }
}

/// The error for a word that names no subcommand of `command`; without one, of mcsup itself.
fn unknown_command(command: Option<&clap::Command>, word: &str) -> String {
    let known: Vec<&str> =
        command.into_iter().flat_map(clap::Command::get_subcommands).map(|one| one.get_name()).collect();
    let near =
        if known.is_empty() { words::meant(word) } else { typos::nearest(known.iter().copied(), word) };
    match near {
        Some(near) => format!("unknown command '{word}'; is '{near}' meant?"),
        None if known.is_empty() => format!("unknown command '{word}'"),
        None => format!("unknown command '{word}'; there are {}", known.join(", ")),
    }
}

/// The known option of which `written` may be a typing error.
fn nearest_option(command: Option<&clap::Command>, written: &str) -> Option<String> {
    let arguments = command.into_iter().flat_map(clap::Command::get_arguments);
    let known = arguments.flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
    typos::nearest(known.map(|name| format!("--{name}")), written)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
