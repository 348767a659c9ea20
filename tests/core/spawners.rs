//! Programs that spawn pools, or have several of them: what they do, and the workers.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use mcsup_core::control::AskError;
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::listener::from_socket;
use mcsup_core::policy::Plan;
use mcsup_core::upgrade::Image;
use mcsup_core::{Error, ErrorKind, Prefork, Supervisor, Worker, WorkerContext, WorkerResult};

use crate::pool::wait_for;
use crate::programs::{self, Console};
use crate::roles::{Answering, IMAGE, read_line};

/// Plays a program to its end.
pub fn play(role: &str, address: &str) -> ExitCode {
    match role {
        "spawner-obeying-its-input" => obeying_its_input(address),
        "spawner-of-two" => of_two(address),
        "spawner-beside-a-loop" => beside_a_loop(address),
        "spawner-after-a-run" => after_a_run(address),
        "spawner-before-others" => before_others(address),
        "spawner-of-a-boot-that-fails" => of_a_boot_that_fails(address),
        "spawner-notifying" => notifying(address),
        _ => panic!("there is no program {role}"),
    }
}

/// Answers a line with its name, and `hold` when the client has sent a second line.
#[derive(Clone, Copy)]
struct Named(&'static str);

impl Worker for Named {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut connection) = context.accept()? {
            if read_line(&mut connection)? == "hold" {
                connection.write_all(b"held\n")?;
                read_line(&mut connection)?;
            }
            connection.write_all(self.0.as_bytes())?;
        }
        Ok(())
    }
}

/// A pool of one such worker, whose reloads do not wait for it to prove itself.
fn named(name: &'static str) -> Prefork<impl Supervisor<Worker = Named>> {
    Prefork::new(move || Named(name)).plan(Plan { soak: Duration::ZERO, ..Plan::default() })
}

fn image() -> Option<Image> {
    std::env::var_os(IMAGE).map(|program| Image {
        program: program.into(),
        arguments: std::env::args_os().collect(),
        directory: "/".into(),
        reexec: None,
    })
}

/// A program that passes each line of its input on as a request, and ends with its input.
#[allow(clippy::exit, reason = "the thread that reads ends the program")]
fn obeying_its_input(address: &str) -> ExitCode {
    let pool = named("it").bind(address).graceful_timeout(Duration::from_secs(60));
    let spawned = pool.quick_timeout(Duration::from_secs(60)).spawn().unwrap();
    log::info!("supervisor {} of program {}", spawned.pid(), std::process::id());
    let handle = spawned.handle();
    std::thread::spawn(move || {
        let mut tickets = Vec::new();
        for line in BufReader::new(std::io::stdin()).lines() {
            match line.unwrap().as_str() {
                "stop" => tickets.push(handle.stop().unwrap()),
                other => panic!("there is no request {other}"),
            }
        }
        std::process::exit(0);
    });
    let ending = spawned.wait();
    log::info!("ended: {:?}, {:?}", ending.outcome(), ending.error().map(ToString::to_string));
    ending.into()
}

/// A program that has spawned two pools, and commands the second one.
fn of_two(address: &str) -> ExitCode {
    let first = named("first").bind("127.0.0.1:0").spawn().unwrap();
    let second = named("second").bind(address).image(image()).spawn().unwrap();
    let commands = programs::command(second.handle());
    let ending = second.wait();
    commands.join().unwrap();
    drop(first);
    ending.into()
}

/// A program with a pool in its own loop, which commands another pool that it has spawned.
fn beside_a_loop(address: &str) -> ExitCode {
    let mut first = named("first").bind("127.0.0.1:0").image(image()).start().unwrap();
    let mut second = named("second").bind(address).image(image()).spawn().unwrap();
    let handle = second.handle();
    let mut console = Console::open();
    loop {
        assert!(first.step().is_none());
        console.answer();
        if let Some(ending) = second.try_wait() {
            console.answer();
            return ending.into();
        }
        programs::wait(&[&first], &console, Some(second.as_fd()));
        console.accept(&handle);
    }
}

/// A program with two pools, one after the other.
fn after_a_run(address: &str) -> ExitCode {
    assert_eq!(named("first").bind(address).image(image()).run().code(), 0);
    named("second").bind(address).image(image()).run().into()
}

/// A program that makes the handle and the listener of a pool before the other pools start.
fn before_others(address: &str) -> ExitCode {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap();
    let mut later = Prefork::new(|| Answering).listener(from_socket(OwnedFd::from(socket)).unwrap());
    let handle = later.handle().unwrap();
    let spawned = Prefork::new(|| Answering).bind("127.0.0.1:0").spawn().unwrap();
    let started = Prefork::new(|| Answering).bind(address).start().unwrap();
    let later = later.start().unwrap();
    drop(handle.status().unwrap());
    drop(later);
    // A worker that was forked a moment ago has a copy of everything until it begins to run.
    wait_for("the end of the handle", || matches!(handle.stop(), Err(AskError::Ended)));
    wait_for("the free port", || TcpListener::bind(port).is_ok());
    drop((spawned, started));
    log::info!("the other pools have nothing of the later one");
    ExitCode::SUCCESS
}

/// A worker whose boot fails with a long reason.
struct Talkative;

impl Worker for Talkative {
    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        Err(Error::new(ErrorKind::Application, "no application")
            .with_detail("\u{1}".repeat(150 << 10))
            .into())
    }

    fn run(&mut self, _: &WorkerContext) -> WorkerResult {
        Err("never booted".into())
    }
}

fn of_a_boot_that_fails(address: &str) -> ExitCode {
    let ending = Prefork::new(|| Talkative).bind(address).spawn().unwrap().wait();
    let error = ending.error().unwrap();
    let length = error.detail().map_or(0, str::len);
    log::info!("ended: {:?}, {error}, {length} bytes of detail", ending.outcome());
    ending.into()
}

/// A program of a service manager.
fn notifying(address: &str) -> ExitCode {
    let manager = ServiceManager::from_environment().unwrap();
    let pool = named("it").bind(address).service_manager(manager.clone());
    let spawned = pool.spawn().unwrap();
    manager.notify("READY=1");
    let commands = programs::command(spawned.handle());
    let ending = spawned.wait();
    commands.join().unwrap();
    ending.into()
}
