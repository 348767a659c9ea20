//! Asking a server through its control socket: which one is meant, and what its answer means to the caller.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcsup_core::control::{AskError, Client, Command, Outcome, Reply, Request, path_beside};
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use crate::args::operator::ServerArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Names the control socket where the command line names neither it nor a pid file.
const VARIABLE: &str = "MCSUP_CONTROL_SOCKET";

/// How long a server may take to say how it is; after that it counts as one that does not answer.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Where the server listens that is meant.
pub(super) fn socket(args: &ServerArgs) -> Result<PathBuf, Failure> {
    choose(args, std::env::var_os(VARIABLE))
}

fn choose(args: &ServerArgs, variable: Option<OsString>) -> Result<PathBuf, Failure> {
    let given = args.control_socket.as_ref().map(PathBuf::from);
    let beside = || args.pid.as_ref().map(|pid_file| path_beside(pid_file.as_ref()));
    let variable = || variable.filter(|path| !path.is_empty()).map(PathBuf::from);
    given.or_else(beside).or_else(variable).ok_or_else(|| {
        let how = format!("-p PIDFILE, by -s PATH or by {VARIABLE}");
        Failure::usage(format!("which server is meant must be said by {how} (try 'mcsup --help')"))
    })
}

/// The pid file, if that is what says which server is meant: a socket that is named comes first.
pub(super) fn pid_file(args: &ServerArgs) -> Option<&Path> {
    match args.control_socket {
        Some(_) => None,
        None => args.pid.as_deref().map(Path::new),
    }
}

/// Asks the server that is meant to do something.
pub(super) fn ask(args: &ServerArgs, command: Command, wait: bool) -> Result<Reply, Failure> {
    let path = socket(args)?;
    let asked =
        Client::connect(&path).and_then(|mut client| client.ask(&Request { command, wait }, args.timeout));
    asked.map_err(|error| unanswered(args, &error))
}

/// Why there is no answer.
pub(super) fn unanswered(args: &ServerArgs, error: &AskError) -> Failure {
    match (error, args.timeout) {
        (AskError::TimedOut, Some(limit)) => {
            let limit = limit.as_secs_f64();
            Failure::new(Exit::Unfinished, format!("not finished within {limit} seconds; it goes on"))
        }
        (AskError::TimedOut, None) => Failure::new(Exit::Unfinished, error.to_string()),
        (AskError::Ended, _) => Failure::new(Exit::NotRunning, error.to_string()),
        (AskError::NoServer { .. }, _) => match holder(args) {
            // There is a server, and it cannot be asked.
            Ok(Some(pid)) => Failure::refused(format!(
                "the server runs ({}), but has no control socket: {error}",
                processes::describe(pid)
            )),
            Ok(None) => Failure::new(Exit::NotRunning, format!("not running: {error}")),
            Err(failure) => failure,
        },
        _ => Failure::refused(error.to_string()),
    }
}

/// Who holds the pid file, where that is what was named.
fn holder(args: &ServerArgs) -> Result<Option<i32>, Failure> {
    let Some(pid_file) = pid_file(args) else { return Ok(None) };
    Ok(match PidFile::running(pid_file)? {
        Running::Pid(pid) => Some(pid),
        Running::No => None,
    })
}

/// What an answer means to the caller.
pub(super) fn judge(reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    let exit = match reply.outcome {
        Outcome::Done | Outcome::Begun => Exit::Done,
        Outcome::Failed => Exit::BootFailed,
        Outcome::Superseded => Exit::Superseded,
        // A mistake of ours is a server that is older than this command.
        Outcome::Refused | Outcome::Mistaken => Exit::Refused,
    };
    say(exit, reply, args)
}

/// The end of a command: an object for a program, or a text, which belongs to standard error where something is wrong.
pub(super) fn say(exit: Exit, reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    if args.json {
        return Ok((exit, String::from_utf8_lossy(reply.to_line().trim_ascii_end()).into_owned()));
    }
    let begun = if reply.outcome == Outcome::Begun { "begun: " } else { "" };
    let detail = reply.detail.as_ref().map(|detail| format!("\n{}", detail.trim_end())).unwrap_or_default();
    let text = format!("{begun}{}{detail}", reply.message);
    match exit {
        Exit::Done | Exit::NotRunning => Ok((exit, text)),
        _ => Err(Failure::new(exit, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_named_one_or_beside_the_pid_file_or_in_the_environment() {
        for (socket, pid, variable, expected) in [
            (Some("a.sock"), Some("b.pid"), Some("c"), Some("a.sock")),
            (None, Some("b.pid"), Some("c"), Some("b.ctl")),
            (None, None, Some("c"), Some("c")),
            (None, None, Some(""), None),
            (None, None, None, None),
        ] {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let args = ServerArgs { control_socket: text(socket), pid: text(pid), ..ServerArgs::default() };
            let chosen = choose(&args, variable.map(OsString::from));
            assert_eq!(chosen.as_deref().ok(), expected.map(Path::new), "{args:?}");
            assert!(chosen.is_ok() || chosen.is_err_and(|failure| failure.exit == Exit::Usage));
        }
    }

    #[test]
    fn each_outcome_has_its_exit_code() {
        let text = ServerArgs::default();
        let json = ServerArgs { json: true, ..ServerArgs::default() };
        for (outcome, exit) in [
            (Outcome::Done, Exit::Done),
            (Outcome::Begun, Exit::Done),
            (Outcome::Failed, Exit::BootFailed),
            (Outcome::Superseded, Exit::Superseded),
            (Outcome::Refused, Exit::Refused),
            (Outcome::Mistaken, Exit::Refused),
        ] {
            let reply = Reply::new(outcome, "so it is").with_detail("Traceback:\n  line\n");
            let (code, line) = judge(&reply, &json).expect("an object is printed whatever it says");
            assert_eq!((code, Reply::from_line(line.as_bytes()).as_ref()), (exit, Ok(&reply)));
            let (code, text) = match judge(&reply, &text) {
                Ok(ended) => ended,
                Err(failure) => (failure.exit, failure.to_string()),
            };
            assert_eq!(code, exit);
            assert!(text.ends_with("so it is\nTraceback:\n  line"), "{text}");
        }
    }
}
