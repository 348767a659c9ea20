//! Programs that have a pool beside something else: a loop of their own, another pool, threads.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mcsup_core::control::{Command, Reply, Request};
use mcsup_core::upgrade::Image;
use mcsup_core::{Children, Config, Handle, Pool, PoolEvent, Prefork, Supervisor, Ticket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::hosts;
use crate::roles::{Answering, CONTROL, IMAGE};

#[path = "../../examples/embed.rs"]
mod example;

/// Plays a program to its end.
pub fn play(role: &str, address: &str) -> ExitCode {
    match role {
        "embedder-with-a-loop" => with_a_loop(address),
        "embedder-with-own-signals" => with_own_signals(address),
        "embedder-with-two-pools" => with_two_pools(address),
        "embedder-with-threads" => with_threads(address),
        "embedder-at-a-taken-port" => at_a_taken_port(address),
        "embedder-of-the-examples" => example::serve(address).unwrap().into(),
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
        wait(&[&pool], &console, None);
        console.accept(&handle);
    }
}

static TERMS: AtomicUsize = AtomicUsize::new(0);

/// A program that handles TERM itself, and stops its pool by a handle.
#[allow(unsafe_code, reason = "the registry's interface")]
fn with_own_signals(address: &str) -> ExitCode {
    let count = || {
        TERMS.fetch_add(1, Ordering::SeqCst);
    };
    // SAFETY: the action is one atomic addition.
    unsafe { signal_hook_registry::register(libc::SIGTERM, count) }.unwrap();
    let before = hosts::state();
    let mut builder = Prefork::new(Observing).bind(address).workers(2).signals(false);
    let handle = builder.handle().unwrap();
    let mut pool = builder.start().unwrap();
    let during = hosts::state();
    let mut console = Console::open();
    let mut stop = None;
    let ending = loop {
        if let Some(ending) = pool.step() {
            break ending;
        }
        console.answer();
        if TERMS.load(Ordering::SeqCst) > 0 && stop.is_none() {
            stop = Some(handle.stop().unwrap());
            continue;
        }
        wait(&[&pool], &console, None);
        console.accept(&handle);
    };
    console.answer();
    let outcome = stop.map(|mut ticket| ticket.try_outcome().unwrap().unwrap().message);
    log::info!("the program has stopped its pool: {outcome:?}");
    // The limit of descriptors is raised meanwhile, and nothing else is changed.
    let is_limit = |line: &&String| !line.starts_with("Max open files");
    assert!(before.iter().filter(is_limit).eq(during.iter().filter(is_limit)), "{before:?} {during:?}");
    drop(pool);
    log_state(&before);
    ending.into()
}

fn log_state(before: &[String]) {
    let after = hosts::state();
    match before == after {
        true => log::info!("its process is what it was"),
        false => log::error!("its process was {before:?} and is {after:?}"),
    }
}

/// A program with two pools in one loop. The second one begins later and ends first.
fn with_two_pools(address: &str) -> ExitCode {
    let before = hosts::state();
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    // It reaps all children of the process.
    config.children = Children::Name;
    let mut first = Prefork::with_config(Observing, config).start().unwrap();
    let second = Prefork::new(Observing).bind("127.0.0.1:0").workers(2);
    let mut second = Some(second.start().unwrap());
    let handle = second.as_mut().unwrap().handle().unwrap();
    let mut console = Console::open();
    let ending = loop {
        if let Some(ending) = second.as_mut().and_then(Pool::step) {
            log::info!("the second pool has ended: {:?}", ending.outcome());
            second = None;
        }
        if let Some(ending) = first.step() {
            break ending;
        }
        console.answer();
        wait(&std::iter::once(&first).chain(&second).collect::<Vec<_>>(), &console, None);
        console.accept(&handle);
    };
    drop(second);
    drop(first);
    log_state(&before);
    ending.into()
}

/// A program that starts threads after its pool: one of them commands it.
fn with_threads(address: &str) -> ExitCode {
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    config.image = std::env::var_os(IMAGE).map(|program| Image {
        program: program.into(),
        arguments: std::env::args_os().collect(),
        directory: "/".into(),
        reexec: None,
    });
    let spawned = Prefork::with_config(Observing, config).spawn().unwrap();
    log::info!("supervisor {} of program {}", spawned.pid(), std::process::id());
    let commands = command(spawned.handle());
    let ending = spawned.wait();
    commands.join().unwrap();
    log::info!("ended: {:?}, {:?}", ending.outcome(), ending.error().map(ToString::to_string));
    ending.into()
}

/// Opens a console in a thread of its own, which ends with the pool.
pub fn command(handle: Handle) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut console = Console::open();
        while !is_readable(handle.as_fd()) || !console.asked.is_empty() {
            let mut sources: Vec<_> = console.sources().chain([handle.as_fd()]).collect();
            let mut sources: Vec<_> =
                sources.drain(..).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            poll(&mut sources, None).unwrap();
            console.accept(&handle);
            console.answer();
        }
    })
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
}

/// A program whose pool cannot start.
fn at_a_taken_port(address: &str) -> ExitCode {
    let _taken = std::net::TcpListener::bind(address).unwrap();
    let error = Prefork::new(Observing).bind(address).spawn().unwrap_err();
    log::info!("not spawned: {:?}: {error}", error.kind());
    ExitCode::SUCCESS
}

/// Waits until a pool, a ticket, the console or something else is ready.
pub fn wait<S: Supervisor>(pools: &[&Pool<S>], console: &Console, other: Option<BorrowedFd<'_>>) {
    let mut sources: Vec<PollFd<'_>> = pools.iter().map(|pool| PollFd::new(*pool, PollFlags::IN)).collect();
    sources.extend(console.sources().chain(other).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
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

    fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
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
