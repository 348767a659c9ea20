//! The arguments of `mcsup exec`.

use std::ffi::OsString;

use clap::{ArgAction, Args, Command, Parser};

use super::options::{
    ApplicationArgs, LoggingArgs, ProcessArgs, RecyclingArgs, ReloadingArgs, ServingArgs, TimeLimitsArgs,
};
use super::{RunArgs, UsageError};

/// Options of `mcsup run` that have no meaning for a program, by their names in the code.
const OF_PYTHON: [&str; 17] = [
    "threads",
    "health_path",
    "pythonpath",
    "check_config",
    "no_share_stdlib",
    "preload",
    "preload_threads",
    "max_requests",
    "max_requests_jitter",
    "request_timeout",
    "keep_alive",
    "header_timeout",
    "body_timeout",
    "write_timeout",
    "end_children",
    "access_logfile",
    "access_logformat",
];

const AFTER_HELP: &str = "\
The listeners are the descriptors from 3 on. LISTEN_FDS and LISTEN_PID, EINHORN_FD_*, SERVER_STARTER_PORT and MCSUP_FDS \
name them; in ARGS {fd}, {port}, {address} (of another listener {fd:1} and so on) and {slot} are replaced. The program \
is ready when it writes a line to the descriptor MCSUP_READY_FD or sends READY=1 to NOTIFY_SOCKET. docs/EXEC.md has all \
of it.";

/// Run a program of any language with a pool of worker processes on shared sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(
    override_usage = "mcsup exec [OPTIONS] [--] PROGRAM [ARGS]...",
    after_help = AFTER_HELP,
    args_override_self = true,
    allow_negative_numbers = true,
    max_term_width = 110
)]
pub(crate) struct ExecArgs {
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,

    /// Settings file: TOML, its keys the long names of the options with _ for -; each reload reads it again
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,

    #[command(flatten)]
    pub program: ProgramArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub application: ApplicationArgs,
    #[command(flatten)]
    pub reloading: ReloadingArgs,
    #[command(flatten)]
    pub recycling: RecyclingArgs,
    #[command(flatten)]
    pub time_limits: TimeLimitsArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// How the program is started, watched and stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Program")]
pub(crate) struct ProgramArgs {
    /// How it is known to be ready, beside its own report: report (by that alone), tcp (it accepts a connection),
    /// http:PATH (it answers GET PATH with 2xx), or timer:SECS (by no proof) [default: report]
    #[arg(long, value_name = "WAY")]
    pub ready: Option<String>,
    /// Signal that makes it finish and end [default: TERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Signal that makes it reopen its log files [default: none]
    #[arg(long, value_name = "SIGNAL")]
    pub reopen_signal: Option<String>,
    /// Expect WATCHDOG=1 at NOTIFY_SOCKET within --timeout, and replace a worker without it
    #[arg(long, action = ArgAction::SetTrue)]
    pub watchdog: bool,
    /// Its standard input: null or listener (the first one) [default: null]
    #[arg(long, value_name = "WORD")]
    pub stdin: Option<String>,
    /// Its standard output and error: log (line by line) or inherit [default: log]
    #[arg(long, value_name = "WORD")]
    pub output: Option<String>,
    /// Pass no listener: the program fetches its work itself
    #[arg(long, action = ArgAction::SetTrue)]
    pub no_listener: bool,
    /// Pass listeners on which accept(2) waits
    #[arg(long, action = ArgAction::SetTrue)]
    pub blocking: bool,
    /// Limit of a resource: as, core, cpu, data, fsize, memlock, nofile, nproc or stack; a number or `unlimited`;
    /// repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub limit: Vec<String>,
    /// Addition to its nice value
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pub nice: Option<String>,
    /// Processors of each slot in turn: numbers or ranges like 0-3, separated by commas
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Forbid it to gain privileges by executing a file
    #[arg(long, action = ArgAction::SetTrue)]
    pub no_new_privs: bool,
}

impl ExecArgs {
    /// The settings of its pool, which `mcsup run` has too.
    pub(crate) fn pool(&self) -> RunArgs {
        RunArgs {
            config: self.config.clone(),
            serving: self.serving.clone(),
            application: self.application.clone(),
            reloading: self.reloading.clone(),
            recycling: self.recycling.clone(),
            time_limits: self.time_limits.clone(),
            process: self.process.clone(),
            logging: self.logging.clone(),
            ..RunArgs::default()
        }
    }
}

/// Leaves the options of Python applications out of the help.
pub(super) fn hide_foreign(command: Command) -> Command {
    OF_PYTHON.iter().fold(command, |command, name| command.mut_arg(name, |argument| argument.hide(true)))
}

/// Refuses the options of Python applications.
pub(super) fn refuse_foreign(matches: &clap::ArgMatches) -> Result<(), UsageError> {
    let is_given = |name: &&&str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
    match OF_PYTHON.iter().find(is_given) {
        None => Ok(()),
        Some(name) => {
            let option = name.replace('_', "-");
            Err(UsageError::with_hint_of("exec", format!("--{option} has no meaning for a program")))
        }
    }
}
