//! `mcsup stop`: asks the supervisor to end, and waits until every process of its pool is gone and its ports are
//! free.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mcsup_core::host::handle::Handle;
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use crate::args::StopArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Once the supervisor is gone its workers have been reaped by it; this is for those of one that was killed.
const AFTER_THE_SUPERVISOR: Duration = Duration::from_secs(5);

/// Stops the server that holds the pid file. One that does not run is stopped already.
pub(crate) fn run(args: &StopArgs) -> Result<(Exit, String), Failure> {
    let Some(supervisor) = find(args)? else {
        return Ok((Exit::Done, "not running".to_owned()));
    };
    let pid = supervisor.pid();
    let workers: Vec<Handle> =
        processes::children_of(pid).into_iter().filter_map(|child| Handle::open(child).ok()).collect();
    let addresses = processes::listening_addresses(pid);
    match supervisor.terminate() {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
        Err(error) => {
            return Err(Failure::refused(format!("cannot stop {}: {error}", processes::describe(pid))));
        }
    }
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut left = Vec::new();
    if !supervisor.wait(deadline) {
        left.push(processes::describe(pid));
    }
    let deadline = deadline.unwrap_or_else(|| Instant::now() + AFTER_THE_SUPERVISOR);
    left.extend(
        workers.iter().filter(|worker| !worker.wait(Some(deadline))).map(|w| processes::describe(w.pid())),
    );
    left.extend(addresses.into_iter().filter_map(|address| still_held(address, &workers, pid)));
    match left.is_empty() {
        true => Ok((Exit::Done, format!("stopped (pid {pid})"))),
        false => Err(Failure::new(Exit::LeftRunning, format!("still there: {}", left.join("; ")))),
    }
}

/// The supervisor that holds the pid file. Held by its handle before the file is read again, so that it is the one
/// that the file means and not one that was given its pid since.
fn find(args: &StopArgs) -> Result<Option<Handle>, Failure> {
    let path = args.pid.as_ref();
    let Running::Pid(pid) = PidFile::running(path)? else { return Ok(None) };
    let Ok(handle) = Handle::open(pid) else { return Ok(None) };
    Ok((PidFile::running(path)? == Running::Pid(pid)).then_some(handle))
}

/// A port that one of the pool's processes still holds; another server may have taken it since.
fn still_held(address: SocketAddr, workers: &[Handle], supervisor: i32) -> Option<String> {
    let mut pool = workers.iter().map(Handle::pid).chain([supervisor]);
    pool.any(|pid| processes::listening_addresses(pid).contains(&address)).then(|| format!("port {address}"))
}
