//! Programs that have a pool beside something else: a loop of their own.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::Instant;

use mcsup_core::control::{Command, Reply, Request};
use mcsup_core::{Handle, Pool, PoolEvent, Prefork, Supervisor, Ticket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::roles::{Answering, CONTROL};

/// Plays a program to its end.
pub fn play(role: &str, address: &str) -> ExitCode {
    match role {
        "embedder-with-a-loop" => with_a_loop(address),
        _ => panic!("there is no program {role}"),
    }
}

/// Logs the events of its pool.
pub struct Observing;

impl Supervisor for Observing {
    type Worker = Answering;

    fn worker(&mut self, _: u64) -> Answering {
        Answering
    }

    fn observe(&mut self, event: &PoolEvent) {
        log::info!("observed {event:?}");
    }
}

/// A program whose one loop serves its own socket and steps the pool.
fn with_a_loop(address: &str) -> ExitCode {
    let mut builder = Prefork::new(Observing).bind(address).workers(2);
    let handle = builder.handle().unwrap();
    let mut pool = builder.start().unwrap();
    let mut console = Console::open();
    loop {
        if let Some(ending) = pool.step() {
            console.answer();
            log::info!("a further step: {:?}", pool.step().map(|ending| ending.outcome()));
            return ending.into();
        }
        console.answer();
        wait(&[&pool], &console);
        console.accept(&handle);
    }
}

/// Waits until a pool, a ticket or the console is ready.
pub fn wait<S: Supervisor>(pools: &[&Pool<S>], console: &Console) {
    let mut sources: Vec<PollFd<'_>> = pools.iter().map(|pool| PollFd::new(*pool, PollFlags::IN)).collect();
    sources.extend(console.sources().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let deadline = pools.iter().filter_map(|pool| pool.deadline()).min();
    let patience = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = patience.map(|patience| Timespec::try_from(patience).unwrap());
    match poll(&mut sources, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("{error}"),
    }
}

/// The program's own socket: each client sends a request and gets the outcome of its ticket.
pub struct Console {
    socket: UnixListener,
    asked: Vec<(UnixStream, Ticket)>,
}

impl Console {
    pub fn open() -> Self {
        let socket = UnixListener::bind(std::env::var_os(CONTROL).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, asked: Vec::new() }
    }

    fn sources(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        std::iter::once(self.socket.as_fd()).chain(self.asked.iter().map(|(_, ticket)| ticket.as_fd()))
    }

    /// Passes the requests that have arrived to the pool.
    pub fn accept(&mut self, handle: &Handle) {
        while let Ok((client, _)) = self.socket.accept() {
            client.set_nonblocking(false).unwrap();
            let mut line = Vec::new();
            BufReader::new(&client).read_until(b'\n', &mut line).unwrap();
            let ticket = handle.request(&Request::from_line(&line).unwrap()).unwrap();
            self.asked.push((client, ticket));
        }
    }

    /// Sends the outcomes that are there.
    pub fn answer(&mut self) {
        self.asked.retain_mut(|(client, ticket)| match ticket.try_outcome() {
            None => true,
            Some(outcome) => {
                client.write_all(&outcome.unwrap().to_line()).unwrap();
                false
            }
        });
    }
}

/// A client of a [`Console`].
pub fn ask(path: &std::path::Path, command: Command) -> Reply {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    stream.write_all(&Request::new(command).to_line()).unwrap();
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
    Reply::from_line(&line).unwrap()
}
