//! Fake servers that only answer at a control socket, for tests of its clients.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Child;

use mcsup_core::control::{Outcome, Reply, Request, Status};

use crate::args::operator::ServerArgs;

/// A server in a thread, which answers until the test ends.
pub(super) struct FakeServer {
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl FakeServer {
    /// Calls `decide` for each reply; `None` closes the connection.
    pub(super) fn start(mut decide: impl FnMut(Request) -> Option<Reply> + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.ctl");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                converse(&stream.unwrap(), &mut decide);
            }
        });
        Self { path, _directory: directory }
    }

    /// Arguments that select this server.
    pub(super) fn args(&self) -> ServerArgs {
        ServerArgs { control_socket: Some(self.path.to_str().unwrap().to_owned()), ..ServerArgs::default() }
    }

    /// The path of its pid file, which does not exist.
    pub(super) fn pid_file(&self) -> String {
        self.path.with_extension("pid").to_str().unwrap().to_owned()
    }
}

/// A server in its own process, which claims a pid.
pub(super) struct FakeProcess {
    pub(super) child: Child,
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Variables with the path of the socket and the claimed pid.
const LISTEN: &str = "MCSUP_TEST_LISTEN";
const CLAIM: &str = "MCSUP_TEST_CLAIM";

impl FakeProcess {
    pub(super) fn start(claim: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.ctl");
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "commands::fixture::a_process_that_listens"]).env(LISTEN, &path);
        command.stdout(std::process::Stdio::null());
        if let Some(claim) = claim {
            command.env(CLAIM, claim.to_string());
        }
        let child = command.spawn().unwrap();
        while UnixStream::connect(&path).is_err() {
            std::thread::yield_now();
        }
        Self { child, path, _directory: directory }
    }

    /// Arguments that select this server.
    pub(super) fn args(&self) -> ServerArgs {
        ServerArgs { control_socket: Some(self.path.to_str().unwrap().to_owned()), ..ServerArgs::default() }
    }

    /// The signal that ended it.
    pub(super) fn signal(&mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.child.wait().unwrap())
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The code of [`FakeProcess`]: answers until a signal ends the process.
#[test]
fn a_process_that_listens() {
    let Some(path) = std::env::var_os(LISTEN) else { return };
    let claim = std::env::var(CLAIM).ok().and_then(|pid| pid.parse().ok()).unwrap_or_else(std::process::id);
    let status = Status { pid: i32::try_from(claim).ok(), ..Status::default() };
    let mut answer = |_| Some(Reply::new(Outcome::Done, "it sleeps").with_status(status.clone()));
    for stream in UnixListener::bind(path).unwrap().incoming() {
        converse(&stream.unwrap(), &mut answer);
    }
}

fn converse(mut stream: &UnixStream, decide: &mut impl FnMut(Request) -> Option<Reply>) {
    for line in BufReader::new(stream).split(b'\n') {
        match decide(Request::from_line(&line.unwrap()).unwrap()) {
            // The client may have gone.
            Some(reply) => drop(stream.write_all(&reply.to_line())),
            None => return,
        }
    }
}
