//! `mcsup status`: the state of a server, from the server itself or from outside.

mod table;

use std::path::Path;
use std::time::{Duration, Instant};

use mcsup_core::control::{AskError, Client, Command, Outcome, Reply, Request, Status};
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::{processes, usage};

use super::client;
use crate::args::operator::{ServerArgs, StatusArgs};
use crate::exit::Exit;
use crate::failure::Failure;

/// Interval between the two requests from which CPU% is computed.
const CPU_INTERVAL: Duration = Duration::from_millis(250);

/// Shows the status of the server, otherwise its visible processes and addresses.
pub(crate) fn run(args: &StatusArgs) -> Result<(Exit, String), Failure> {
    let args = &args.server;
    let socket = client::socket(args)?;
    let holder = match client::pid_file(args).map(PidFile::running) {
        Some(Ok(Running::No)) => return not_running(args, "not running"),
        Some(Ok(Running::Pid(pid))) => Some(Ok(pid)),
        // A server of another PID namespace may still answer.
        Some(Err(error)) => Some(Err(error)),
        None => None,
    };
    match (ask(&socket, args.timeout.unwrap_or(client::REPLY_TIMEOUT)), holder) {
        (Ok(reply), _) if reply.outcome == Outcome::Done => show(&reply, args),
        (_, Some(Err(error))) => Err(error.into()),
        (Ok(reply), Some(Ok(pid))) => seen_from_outside(pid, &reply.message, args),
        (Ok(reply), None) => client::result(&reply, args),
        (Err(error), Some(Ok(pid))) => seen_from_outside(pid, &error.to_string(), args),
        (Err(error @ (AskError::NoServer { .. } | AskError::Ended)), None) => {
            not_running(args, &format!("not running: {error}"))
        }
        (Err(error), None) => Err(client::no_reply_error(args, &error)),
    }
}

fn ask(socket: &Path, timeout: Duration) -> Result<Reply, AskError> {
    let mut client = Client::connect(socket)?;
    let peer = client.peer()?;
    let mut reply = ask_twice(&mut client, timeout)?;
    if let Some(status) = &mut reply.status {
        // In another PID namespace its pids are those of other processes.
        if peer.pid.is_some() && status.pid == peer.pid {
            add_proportional_memory(status);
        }
    }
    Ok(reply)
}

/// Requests the status twice, to compute the CPU usage in between.
fn ask_twice(client: &mut Client, timeout: Duration) -> Result<Reply, AskError> {
    let status = Request::new(Command::Status);
    let first = client.ask(&status, Some(timeout))?;
    let workers = first.status.iter().flat_map(|status| &status.workers);
    if workers.filter_map(|worker| worker.cpu_seconds).next().is_none() {
        return Ok(first);
    }
    let begun = Instant::now();
    std::thread::sleep(CPU_INTERVAL);
    match client.ask(&status, Some(timeout)) {
        Ok(mut second) => {
            if let (Some(before), Some(after)) = (&first.status, &mut second.status) {
                add_cpu_percent(before, after, begun.elapsed());
            }
            Ok(second)
        }
        Err(_) => Ok(first),
    }
}

/// Adds the proportional set size of the workers, as far as this user may read it.
fn add_proportional_memory(status: &mut Status) {
    for worker in &mut status.workers {
        worker.pss_bytes = worker.pss_bytes.or_else(|| usage::proportional(worker.pid?));
    }
}

/// Adds the CPU usage of each worker between two replies.
fn add_cpu_percent(before: &Status, after: &mut Status, elapsed: Duration) {
    for worker in &mut after.workers {
        let earlier =
            before.workers.iter().find(|other| (other.slot, other.pid) == (worker.slot, worker.pid));
        let used = earlier.and_then(|earlier| Some(worker.cpu_seconds? - earlier.cpu_seconds?));
        // The server's own clock is better: it may have measured later than it was asked.
        let between = earlier
            .and_then(|earlier| Some(worker.age_seconds? - earlier.age_seconds?))
            .filter(|seconds| *seconds > 0.0)
            .unwrap_or(elapsed.as_secs_f64());
        worker.cpu_percent = used.map(|used| (used / between * 1000.0).max(0.0).round() / 10.0);
    }
}

fn show(reply: &Reply, args: &ServerArgs) -> Result<(Exit, String), Failure> {
    match &reply.status {
        Some(status) if !args.json => Ok((Exit::Done, table::text(status))),
        _ => client::result(reply, args),
    }
}

fn not_running(args: &ServerArgs, why: &str) -> Result<(Exit, String), Failure> {
    client::print_reply(Exit::NotRunning, &Reply::new(Outcome::Refused, why), args)
}

/// The visible processes and addresses of a server that does not answer.
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
    client::print_reply(Exit::Done, &reply, args)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
