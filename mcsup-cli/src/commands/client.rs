//! The client of the control socket: selects the server, and turns its reply into an exit code.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcsup_core::control::{AskError, Client, Command, Outcome, Reply, Request, path_beside};
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use crate::args::operator::ServerArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Variable with the path of the control socket, for command lines without socket and pid file.
const VARIABLE: &str = "MCSUP_CONTROL_SOCKET";

/// Longest wait for a status; after it the server counts as not answering.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The control socket of the selected server.
pub(super) fn socket(args: &ServerArgs) -> Result<PathBuf, Failure> {
    choose(args, std::env::var_os(VARIABLE))
}

fn choose(args: &ServerArgs, variable: Option<OsString>) -> Result<PathBuf, Failure> {
    let given = args.control_socket.as_ref().map(PathBuf::from);
    let beside = || args.pid.as_ref().map(|pid_file| path_beside(pid_file.as_ref()));
    let variable = || variable.filter(|path| !path.is_empty()).map(PathBuf::from);
    given.or_else(beside).or_else(variable).ok_or_else(|| {
        let how = format!("-p PIDFILE, -s PATH or {VARIABLE}");
        Failure::usage(format!("no server is selected: name one by {how} (try 'mcsup --help')"))
    })
}

/// The pid file, if it selects the server: a named socket has precedence.
pub(super) fn pid_file(args: &ServerArgs) -> Option<&Path> {
    match args.control_socket {
        Some(_) => None,
        None => args.pid.as_deref().map(Path::new),
    }
}

/// Sends a command to the selected server and returns its reply.
pub(super) fn request(args: &ServerArgs, command: Command, wait: bool) -> Result<Reply, Failure> {
    let path = socket(args)?;
    let reply =
        Client::connect(&path).and_then(|mut client| client.ask(&Request { command, wait }, args.timeout));
    reply.map_err(|error| no_reply_error(args, &error))
}

/// The error for a request without a reply.
pub(super) fn no_reply_error(args: &ServerArgs, error: &AskError) -> Failure {
    match (error, args.timeout) {
        (AskError::TimedOut, Some(limit)) => {
            let limit = limit.as_secs_f64();
            Failure::new(Exit::Unfinished, format!("not finished within {limit} seconds; it goes on"))
        }
        (AskError::TimedOut, None) => Failure::new(Exit::Unfinished, error.to_string()),
        (AskError::Ended, _) => Failure::new(Exit::NotRunning, error.to_string()),
        (AskError::NoServer { .. }, _) => match holder(args) {
            // A server runs, without a control socket.
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

/// The process that holds the pid file, if that selects the server.
fn holder(args: &ServerArgs) -> Result<Option<i32>, Failure> {
    let Some(pid_file) = pid_file(args) else { return Ok(None) };
    Ok(match PidFile::running(pid_file)? {
        Running::Pid(pid) => Some(pid),
        Running::No => None,
    })
}

/// The exit code and text for a reply.
pub(super) fn result(reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    let exit = match reply.outcome {
        Outcome::Done | Outcome::Begun => Exit::Done,
        Outcome::Failed => Exit::BootFailed,
        Outcome::Superseded => Exit::Superseded,
        // `Mistaken`: the server is older than this command.
        Outcome::Refused | Outcome::Mistaken => Exit::Refused,
    };
    print_reply(exit, reply, args)
}

/// Formats a reply: as JSON, or as text, which goes to standard error after an error.
pub(super) fn print_reply(exit: Exit, reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
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
            let (code, line) = result(&reply, &json).expect("an object is printed whatever it says");
            assert_eq!((code, Reply::from_line(line.as_bytes()).as_ref()), (exit, Ok(&reply)));
            let (code, text) = match result(&reply, &text) {
                Ok(ended) => ended,
                Err(failure) => (failure.exit, failure.to_string()),
            };
            assert_eq!(code, exit);
            assert!(text.ends_with("so it is\nTraceback:\n  line"), "{text}");
        }
    }
}
