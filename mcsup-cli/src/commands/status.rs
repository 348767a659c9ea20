//! `mcsup status`: whether a server runs, and how it is as far as it says so itself.

mod picture;

use std::path::Path;
use std::time::{Duration, Instant};

use mcsup_core::control::{AskError, Client, Command, Outcome, Reply, Request, Status};
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::{processes, usage};

use super::asking;
use crate::args::operator::{ServerArgs, StatusArgs};
use crate::exit::Exit;
use crate::failure::Failure;

/// Between the two looks at what the workers have used of the processor.
const APART: Duration = Duration::from_millis(250);

/// What the server says about itself, otherwise what can be seen of it from outside.
pub(crate) fn run(args: &StatusArgs) -> Result<(Exit, String), Failure> {
    let args = &args.server;
    let socket = asking::socket(args)?;
    let holder = match asking::pid_file(args).map(PidFile::running) {
        Some(Ok(Running::No)) => return not_running(args, "not running"),
        Some(Ok(Running::Pid(pid))) => Some(Ok(pid)),
        // As for a server of another PID namespace, which can be asked all the same.
        Some(Err(error)) => Some(Err(error)),
        None => None,
    };
    match (ask(&socket, args.timeout.unwrap_or(asking::ANSWERS_WITHIN)), holder) {
        (Ok(reply), _) if reply.outcome == Outcome::Done => tell(&reply, args),
        (_, Some(Err(error))) => Err(error.into()),
        (Ok(reply), Some(Ok(pid))) => seen_from_outside(pid, &reply.message, args),
        (Ok(reply), None) => asking::judge(&reply, args),
        (Err(error), Some(Ok(pid))) => seen_from_outside(pid, &error.to_string(), args),
        (Err(error @ (AskError::NoServer { .. } | AskError::Ended)), None) => {
            not_running(args, &format!("not running: {error}"))
        }
        (Err(error), None) => Err(asking::unanswered(args, &error)),
    }
}

fn ask(socket: &Path, timeout: Duration) -> Result<Reply, AskError> {
    let mut client = Client::connect(socket)?;
    let peer = client.peer()?;
    let mut reply = ask_twice(&mut client, timeout)?;
    if let Some(status) = &mut reply.status {
        // Otherwise its numbers mean other processes here.
        if peer.pid.is_some() && status.pid == peer.pid {
            measure(status);
        }
    }
    Ok(reply)
}

/// The second time so that the use of the processor can be told.
fn ask_twice(client: &mut Client, timeout: Duration) -> Result<Reply, AskError> {
    let status = Request::new(Command::Status);
    let first = client.ask(&status, Some(timeout))?;
    let workers = first.status.iter().flat_map(|status| &status.workers);
    if workers.filter_map(|worker| worker.cpu_seconds).next().is_none() {
        return Ok(first);
    }
    let begun = Instant::now();
    std::thread::sleep(APART);
    match client.ask(&status, Some(timeout)) {
        Ok(mut second) => {
            if let (Some(before), Some(after)) = (&first.status, &mut second.status) {
                divide(before, after, begun.elapsed());
            }
            Ok(second)
        }
        Err(_) => Ok(first),
    }
}

/// Counts the figures that the server leaves to its clients, as far as this user may.
fn measure(status: &mut Status) {
    for worker in &mut status.workers {
        worker.pss_bytes = worker.pss_bytes.or_else(|| usage::proportional(worker.pid?));
    }
}

/// The share of a processor that each worker has used between two looks.
fn divide(before: &Status, after: &mut Status, elapsed: Duration) {
    for worker in &mut after.workers {
        let earlier =
            before.workers.iter().find(|other| (other.slot, other.pid) == (worker.slot, worker.pid));
        let used = earlier.and_then(|earlier| Some(worker.cpu_seconds? - earlier.cpu_seconds?));
        // By the server's clock where it says how late it is: it may have looked when we did not expect it.
        let between = earlier
            .and_then(|earlier| Some(worker.age_seconds? - earlier.age_seconds?))
            .filter(|seconds| *seconds > 0.0)
            .unwrap_or(elapsed.as_secs_f64());
        worker.cpu_percent = used.map(|used| (used / between * 1000.0).max(0.0).round() / 10.0);
    }
}

fn tell(reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    match &reply.status {
        Some(status) if !args.json => Ok((Exit::Done, picture::picture(status))),
        _ => asking::judge(reply, args),
    }
}

fn not_running(args: &ServerArgs, why: &str) -> Result<(Exit, String), Failure> {
    asking::say(Exit::NotRunning, &Reply::new(Outcome::Refused, why), args)
}

/// What anybody can see of a server that runs and does not say how it is.
fn seen_from_outside(pid: i32, why: &str, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    let listeners: Vec<String> =
        processes::listening_addresses(pid).iter().map(ToString::to_string).collect();
    let mut text = format!("running: {}", processes::describe(pid));
    for address in &listeners {
        text.push_str(&format!("\nlistening: {address}"));
    }
    for worker in processes::children_of(pid) {
        text.push_str(&format!("\nworker: pid {worker}"));
    }
    text.push_str(&format!("\nno more is known: {why}"));
    let status = Status { pid: Some(pid), listeners, ..Status::default() };
    let message = if args.json { why } else { &text };
    let mut reply = Reply::new(Outcome::Done, message);
    reply.status = Some(status);
    asking::say(Exit::Done, &reply, args)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
