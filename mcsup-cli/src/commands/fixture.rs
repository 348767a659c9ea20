//! A server that does nothing but answer at a control socket, for tests of what asks it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Child;

use mcsup_core::control::{Outcome, Reply, Request, Status};

use crate::args::operator::ServerArgs;

/// Answers for as long as the test runs.
pub(super) struct FakeServer {
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl FakeServer {
    /// `decide` makes each answer; `None` closes the connection.
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

    /// Arguments that mean this server.
    pub(super) fn args(&self) -> ServerArgs {
        ServerArgs { control_socket: Some(self.path.to_str().unwrap().to_owned()), ..ServerArgs::default() }
    }

    /// Its pid file, which nobody has made.
    pub(super) fn pid_file(&self) -> String {
        self.path.with_extension("pid").to_str().unwrap().to_owned()
    }
}

/// A process of its own that listens at a control socket, and says that it is `pid`, or itself.
pub(super) struct FakeProcess {
    pub(super) child: Child,
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

/// Where such a process listens, and who it says that it is.
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

    /// Arguments that mean this server.
    pub(super) fn args(&self) -> ServerArgs {
        ServerArgs { control_socket: Some(self.path.to_str().unwrap().to_owned()), ..ServerArgs::default() }
    }

    /// The signal that has ended it.
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

/// No test, but what the process above does: it answers until a signal ends it.
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
            // Whoever asked may have gone.
            Some(reply) => drop(stream.write_all(&reply.to_line())),
            None => return,
        }
    }
}
