//! A pool as its test sees it: from outside.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mcsup_core::host::processes;
use rustix::process::{Pid, Signal, kill_process};

use crate::roles::{ADDRESS, ROLE};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running pool.
pub struct Pool {
    supervisor: Child,
    pub address: SocketAddr,
    log: tempfile::NamedTempFile,
}

impl Pool {
    /// Starts this program in a role, on a free port.
    pub fn start(role: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::start_at(role, &address.to_string(), address, Stdio::null())
    }

    /// Starts it with further variables in its environment.
    pub fn start_with(role: &str, variables: &[(&str, &Path)]) -> Self {
        Self::start_changed(role, |command| {
            command.envs(variables.iter().copied());
        })
    }

    /// Starts it by a command that is changed before.
    pub fn start_changed(role: &str, change: impl FnOnce(&mut Command)) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(role, &address.to_string());
        change(&mut command);
        Self::spawn(command, address)
    }

    /// Starts it with a listener as its standard input.
    pub fn start_with_listener(role: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self::start_at(role, "fd://0", address, OwnedFd::from(listener).into())
    }

    fn start_at(role: &str, bind: &str, address: SocketAddr, stdin: Stdio) -> Self {
        let mut command = command(role, bind);
        command.stdin(stdin);
        Self::spawn(command, address)
    }

    /// Starts it at `addresses`, which are separated by spaces.
    pub fn start_on(role: &str, addresses: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(role, addresses);
        change(&mut command);
        Self::spawn(command, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts an example of the crate. Its log is empty: it has no logger.
    pub fn start_example(name: &str, argument: &str) -> Self {
        // target/debug/deps/core-… and target/debug/examples/….
        let program = std::env::current_exe().unwrap();
        let program = program.ancestors().nth(2).unwrap().join("examples").join(name);
        assert!(program.exists(), "cargo build -p mcsup-core --examples makes {}", program.display());
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null());
        Self::spawn(command, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn spawn(mut command: Command, address: SocketAddr) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let supervisor = command.stderr(log.reopen().unwrap()).spawn().unwrap();
        Self { supervisor, address, log }
    }

    /// Its standard input, if that is a pipe.
    pub fn take_stdin(&mut self) -> std::process::ChildStdin {
        self.supervisor.stdin.take().unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.supervisor.id().try_into().unwrap()
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        File::open(self.log.path()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until `text` is in the log `count` times.
    pub fn wait_log(&self, text: &str, count: usize) {
        wait_for(&format!("{text:?} in the log"), || self.log().matches(text).count() >= count);
    }

    pub fn wait_ready(&self, workers: usize) {
        self.wait_log("is ready after", workers);
    }

    pub fn workers(&self) -> Vec<i32> {
        processes::children_of(self.pid())
    }

    /// Sends a line and returns the answer.
    pub fn ask(&self, question: &str) -> String {
        let mut stream = self.connect();
        writeln!(stream, "{question}").unwrap();
        read_all(&mut stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the supervisor's end.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the log:\n{}", self.log());
        }
        // Its workers go with it.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn command(role: &str, bind: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role).env(ADDRESS, bind).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

pub fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether a process no longer runs; one that waits to be reaped by a stranger counts as gone.
pub fn is_gone(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(_) => true,
    }
}

pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    wait_within(PATIENCE, what, condition);
}

pub fn wait_within(patience: Duration, what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "waited too long for {what}");
        std::thread::yield_now();
    }
}
