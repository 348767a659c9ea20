//! A supervisor's loop with only a control socket, for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::protocol::{Command, Outcome, Reply, Request};
use super::server::{ClientId, Server};
use super::status::Status;
use crate::clock;

/// A thread that answers. It ends when this is dropped.
pub(super) struct FakeSupervisor {
    thread: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    pub(super) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl FakeSupervisor {
    /// `decide` returns replies to a request: one, several, or none.
    pub(super) fn start(
        mut decide: impl FnMut(ClientId, &Request) -> Vec<(ClientId, Reply)> + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.ctl");
        let mut server = Server::open(&path).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let asked_to = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while !asked_to.load(Ordering::Relaxed) {
                turn(&mut server, Duration::from_millis(5), &mut decide);
            }
            server.finish();
        });
        Self { thread: Some(thread), ended, path, _directory: directory }
    }
}

impl Drop for FakeSupervisor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || result.is_none_or(|result| result.is_ok()));
    }
}

/// Runs one turn of the loop.
pub(super) fn turn(
    server: &mut Server,
    patience: Duration,
    decide: &mut impl FnMut(ClientId, &Request) -> Vec<(ClientId, Reply)>,
) {
    wait(server, patience);
    for (client, request) in server.receive() {
        for (client, reply) in decide(client, &request) {
            server.answer(client, &reply);
        }
    }
}

/// Waits as a supervisor does; returns whether anything was ready.
pub(super) fn wait(server: &Server, patience: Duration) -> bool {
    let patience =
        server.deadline().map_or(patience, |until| patience.min(until.saturating_sub(clock::now())));
    let mut sources: Vec<PollFd<'_>> = server
        .descriptors()
        .map(|(fd, wants_write)| {
            PollFd::from_borrowed_fd(fd, if wants_write { PollFlags::OUT } else { PollFlags::IN })
        })
        .collect();
    let timeout = clock::wait_of(patience);
    poll(&mut sources, Some(&timeout)).unwrap() > 0
}

/// Carries out every request.
pub(super) fn obey(client: ClientId, request: &Request) -> Vec<(ClientId, Reply)> {
    let outcome = if request.wait { Outcome::Done } else { Outcome::Begun };
    let reply = Reply::new(outcome, format!("{:?}", request.command));
    vec![(
        client,
        match request.command {
            Command::Status => reply.with_status(Status { pid: Some(1), ..Status::default() }),
            _ => reply,
        },
    )]
}

/// A socket path in a directory that is removed with the first value.
pub(super) fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = Path::new(directory.path()).join("app.ctl");
    (directory, path)
}
