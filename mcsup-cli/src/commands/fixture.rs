//! A server that does nothing but answer at a control socket, for tests of what asks it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use mcsup_core::control::{Reply, Request};

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

fn converse(mut stream: &UnixStream, decide: &mut impl FnMut(Request) -> Option<Reply>) {
    for line in BufReader::new(stream).split(b'\n') {
        match decide(Request::from_line(&line.unwrap()).unwrap()) {
            // Whoever asked may have gone.
            Some(reply) => drop(stream.write_all(&reply.to_line())),
            None => return,
        }
    }
}
