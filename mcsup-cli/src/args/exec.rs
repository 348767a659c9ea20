//! The arguments of `mcsup exec`.

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use super::UsageError;
use super::command::{self, Extent};
use crate::table::{Given, Row, Served};

const AFTER_HELP: &str = "\
The listeners are the descriptors from 3 on. LISTEN_FDS and LISTEN_PID, EINHORN_FD_*, SERVER_STARTER_PORT and MCSUP_FDS \
name them; in ARGS {fd}, {port}, {address} (of another listener {fd:1} and so on) and {slot} are replaced. The program \
is ready when it writes a line to the descriptor MCSUP_READY_FD or sends READY=1 to NOTIFY_SOCKET. docs/EXEC.md has all \
of it.";

/// A program, and the settings of its pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExecArgs {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The settings.
    pub given: Given,
}

/// The command for clap.
pub(super) fn exec(extent: Extent) -> Command {
    let command = Command::new("exec")
        .about("Run a program of any language with a pool of worker processes on shared sockets")
        .override_usage("mcsup exec [OPTIONS] [--] PROGRAM [ARGS]...")
        .after_help(AFTER_HELP)
        .arg(command::program());
    command::with_settings(command, Served::Program, extent)
}

/// The arguments that clap has found. An option of Python applications is an error.
pub(super) fn parsed(matches: &ArgMatches) -> Result<ExecArgs, UsageError> {
    let given = command::given(matches, Served::Program);
    if let Some(row) = command::foreign(&given) {
        return Err(UsageError::with_hint_of("exec", has_no_meaning(&format!("--{}", row.flag), row)));
    }
    let words = matches.get_many::<OsString>("command").into_iter().flatten();
    Ok(ExecArgs { command: words.cloned().collect(), given })
}

/// The reason why a setting of Python applications is refused for a program.
pub(crate) fn has_no_meaning(written: &str, row: &Row) -> String {
    match row.name {
        "reload" => format!("{written} has no meaning for a program: `mcsup reload` starts its new version"),
        _ => format!("{written} has no meaning for a program"),
    }
}
