//! Determines the supervisor that gets the signal, and verifies it with the kernel.
//!
//! A pid from a file or a server is not trusted: it may be stale or of another PID namespace. First the process is
//! pinned by a handle. Then the kernel names the holder of the pid file's lock or the listener of the socket.

use std::path::Path;
use std::time::{Duration, Instant};

use mcsup_core::control::{AskError, Client, Command, Peer, Reply, Request};
use mcsup_core::host::handle::Handle;
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use super::super::client;
use crate::args::operator::ServerArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Longest end of a server that closes the connection without a reply.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Attempts while the holder of the pid file changes.
const TRIES: usize = 3;

/// The selected supervisor; `None` if it does not run.
pub(super) fn find(args: &ServerArgs) -> Result<Option<Handle>, Failure> {
    match client::pid_file(args) {
        Some(pid_file) => holder_of(pid_file),
        None => listener_at(args),
    }
}

/// The supervisor that holds the pid file.
///
/// The lock is read again once a handle pins the process: its pid may have been reused before.
fn holder_of(pid_file: &Path) -> Result<Option<Handle>, Failure> {
    for _ in 0..TRIES {
        let Running::Pid(pid) = PidFile::running(pid_file)? else { return Ok(None) };
        let handle = open_handle(pid)?;
        if PidFile::running(pid_file)? == Running::Pid(pid) {
            return handle.map(Some).ok_or_else(|| no_such_process(pid));
        }
    }
    Err(Failure::refused(format!("the pid file {} changes hands all the time", pid_file.display())))
}

/// The supervisor that listens at the control socket.
///
/// It is asked again once a handle pins the process: its pid may have been reused before.
fn listener_at(args: &ServerArgs) -> Result<Option<Handle>, Failure> {
    let path = client::socket(args)?;
    let mut client = match Client::connect(&path) {
        Ok(client) => client,
        Err(AskError::NoServer { .. }) => return Ok(None),
        Err(error) => return Err(client::no_reply_error(args, &error)),
    };
    let peer = client.peer().map_err(|error| client::no_reply_error(args, &error))?;
    let pid = trusted(peer, &path)?;
    let Some(told) = answering_pid(&mut client, args)? else { return gone(pid) };
    if pid.is_some_and(|pid| pid != told) {
        let holder = pid.map(processes::describe).unwrap_or_default();
        return Err(Failure::refused(format!(
            "the server says that it is pid {told}, but {holder} listens at {}: it is in another PID namespace, \
             or no server of mcsup",
            path.display()
        )));
    }
    let Some(handle) = open_handle(told)? else { return Err(no_such_process(told)) };
    match answering_pid(&mut client, args)? {
        Some(still) if still == told => Ok(Some(handle)),
        Some(other) => {
            Err(Failure::refused(format!("the server was pid {told} and says now that it is pid {other}")))
        }
        None => gone(Some(told)),
    }
}

/// The pid of the peer, if its user is trusted; `None` where the system does not provide it.
fn trusted(peer: Peer, path: &Path) -> Result<Option<i32>, Failure> {
    let (ours, path) = (rustix::process::geteuid(), path.display());
    // Root may stop any user's server: the signal reaches the listening process and no other.
    if !ours.is_root() && ![0, ours.as_raw()].contains(&peer.uid) {
        let text = format!("at {path} listens a process of user id {}, which is not trusted", peer.uid);
        return Err(Failure::refused(text));
    }
    let tells = cfg!(any(target_os = "linux", target_vendor = "apple"));
    match peer.pid {
        None if tells => {
            Err(Failure::refused(format!("at {path} listens a process of another PID namespace")))
        }
        pid => Ok(pid),
    }
}

/// A server that closed the connection without a reply counts as stopped once its process has ended.
fn gone(pid: Option<i32>) -> Result<Option<Handle>, Failure> {
    let Some(pid) = pid else { return Ok(None) };
    match open_handle(pid)? {
        Some(handle) if !handle.wait(Some(Instant::now() + EXIT_TIMEOUT)) => Err(Failure::refused(format!(
            "the server does not say which process it is: {} hung up without an answer",
            processes::describe(pid)
        ))),
        _ => Ok(None),
    }
}

/// Opens a handle of a process; `None`: there is no such process.
fn open_handle(pid: i32) -> Result<Option<Handle>, Failure> {
    match Handle::open(pid) {
        Ok(handle) => Ok(Some(handle)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::refused(format!("cannot take hold of {}: {error}", processes::describe(pid))))
        }
    }
}

fn no_such_process(pid: i32) -> Failure {
    Failure::refused(format!("the server is pid {pid}, and there is no such process here"))
}

fn answering_pid(client: &mut Client, args: &ServerArgs) -> Result<Option<i32>, Failure> {
    let limit = args.timeout.map_or(client::REPLY_TIMEOUT, |limit| limit.min(client::REPLY_TIMEOUT));
    match client.ask(&Request::new(Command::Status), Some(limit)) {
        Ok(Reply { status: Some(status), .. }) if status.pid.is_some() => Ok(status.pid),
        Ok(reply) => {
            Err(Failure::refused(format!("the server does not say which process it is: {}", reply.message)))
        }
        // The connection ended, and probably the server with it.
        Err(AskError::Ended) => Ok(None),
        Err(AskError::TimedOut) => {
            let limit = limit.as_secs_f64();
            Err(Failure::new(Exit::LeftRunning, format!("the server does not answer within {limit} seconds")))
        }
        Err(error) => Err(client::no_reply_error(args, &error)),
    }
}
