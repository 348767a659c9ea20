//! A client of the control socket with a bounded wait for the reply.

use std::fmt;
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::protocol::{Mistake, Reply, Request};
use crate::clock;
use crate::listener::unix;
use crate::sys::credentials;

/// The longest wait for a server whose queue is full.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The interval between attempts.
const CONNECT_AGAIN: Duration = Duration::from_millis(10);

/// The longest reply, in bytes.
const MAX_REPLY: usize = 16 << 20;

/// The reason why there is no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum AskError {
    /// No server listens there: no such socket, or a dead server's.
    NoServer {
        /// The socket's path.
        path: PathBuf,
    },
    /// This user has no permission.
    Permission {
        /// The socket's path.
        path: PathBuf,
    },
    /// The connection ended before the reply: the supervisor has ended.
    Ended,
    /// No reply in time. The server still carries out a request that was sent.
    TimedOut,
    /// The reply is invalid.
    NotUnderstood(Mistake),
    /// A system call failed unexpectedly.
    System(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NoServer { path } => write!(f, "no server listens at {}", path.display()),
            AskError::Permission { path } => write!(f, "no permission to connect to {}", path.display()),
            AskError::Ended => f.write_str("the server ended before it answered"),
            AskError::TimedOut => f.write_str("no answer in time"),
            AskError::NotUnderstood(mistake) => write!(f, "the answer is not understood: {mistake}"),
            AskError::System(error) => write!(f, "the control socket failed: {error}"),
        }
    }
}

impl std::error::Error for AskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AskError::NotUnderstood(mistake) => Some(mistake),
            AskError::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            IoKind::BrokenPipe | IoKind::ConnectionReset => AskError::Ended,
            IoKind::TimedOut => AskError::TimedOut,
            _ => AskError::System(error),
        }
    }
}

/// The process that listens at a control socket, according to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user when it began to listen.
    pub uid: u32,
    /// `None`: it is in another PID namespace, or the system does not report it.
    pub pid: Option<i32>,
}

/// A connection to a server's control socket.
#[derive(Debug)]
pub struct Client {
    /// `None` after an error: a later line could be the reply to an earlier request.
    stream: Option<UnixStream>,
    received: Received,
}

impl Client {
    /// Connects to the server that listens at `path`. Waits some seconds while its queue is full.
    ///
    /// # Errors
    /// [`AskError::NoServer`], [`AskError::Permission`], [`AskError::TimedOut`] and [`AskError::System`].
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let deadline = clock::now() + CONNECT_PATIENCE;
        loop {
            match unix::try_to_connect(path) {
                Ok(stream) => return Ok(Self { stream: Some(stream), received: Received::default() }),
                // No event signals room in the queue of a Unix socket.
                Err(error) if error.kind() == IoKind::WouldBlock && clock::now() < deadline => {
                    std::thread::sleep(CONNECT_AGAIN);
                }
                Err(error) => {
                    let path = path.to_owned();
                    return Err(match error.kind() {
                        IoKind::NotFound | IoKind::ConnectionRefused => AskError::NoServer { path },
                        IoKind::PermissionDenied => AskError::Permission { path },
                        IoKind::WouldBlock => AskError::TimedOut,
                        _ => AskError::System(error),
                    });
                }
            }
        }
    }

    /// The process that listens there.
    ///
    /// # Errors
    /// [`AskError::Ended`] after an error, and [`AskError::System`].
    pub fn peer(&self) -> Result<Peer, AskError> {
        let stream = self.stream.as_ref().ok_or(AskError::Ended)?;
        let credentials::Peer { uid, pid } = credentials::peer(stream.as_fd()).map_err(AskError::System)?;
        Ok(Peer { uid, pid })
    }

    /// Sends a request and waits for the reply, `timeout` at most (`None`: without a limit). An error closes
    /// the connection.
    ///
    /// # Errors
    /// All but [`AskError::NoServer`] and [`AskError::Permission`].
    pub fn ask(&mut self, request: &Request, timeout: Option<Duration>) -> Result<Reply, AskError> {
        let stream = self.stream.take().ok_or(AskError::Ended)?;
        let deadline = timeout.map(|timeout| clock::now().saturating_add(timeout));
        match send(&stream, &request.to_line(), deadline) {
            // A server that refuses a client sends the reason before it closes.
            Ok(()) | Err(AskError::Ended) => {}
            Err(error) => return Err(error),
        }
        let reply = self.received.reply(&stream, deadline)?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

/// The bytes that have arrived beyond the last reply.
#[derive(Debug, Default)]
pub(super) struct Received(Vec<u8>);

impl Received {
    /// Receives the next reply, until `deadline`.
    pub(super) fn reply(
        &mut self,
        stream: &UnixStream,
        deadline: Option<Duration>,
    ) -> Result<Reply, AskError> {
        let line = self.line(stream, deadline)?;
        Reply::from_line(&line).map_err(AskError::NotUnderstood)
    }

    fn line(&mut self, mut stream: &UnixStream, deadline: Option<Duration>) -> Result<Vec<u8>, AskError> {
        let mut piece = [0; 16 * 1024];
        let mut searched = 0;
        loop {
            let end = self.0[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = self.0.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.0, rest));
            }
            searched = self.0.len();
            if searched > MAX_REPLY {
                return Err(AskError::System(io::Error::other("the answer has no end")));
            }
            match stream.read(&mut piece) {
                Ok(0) => return Err(AskError::Ended),
                Ok(count) => self.0.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == IoKind::WouldBlock => wait(stream, PollFlags::IN, deadline)?,
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn send(
    mut stream: &UnixStream,
    mut bytes: &[u8],
    deadline: Option<Duration>,
) -> Result<(), AskError> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == IoKind::WouldBlock => wait(stream, PollFlags::OUT, deadline)?,
            Err(error) if error.kind() == IoKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until `stream` is readable or writable.
fn wait(stream: &UnixStream, what: PollFlags, deadline: Option<Duration>) -> Result<(), AskError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_sub(clock::now()));
        let timeout = left.map(clock::wait_of);
        match poll(&mut [PollFd::new(stream, what)], timeout.as_ref()) {
            Ok(0) if deadline.is_some_and(|deadline| clock::now() >= deadline) => {
                return Err(AskError::TimedOut);
            }
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(AskError::System(error.into())),
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
