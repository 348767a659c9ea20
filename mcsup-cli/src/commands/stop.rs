//! `mcsup stop`: ends the supervisor by a signal, and waits until its pool is gone and its ports are free.
//!
//! `found` determines the process that gets the signal.

mod found;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mcsup_core::control::{Outcome, Reply};
use mcsup_core::host::processes;

use super::client;
use super::leftovers::Descendants;
use crate::args::operator::StopArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest wait for the workers of a supervisor that was killed; any other one has reaped its workers.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Stops the selected server. Succeeds if it does not run.
pub(crate) fn run(args: &StopArgs) -> Result<(Exit, String), Failure> {
    let (exit, outcome, text) = stop(args)?;
    client::print_reply(exit, &Reply::new(outcome, text), &args.server)
}

/// Stops by a signal, which also reaches a server without a working control socket.
fn stop(args: &StopArgs) -> Result<(Exit, Outcome, String), Failure> {
    let Some(supervisor) = found::find(&args.server)? else {
        return Ok((Exit::Done, Outcome::Done, "not running".to_owned()));
    };
    let pid = supervisor.pid();
    let mut descendants = Descendants::new(pid);
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
    if !descendants.wait(&supervisor, deadline) {
        left.push(processes::describe(pid));
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + WORKERS_TIMEOUT);
    left.extend(descendants.pool_left(deadline));
    let others = descendants.sentence().map(|others| format!("; {others}")).unwrap_or_default();
    left.extend(addresses.into_iter().filter_map(|address| still_held(address, &descendants, pid)));
    match left.is_empty() {
        true => Ok((Exit::Done, Outcome::Done, format!("stopped (pid {pid}){others}"))),
        false => {
            Ok((Exit::LeftRunning, Outcome::Failed, format!("still there: {}{others}", left.join("; "))))
        }
    }
}

/// Names a port that the supervisor or a descendant still holds; another server may have taken it since.
fn still_held(address: SocketAddr, descendants: &Descendants, supervisor: i32) -> Option<String> {
    descendants
        .pids()
        .chain([supervisor])
        .any(|pid| processes::listening_addresses(pid).contains(&address))
        .then(|| format!("port {address}"))
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
