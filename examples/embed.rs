//! A program with a loop of its own: it steps its pool, sees the events, and changes the pool from code.
//!
//! `cargo run --example embed`, then type `status`, `reload`, `scale 3`, `recycle 0` or `stop`. A client, such as
//! `nc 127.0.0.1 7000`, gets a greeting.

#![allow(clippy::print_stdout, reason = "the program shows the events and outcomes")]

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Instant;

use mcsup_core::control::AskError;
use mcsup_core::{
    Ending, Handle, PoolEvent, Prefork, Result, Supervisor, Ticket, Worker, WorkerContext, WorkerResult,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

struct Greeter {
    generation: u64,
}

impl Worker for Greeter {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut client) = context.accept()? {
            // A client that is gone is its own matter.
            let _ = writeln!(client, "process {}, generation {}", std::process::id(), self.generation);
        }
        Ok(())
    }
}

struct Program;

impl Supervisor for Program {
    type Worker = Greeter;

    fn worker(&mut self, generation: u64) -> Greeter {
        Greeter { generation }
    }

    fn observe(&mut self, event: &PoolEvent) {
        println!("{event:?}");
    }
}

/// Runs the pool until `stop` is typed, or a signal ends it.
pub fn serve(address: &str) -> Result<Ending> {
    let mut pool = Prefork::new(Program).bind(address).workers(2);
    let handle = pool.handle()?;
    let mut pool = pool.start()?;
    let mut tickets: Vec<Ticket> = Vec::new();
    let mut typed = Some(Vec::new());
    loop {
        if let Some(ending) = pool.step() {
            return Ok(ending);
        }
        tickets.retain_mut(|ticket| match ticket.try_outcome() {
            None => true,
            Some(outcome) => {
                println!("{}", outcome.map_or_else(|error| error.to_string(), |reply| reply.message));
                false
            }
        });
        let stdin = std::io::stdin();
        let mut sources = vec![PollFd::new(&pool, PollFlags::IN)];
        sources.extend(tickets.iter().map(|ticket| PollFd::new(ticket, PollFlags::IN)));
        if typed.is_some() {
            sources.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        let left = pool.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // An interrupted wait is followed by one step more.
        let _ = poll(&mut sources, timeout.as_ref());
        let is_typed = typed.is_some() && sources.pop().is_some_and(|stdin| !stdin.revents().is_empty());
        if let Some(bytes) = typed.as_mut().filter(|_| is_typed) {
            let mut piece = [0; 1024];
            match rustix::io::read(&stdin, &mut piece) {
                Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
                // Nothing more is typed, and the pool serves on.
                _ => typed = None,
            }
        }
        for line in typed.iter_mut().flat_map(take_lines) {
            match request(&handle, &line) {
                Some(Ok(ticket)) => tickets.push(ticket),
                Some(Err(error)) => println!("{error}"),
                None => println!("status, reload, scale N, recycle SLOT or stop?"),
            }
        }
    }
}

/// The request that a line names; its outcome comes later.
fn request(handle: &Handle, line: &str) -> Option<std::result::Result<Ticket, AskError>> {
    let mut words = line.split_whitespace();
    let (command, number) = (words.next()?, words.next().and_then(|number| number.parse().ok()));
    Some(match (command, number) {
        ("status", None) => handle.status(),
        ("reload", None) => handle.reload(),
        ("scale", Some(workers)) => handle.scale(workers),
        ("recycle", Some(slot)) => handle.recycle(slot),
        ("stop", None) => handle.stop(),
        _ => return None,
    })
}

/// Takes the complete lines out of `bytes`.
fn take_lines(bytes: &mut Vec<u8>) -> Vec<String> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let lines: Vec<u8> = bytes.drain(..end).collect();
    String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
}

#[allow(dead_code, reason = "the test of this example calls `serve`")]
fn main() -> Result<Ending> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    serve(&address)
}
