//! `mcsup stop`: asks the supervisor to end, and waits until every process of its pool is gone and its ports are
//! free. Which process that is, `found` finds out.

mod found;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mcsup_core::control::{Outcome, Reply};
use mcsup_core::host::processes;

use super::asking;
use super::leftovers::Below;
use crate::args::operator::StopArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Once the supervisor is gone its workers have been reaped by it; this is for those of one that was killed.
const AFTER_THE_SUPERVISOR: Duration = Duration::from_secs(5);

/// Stops the server that is meant. One that does not run is stopped already.
pub(crate) fn run(args: &StopArgs) -> Result<(Exit, String), Failure> {
    let (exit, outcome, text) = stop(args)?;
    asking::say(exit, &Reply::new(outcome, text), &args.server)
}

/// By signals: they also reach a server that has no control socket, or does not hear it.
fn stop(args: &StopArgs) -> Result<(Exit, Outcome, String), Failure> {
    let Some(supervisor) = found::find(&args.server)? else {
        return Ok((Exit::Done, Outcome::Done, "not running".to_owned()));
    };
    let pid = supervisor.pid();
    let mut below = Below::new(pid);
    let addresses = processes::listening_addresses(pid);
    let signalled = if args.quick { supervisor.interrupt() } else { supervisor.terminate() };
    match signalled {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
        Err(error) => {
            return Err(Failure::refused(format!("cannot stop {}: {error}", processes::describe(pid))));
        }
    }
    if args.no_wait {
        return Ok((Exit::Done, Outcome::Begun, format!("the end of pid {pid}")));
    }
    let deadline = args.server.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut left = Vec::new();
    if !below.wait(&supervisor, deadline) {
        left.push(processes::describe(pid));
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + AFTER_THE_SUPERVISOR);
    left.extend(below.pool_left(deadline));
    let others = below.sentence().map(|others| format!("; {others}")).unwrap_or_default();
    left.extend(addresses.into_iter().filter_map(|address| still_held(address, &below, pid)));
    match left.is_empty() {
        true => Ok((Exit::Done, Outcome::Done, format!("stopped (pid {pid}){others}"))),
        false => {
            Ok((Exit::LeftRunning, Outcome::Failed, format!("still there: {}{others}", left.join("; "))))
        }
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
