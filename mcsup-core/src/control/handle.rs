//! Requests of the program that has the pool: a handle, and a ticket for each request.
//!
//! A request is a new socketpair. One end goes to the supervisor, which serves it as it serves a client of the
//! control socket. The other end is the ticket. So both live on when the supervisor's image is replaced.

use std::io::ErrorKind as IoKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::SocketType;

use super::client::{AskError, Received, send};
use super::handle_end::HandleEnd;
use super::protocol::{Command, Reply, Request};
use crate::clock;
use crate::error::{Error, Result};
use crate::link::datagram;
use crate::sys::unshared::{Marks, Withheld};

/// Room for a few hundred requests that the supervisor has not taken yet, in bytes.
const ROOM: usize = 256 * 1024;

/// A program's handle on its pool, from [`Prefork::handle`](crate::Prefork::handle).
///
/// Each method sends one request, and never waits. Its [`Ticket`] resolves to the outcome. Requests and outcomes are
/// those of the control socket (see `docs/CONTROL.md`), and a pool with handles needs no control socket.
///
/// A clone is a handle on the same pool, also in another thread or in a process that the program forks. In workers and
/// molds it is closed: they have no right to command their supervisor.
///
/// # Errors
/// Every method returns [`AskError::Ended`] if the pool has ended, and [`AskError::System`] if no descriptor is free or
/// the supervisor has not taken the last few hundred requests.
#[derive(Debug, Clone)]
pub struct Handle {
    socket: Arc<Withheld>,
}

/// The outcome of one request, when it is there.
///
/// Dropping it does not take the request back.
#[derive(Debug)]
pub struct Ticket {
    /// Keeps the stream from workers. Dropped before the stream is.
    _withheld: Marks,
    stream: UnixStream,
    received: Received,
    has_resolved: bool,
}

/// A handle, and its end in the supervisor.
pub(crate) fn pair() -> Result<(Handle, HandleEnd)> {
    let pair = datagram::pair(SocketType::STREAM, ROOM);
    let (ours, theirs) = pair.map_err(|error| Error::system("make a handle", error))?;
    Ok((Handle { socket: Arc::new(Withheld::from(ours)) }, HandleEnd::from(theirs).withheld()))
}

impl Handle {
    /// The status of the pool; the reply has it in [`Reply::status`].
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn status(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Status))
    }

    /// Boots a new generation, and retires the old one when it is ready.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn reload(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Reload))
    }

    /// Changes the number of workers.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn scale(&self, workers: usize) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Scale { workers }))
    }

    /// Replaces the worker in `slot`, with its successor ready first.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn recycle(&self, slot: usize) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Recycle { slot }))
    }

    /// Replaces the image of the supervisor ([`Config::image`](crate::Config::image)).
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn upgrade(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Upgrade))
    }

    /// Opens log files again.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn reopen_logs(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::ReopenLogs))
    }

    /// Ends the pool: workers finish their requests. A second stop is quick, as [`stop_now`](Self::stop_now).
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn stop(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Stop { quick: false }))
    }

    /// Ends the pool: workers abort their requests.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn stop_now(&self) -> std::result::Result<Ticket, AskError> {
        self.request(&Request::new(Command::Stop { quick: true }))
    }

    /// Sends any request.
    #[allow(clippy::missing_errors_doc, reason = "the type lists them")]
    pub fn request(&self, request: &Request) -> std::result::Result<Ticket, AskError> {
        let line = request.to_line();
        let (ours, theirs) =
            datagram::pair(SocketType::STREAM, line.len().max(ROOM)).map_err(AskError::System)?;
        let ticket = Ticket::new(ours);
        // The socket is new, so the line fits.
        send(&ticket.stream, &line, Some(clock::now()))?;
        self.give(&theirs)?;
        Ok(ticket)
    }

    /// Sends a client's socket to the supervisor.
    fn give(&self, client: &OwnedFd) -> std::result::Result<(), AskError> {
        loop {
            match datagram::send(&*self.socket, &[0], &[client.as_fd()]) {
                Ok(()) => return Ok(()),
                Err(error) => match error.kind() {
                    IoKind::Interrupted => {}
                    IoKind::BrokenPipe | IoKind::ConnectionReset | IoKind::NotConnected => {
                        return Err(AskError::Ended);
                    }
                    // In a worker the number refers to /dev/null.
                    _ if error.raw_os_error() == Some(libc::ENOTSOCK) => return Err(AskError::Ended),
                    _ => return Err(AskError::System(error)),
                },
            }
        }
    }
}

impl AsFd for Handle {
    /// Readable once the pool has ended. Its bytes belong to the library.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Ticket {
    fn new(stream: OwnedFd) -> Self {
        Self {
            _withheld: Marks::withholding([stream.as_raw_fd()]),
            stream: UnixStream::from(stream),
            received: Received::default(),
            has_resolved: false,
        }
    }

    /// The outcome, if it is there. Never waits.
    ///
    /// It is there once: a later call returns [`AskError::Ended`].
    pub fn try_outcome(&mut self) -> Option<std::result::Result<Reply, AskError>> {
        match self.wait(Some(Duration::ZERO)) {
            Err(AskError::TimedOut) => None,
            outcome => Some(outcome),
        }
    }

    /// Waits for the outcome, `timeout` at most (`None`: without a limit).
    ///
    /// A program that steps the pool itself ([`Pool::step`](crate::Pool::step)) must not wait here: the outcome comes
    /// from a later step.
    ///
    /// # Errors
    /// [`AskError::TimedOut`]: a later call may return the outcome. Otherwise [`AskError::Ended`],
    /// [`AskError::NotUnderstood`] or [`AskError::System`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> std::result::Result<Reply, AskError> {
        if self.has_resolved {
            return Err(AskError::Ended);
        }
        let deadline = timeout.map(|timeout| clock::now().saturating_add(timeout));
        let outcome = self.received.reply(&self.stream, deadline);
        self.has_resolved = !matches!(outcome, Err(AskError::TimedOut));
        outcome
    }
}

impl AsFd for Ticket {
    /// Readable when the outcome is there, at the latest when the pool has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Ticket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
