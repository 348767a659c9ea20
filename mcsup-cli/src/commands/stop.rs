//! `mcsup stop`: asks the supervisor to end, and waits until every process of its pool is gone and its ports are
//! free.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mcsup_core::control::{AskError, Client, Command, Outcome, Reply, Request};
use mcsup_core::host::handle::Handle;
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use super::asking;
use super::leftovers::Below;
use crate::args::operator::StopArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Once the supervisor is gone its workers have been reaped by it; this is for those of one that was killed.
const AFTER_THE_SUPERVISOR: Duration = Duration::from_secs(5);

/// How long a server may take to say which process it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops the server that is meant. One that does not run is stopped already.
pub(crate) fn run(args: &StopArgs) -> Result<(Exit, String), Failure> {
    let (exit, outcome, text) = stop(args)?;
    asking::say(exit, &Reply::new(outcome, text), &args.server)
}

/// By signals: they also reach a server that has no control socket, or does not hear it.
fn stop(args: &StopArgs) -> Result<(Exit, Outcome, String), Failure> {
    let Some(supervisor) = find(args)? else {
        return Ok((Exit::Done, Outcome::Done, "not running".to_owned()));
    };
    let pid = supervisor.pid();
    let mut below = Below::new(pid);
    let workers = below.workers();
    let addresses = processes::listening_addresses(pid);
    match if args.quick { supervisor.interrupt() } else { supervisor.terminate() } {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
        Err(error) => {
            return Err(Failure::refused(format!("cannot stop {}: {error}", processes::describe(pid))));
        }
    }
    if args.no_wait {
        return Ok((Exit::Done, Outcome::Begun, format!("the end of pid {pid}")));
    }
    let deadline = args.server.timeout.map(|timeout| Instant::now() + timeout);
    let mut left = Vec::new();
    if !below.wait(&supervisor, deadline) {
        left.push(processes::describe(pid));
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + AFTER_THE_SUPERVISOR);
    left.extend(
        workers.iter().filter(|worker| !worker.wait(Some(deadline))).map(|w| processes::describe(w.pid())),
    );
    let others = below.sentence(&workers).map(|others| format!("; {others}")).unwrap_or_default();
    left.extend(addresses.into_iter().filter_map(|address| still_held(address, &below, pid)));
    match left.is_empty() {
        true => Ok((Exit::Done, Outcome::Done, format!("stopped (pid {pid}){others}"))),
        false => {
            Ok((Exit::LeftRunning, Outcome::Failed, format!("still there: {}{others}", left.join("; "))))
        }
    }
}

/// The supervisor that is meant, if it runs.
fn find(args: &StopArgs) -> Result<Option<Handle>, Failure> {
    match asking::pid_file(&args.server) {
        Some(pid_file) => holder_of(pid_file),
        None => listener_at(args),
    }
}

/// The supervisor that holds the pid file. Held by its handle before the file is read again, so that it is the one
/// that the file means and not one that was given its pid since.
fn holder_of(pid_file: &Path) -> Result<Option<Handle>, Failure> {
    let Running::Pid(pid) = PidFile::running(pid_file)? else { return Ok(None) };
    let Ok(handle) = Handle::open(pid) else { return Ok(None) };
    Ok((PidFile::running(pid_file)? == Running::Pid(pid)).then_some(handle))
}

/// The supervisor that answers at the control socket. Asked again once it is held, for the same reason.
fn listener_at(args: &StopArgs) -> Result<Option<Handle>, Failure> {
    let path = asking::socket(&args.server)?;
    let mut client = match Client::connect(&path) {
        Ok(client) => client,
        Err(AskError::Nobody { .. }) => return Ok(None),
        Err(error) => return Err(asking::unanswered(&args.server, &error)),
    };
    let Some(pid) = who_answers(&mut client, args)? else { return Ok(None) };
    let Ok(handle) = Handle::open(pid) else {
        return Err(Failure::refused(format!(
            "the server says that it is pid {pid}, which cannot be seen here"
        )));
    };
    Ok((who_answers(&mut client, args)? == Some(pid)).then_some(handle))
}

fn who_answers(client: &mut Client, args: &StopArgs) -> Result<Option<i32>, Failure> {
    match client.ask(&Request::new(Command::Status), Some(PATIENCE)) {
        Ok(Reply { status: Some(status), .. }) if status.pid.is_some() => Ok(status.pid),
        Ok(reply) => {
            Err(Failure::refused(format!("the server does not say which process it is: {}", reply.message)))
        }
        // It has ended meanwhile.
        Err(AskError::Ended) => Ok(None),
        Err(AskError::TimedOut) => {
            let limit = PATIENCE.as_secs();
            Err(Failure::new(Exit::LeftRunning, format!("the server does not answer within {limit} seconds")))
        }
        Err(error) => Err(asking::unanswered(&args.server, &error)),
    }
}

/// A port that a process of the pool or of its application still holds; another server may have taken it since.
fn still_held(address: SocketAddr, below: &Below, supervisor: i32) -> Option<String> {
    below
        .pids()
        .chain([supervisor])
        .any(|pid| processes::listening_addresses(pid).contains(&address))
        .then(|| format!("port {address}"))
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
