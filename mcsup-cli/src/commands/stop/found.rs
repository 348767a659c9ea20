//! Which process is to get a signal. No number that a file or a server names is trusted: the kernel is asked who has the
//! lock of the pid file, or who listens at the socket, after the process is held. A number of another PID namespace
//! means another process here.

use std::path::Path;
use std::time::{Duration, Instant};

use mcsup_core::control::{AskError, Client, Command, Peer, Reply, Request};
use mcsup_core::host::handle::Handle;
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use super::super::asking;
use crate::args::operator::ServerArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// How long a server that hangs up may take to end.
const LAST_STEPS: Duration = Duration::from_secs(2);

/// How often a pid file may change hands while it is looked at.
const TRIES: usize = 3;

/// The supervisor that is meant; `None` only where there is none.
pub(super) fn find(args: &ServerArgs) -> Result<Option<Handle>, Failure> {
    match asking::pid_file(args) {
        Some(pid_file) => holder_of(pid_file),
        None => listener_at(args),
    }
}

/// The supervisor that holds the pid file. Held by its handle before the lock is looked at again, so that it is the one
/// that has it and not one that was given its pid since.
fn holder_of(pid_file: &Path) -> Result<Option<Handle>, Failure> {
    for _ in 0..TRIES {
        let Running::Pid(pid) = PidFile::running(pid_file)? else { return Ok(None) };
        let handle = hold(pid)?;
        if PidFile::running(pid_file)? == Running::Pid(pid) {
            return handle.map(Some).ok_or_else(|| unseen(pid));
        }
    }
    Err(Failure::refused(format!("the pid file {} changes hands all the time", pid_file.display())))
}

/// The supervisor that listens at the control socket. It is asked again once it is held, for the same reason.
fn listener_at(args: &ServerArgs) -> Result<Option<Handle>, Failure> {
    let path = asking::socket(args)?;
    let mut client = match Client::connect(&path) {
        Ok(client) => client,
        Err(AskError::NoServer { .. }) => return Ok(None),
        Err(error) => return Err(asking::unanswered(args, &error)),
    };
    let peer = client.peer().map_err(|error| asking::unanswered(args, &error))?;
    let pid = trusted(peer, &path)?;
    let Some(told) = who_answers(&mut client, args)? else { return gone(pid) };
    if pid.is_some_and(|pid| pid != told) {
        let who = pid.map(processes::describe).unwrap_or_default();
        return Err(Failure::refused(format!(
            "the server says that it is pid {told}, but {who} listens at {}: it is in another PID namespace, \
             or no server of mcsup",
            path.display()
        )));
    }
    let Some(handle) = hold(told)? else { return Err(unseen(told)) };
    match who_answers(&mut client, args)? {
        Some(still) if still == told => Ok(Some(handle)),
        Some(other) => {
            Err(Failure::refused(format!("the server was pid {told} and says now that it is pid {other}")))
        }
        None => gone(Some(told)),
    }
}

/// The pid of a peer that may be a server of ours; `None` where this system does not tell it.
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

/// A server that hung up without an answer is not running once its process has ended.
fn gone(pid: Option<i32>) -> Result<Option<Handle>, Failure> {
    let Some(pid) = pid else { return Ok(None) };
    match hold(pid)? {
        Some(handle) if !handle.wait(Some(Instant::now() + LAST_STEPS)) => Err(Failure::refused(format!(
            "the server does not say which process it is: {} hung up without an answer",
            processes::describe(pid)
        ))),
        _ => Ok(None),
    }
}

/// A hold on a process; `None`: there is no such process.
fn hold(pid: i32) -> Result<Option<Handle>, Failure> {
    match Handle::open(pid) {
        Ok(handle) => Ok(Some(handle)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::refused(format!("cannot take hold of {}: {error}", processes::describe(pid))))
        }
    }
}

fn unseen(pid: i32) -> Failure {
    Failure::refused(format!("the server is pid {pid}, and there is no such process here"))
}

fn who_answers(client: &mut Client, args: &ServerArgs) -> Result<Option<i32>, Failure> {
    let limit = args.timeout.map_or(asking::ANSWERS_WITHIN, |limit| limit.min(asking::ANSWERS_WITHIN));
    match client.ask(&Request::new(Command::Status), Some(limit)) {
        Ok(Reply { status: Some(status), .. }) if status.pid.is_some() => Ok(status.pid),
        Ok(reply) => {
            Err(Failure::refused(format!("the server does not say which process it is: {}", reply.message)))
        }
        // It has ended meanwhile, or so it seems.
        Err(AskError::Ended) => Ok(None),
        Err(AskError::TimedOut) => {
            let limit = limit.as_secs_f64();
            Err(Failure::new(Exit::LeftRunning, format!("the server does not answer within {limit} seconds")))
        }
        Err(error) => Err(asking::unanswered(args, &error)),
    }
}
