//! What a worker is handed by its supervisor: the listeners, what is expected of it, and a place for signs of life.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, ErrorKind, Result};
use crate::link::lifeline::{Duty, Phase};
use crate::link::scoreboard::Seat;
use crate::listener::open::OpenSet;
use crate::listener::{Connection, Listener};
use crate::sys::descriptor;

/// A worker's view of its supervisor.
#[derive(Debug)]
pub struct WorkerContext {
    slot: usize,
    generation: u64,
    listeners: Arc<OpenSet>,
    duty: Arc<Duty>,
    seat: Seat,
}

impl WorkerContext {
    pub(crate) fn new(
        slot: usize,
        generation: u64,
        listeners: Arc<OpenSet>,
        duty: Arc<Duty>,
        seat: Seat,
    ) -> Self {
        Self { slot, generation, listeners, duty, seat }
    }

    /// From now on a dead supervisor means to finish, not to give up.
    pub(crate) fn booted(&self) {
        self.beat();
        self.duty.booted();
    }

    /// The worker's place in the pool, from 0.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The version of code and settings that it belongs to, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The listeners, non-blocking, shared with all other workers.
    pub fn listeners(&self) -> &[Box<dyn Listener>] {
        &self.listeners
    }

    /// What is expected of the worker now.
    pub fn phase(&self) -> Phase {
        self.duty.phase()
    }

    /// Becomes readable when [`phase`](Self::phase) or [`log_epoch`](Self::log_epoch) may have changed.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.duty.wake_fd()
    }

    /// Makes [`wake_fd`](Self::wake_fd) unreadable until the next change. Call it before looking.
    pub fn acknowledge(&self) {
        self.duty.acknowledge();
    }

    /// Changes whenever log files should be opened anew.
    pub fn log_epoch(&self) -> u32 {
        self.duty.log_epoch()
    }

    /// Shows that the worker moves. Costs a clock read and a store; due more often than the liveness timeout.
    pub fn beat(&self) {
        self.seat.beat();
    }

    /// A request (or whatever the worker's unit of work is) begins.
    pub fn request_began(&self) {
        self.seat.request_began();
    }

    /// It has ended.
    pub fn request_ended(&self) {
        self.seat.request_ended();
    }

    /// How many connections are open.
    pub fn connections(&self, open: usize) {
        self.seat.connections(open);
    }

    /// What a process that the worker's own code forks has to do: let go of the listeners, so that the port does not
    /// stay taken by it. Harmless in such a child alone: to be called there, and never in the worker.
    pub fn let_go_in_child(&self) -> impl Fn() + Send + Sync + use<> {
        let listeners = Arc::clone(&self.listeners);
        move || {
            for listener in listeners.iter() {
                let _ = descriptor::let_go(listener.as_fd());
            }
        }
    }

    /// Lets go of the listeners: this worker accepts no more. What was queued stays for whoever else holds them.
    pub fn close_listeners(&self) {
        for listener in self.listeners.iter() {
            let _ = descriptor::let_go(listener.as_fd());
        }
    }

    /// Waits for a connection; `None`: the worker is to finish and return.
    ///
    /// While it waits it shows signs of life. In [`Phase::Draining`] what is queued is still handed out.
    ///
    /// # Errors
    /// What poll(2) or accept(2) say, other than that a client has gone already.
    pub fn accept(&self) -> Result<Option<Connection>> {
        loop {
            self.beat();
            match self.phase() {
                Phase::Serving => {}
                Phase::Retiring | Phase::Quitting => return Ok(None),
                Phase::Draining => return self.try_accept(),
            }
            if let Some(connection) = self.try_accept()? {
                return Ok(Some(connection));
            }
            self.wait()?;
        }
    }

    fn try_accept(&self) -> Result<Option<Connection>> {
        for listener in self.listeners.iter() {
            match listener.accept() {
                Ok(connection) => {
                    // BSD sockets inherit the listener's non-blocking mode.
                    connection.set_nonblocking(false)?;
                    return Ok(Some(connection));
                }
                Err(error) if is_nobody(&error) => {}
                // The listener was let go of because the supervisor is dead.
                Err(_) if self.phase() > Phase::Serving => {}
                Err(error) => {
                    let step = format!("accept on {}", listener.local());
                    return Err(Error::system(step, error).of_kind(ErrorKind::Worker));
                }
            }
        }
        Ok(None)
    }

    /// Waits for a connection or a change, a second at most, so that beats go on.
    fn wait(&self) -> Result<()> {
        let wake = self.wake_fd();
        let mut sources = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        for listener in self.listeners.iter() {
            sources.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
        }
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut sources, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::system("wait for a connection", error)),
        }
        self.acknowledge();
        Ok(())
    }
}

/// No connection there, or one whose client has gone already.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}
