//! A socket to a log target that never makes its writer wait.
//!
//! A datagram is sent at once or lost. A message for a stream waits in a bounded queue while the stream is full or being
//! connected. A target that is away is looked for once a second. Each process has its own connection: a stream that a
//! worker shared with its supervisor would mix their messages.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use super::address::{Address, UnixKind};

/// The bytes that wait for a stream at most.
const QUEUE: usize = 256 * 1024;

/// The time between two attempts to reach a target.
const RETRY: Duration = Duration::from_secs(1);

/// The time between two reports of the same kind.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A link to one target.
#[derive(Debug)]
pub struct Link {
    address: Address,
    /// The addresses of the host; empty for a Unix socket.
    resolved: Vec<SocketAddr>,
    state: Mutex<State>,
}

/// A change that belongs into the error log.
#[derive(Debug)]
pub enum Report {
    /// Messages are lost from now on, or wait in the queue of a stream until it is full.
    Loses(String, io::Error),
    /// The target takes messages again; the number of lost ones.
    TakesAgain(String, u64),
}

impl Report {
    /// Whether messages are lost from now on.
    pub fn is_loss(&self) -> bool {
        matches!(self, Report::Loses(..))
    }

    /// Writes it to the log of this process. Not for the targets of that log itself.
    pub fn log(&self) {
        if self.is_loss() { log::error!("{self}") } else { log::warn!("{self}") }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Loses(target, error) => {
                write!(f, "cannot send to {target}: {error}; messages are lost where that lasts")
            }
            Report::TakesAgain(target, lost) => {
                write!(f, "{target} takes messages again; messages lost: {lost}")
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The process that has opened the socket.
    process: u32,
    socket: Option<Open>,
    /// Which of the addresses is used.
    which: usize,
    retry_at: Option<Instant>,
    /// Whole messages for a stream; of the first one `sent` bytes have left.
    queue: Vec<u8>,
    sent: usize,
    lost: u64,
    is_losing: bool,
    /// A flush has reached its limit. The next one waits again once the queue has been empty.
    is_slow: bool,
    /// When a loss was last reported, and its end.
    told: [Option<Instant>; 2],
}

#[derive(Debug)]
enum Open {
    Datagram(Socket),
    Stream { socket: Socket, is_connected: bool },
}

impl Link {
    /// A link to `address`. Looks the host's name up, which may take seconds; nothing else waits.
    ///
    /// # Errors
    /// The host has no address.
    pub fn open(address: Address) -> io::Result<Self> {
        let resolved: Vec<SocketAddr> = match &address {
            Address::Udp(host, port) | Address::Tcp(host, port) => {
                let found = (host.as_str(), *port).to_socket_addrs();
                let found =
                    found.map_err(|error| io::Error::other(format!("no address of {host}: {error}")))?;
                found.collect()
            }
            Address::Unix(..) => Vec::new(),
        };
        if resolved.is_empty() && !matches!(address, Address::Unix(..)) {
            return Err(io::Error::new(ErrorKind::NotFound, format!("no address of {address}")));
        }
        Ok(Self { address, resolved, state: Mutex::default() })
    }

    /// A further link to the same target.
    pub(super) fn beside(&self) -> Self {
        Self { address: self.address.clone(), resolved: self.resolved.clone(), state: Mutex::default() }
    }

    /// Sends a message without a newline at its end.
    #[must_use = "a report belongs into the error log"]
    pub fn send(&self, message: &[u8]) -> Option<Report> {
        // A thread that a fork of the application has not copied may hold the lock for ever.
        if mcsup_core::is_forked_off() {
            return None;
        }
        let mut state = self.state();
        let outcome = self.put(&mut state, message, Instant::now());
        self.note(&mut state, outcome)
    }

    /// Sends messages that wait for a stream.
    #[must_use = "a report belongs into the error log"]
    pub fn drive(&self) -> Option<Report> {
        if mcsup_core::is_forked_off() {
            return None;
        }
        let mut state = self.state();
        if state.queue.is_empty() {
            return None;
        }
        let outcome = self.write_queue(&mut state, Instant::now());
        self.note(&mut state, outcome)
    }

    /// Sends messages that wait for a stream, and waits for that for `limit` at most. For the end of a process, and for
    /// threads that may wait.
    #[must_use = "a report belongs into the error log"]
    pub fn flush(&self, limit: Duration) -> Option<Report> {
        if mcsup_core::is_forked_off() {
            return None;
        }
        let (begun, mut reported) = (Instant::now(), None);
        let mut state = self.state();
        while !state.queue.is_empty() {
            let outcome = self.write_queue(&mut state, Instant::now());
            reported = self.note(&mut state, outcome).or(reported);
            let left = limit.saturating_sub(begun.elapsed());
            // Without a socket the next attempt comes later than any flush ends.
            let State { socket: Some(Open::Stream { socket, .. }), queue, is_slow, .. } = &mut *state else {
                break;
            };
            *is_slow |= left.is_zero();
            if queue.is_empty() || *is_slow {
                break;
            }
            let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Timespec::try_from(left).ok().as_ref());
        }
        state.is_slow &= !state.queue.is_empty();
        reported
    }

    /// Whether messages wait for a stream.
    pub fn has_waiting(&self) -> bool {
        !mcsup_core::is_forked_off() && !self.state().queue.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if state.process != process {
            // What waits there is the parent's to send, and its losses are its own.
            *state = State { process, which: state.which, ..State::default() };
        }
        state
    }

    fn put(&self, state: &mut State, message: &[u8], now: Instant) -> io::Result<()> {
        let opened = self.ensure_open(state, now);
        match &state.socket {
            Some(Open::Datagram(_)) => self.send_datagram(state, message, now),
            None if !self.is_stream() => {
                state.lost += 1;
                opened
            }
            _ => {
                if state.queue.len() + message.len() >= QUEUE {
                    let _ = self.write_queue(state, now);
                }
                if state.queue.len() + message.len() >= QUEUE {
                    state.lost += 1;
                    return Err(ErrorKind::WouldBlock.into());
                }
                // RFC 6587 §3.4.2: a newline ends a message, so none is in it.
                for (at, line) in message.split(|byte| *byte == b'\n').enumerate() {
                    state.queue.extend_from_slice(if at == 0 { b"" } else { b"#012" });
                    state.queue.extend_from_slice(line);
                }
                state.queue.push(b'\n');
                opened.and_then(|()| self.write_queue(state, now))
            }
        }
    }

    fn send_datagram(&self, state: &mut State, message: &[u8], now: Instant) -> io::Result<()> {
        // An error may belong to an earlier datagram, and the socket may be that of an earlier target.
        let mut outcome = Ok(());
        for _ in 0..2 {
            if let Err(error) = self.ensure_open(state, now) {
                outcome = Err(error);
                break;
            }
            let Some(Open::Datagram(socket)) = &state.socket else { break };
            outcome = socket.send(message).map(drop);
            match &outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.close(state),
            }
        }
        state.lost += 1;
        outcome
    }

    /// Writes what the stream takes at once.
    fn write_queue(&self, state: &mut State, now: Instant) -> io::Result<()> {
        self.ensure_open(state, now)?;
        while let Some(Open::Stream { socket, is_connected: is_connected @ false }) = &mut state.socket {
            match is_connected_now(socket) {
                Ok(true) => *is_connected = true,
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.close(state);
                    self.was_refused(state, error, now)?;
                    self.ensure_open(state, now)?;
                }
            }
        }
        let State { socket: Some(Open::Stream { socket, .. }), queue, sent, .. } = state else {
            return Ok(());
        };
        while *sent < queue.len() {
            match (&*socket).write(&queue[*sent..]) {
                Ok(0) => break,
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.close(state);
                    return Err(error);
                }
            }
        }
        // Whole messages that have left are forgotten.
        let left = queue[..*sent].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        queue.drain(..left);
        *sent -= left;
        Ok(())
    }

    /// Ends the connection. The rest of a message that has left in part would be taken for a whole one.
    fn close(&self, state: &mut State) {
        state.socket = None;
        state.which = state.which.wrapping_add(1);
        if std::mem::take(&mut state.sent) > 0 {
            let end = state.queue.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            state.queue.drain(..end);
            state.lost += 1;
        }
    }

    fn ensure_open(&self, state: &mut State, now: Instant) -> io::Result<()> {
        if state.socket.is_some() {
            return Ok(());
        }
        if state.retry_at.is_some_and(|at| now < at) {
            // A stream's messages wait for it.
            return if self.is_stream() { Ok(()) } else { Err(ErrorKind::NotConnected.into()) };
        }
        loop {
            match self.connect(state.which) {
                Ok(open) => {
                    (state.socket, state.retry_at) = (Some(open), None);
                    return Ok(());
                }
                Err(error) => {
                    state.which = state.which.wrapping_add(1);
                    self.was_refused(state, error, now)?;
                }
            }
        }
    }

    /// Goes on with the next address of the host, such as the second one of `localhost`; an error after the last one.
    fn was_refused(&self, state: &mut State, error: io::Error, now: Instant) -> io::Result<()> {
        if state.which % self.resolved.len().max(1) != 0 {
            return Ok(());
        }
        state.retry_at = Some(now + RETRY);
        Err(error)
    }

    /// Whether it is a stream in any case, and messages may wait while there is no connection.
    fn is_stream(&self) -> bool {
        matches!(self.address, Address::Tcp(..) | Address::Unix(_, UnixKind::Stream))
    }

    fn connect(&self, which: usize) -> io::Result<Open> {
        let open = |kind, address: &SockAddr| {
            let socket = Socket::new(address.domain(), kind, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(address) {
                Ok(()) => Ok((socket, true)),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                    Ok((socket, false))
                }
                Err(error) => Err(error),
            }
        };
        let datagram =
            |address: &SockAddr| open(Type::DGRAM, address).map(|(socket, _)| Open::Datagram(socket));
        let stream = |address: &SockAddr| {
            open(Type::STREAM, address).map(|(socket, is_connected)| Open::Stream { socket, is_connected })
        };
        match &self.address {
            Address::Udp(..) => datagram(&self.which_address(which)?),
            Address::Tcp(..) => stream(&self.which_address(which)?),
            Address::Unix(path, kind) => {
                let address = SockAddr::unix(path)?;
                debug_assert_eq!(address.domain(), Domain::UNIX);
                match kind {
                    UnixKind::Datagram => datagram(&address),
                    UnixKind::Stream => stream(&address),
                    UnixKind::Either => match datagram(&address) {
                        Err(error) if is_other_kind(&error) => stream(&address),
                        outcome => outcome,
                    },
                }
            }
        }
    }

    fn which_address(&self, which: usize) -> io::Result<SockAddr> {
        let address = self.resolved.get(which % self.resolved.len().max(1)).copied();
        address.map(SockAddr::from).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Makes the report of an outcome, if one is due.
    fn note(&self, state: &mut State, outcome: io::Result<()>) -> Option<Report> {
        match outcome {
            Err(error) => {
                let begins = !std::mem::replace(&mut state.is_losing, true);
                (begins && is_due(&mut state.told[0])).then(|| Report::Loses(self.address.to_string(), error))
            }
            Ok(()) if !state.queue.is_empty() || state.socket.is_none() => None,
            Ok(()) => {
                state.is_losing = false;
                let tells = state.lost > 0 && is_due(&mut state.told[1]);
                tells.then(|| Report::TakesAgain(self.address.to_string(), std::mem::take(&mut state.lost)))
            }
        }
    }
}

/// Whether a connection has been made; an error if it was refused.
fn is_connected_now(socket: &Socket) -> io::Result<bool> {
    let mut ready = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut ready, Some(&Timespec::default())) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
        Ok(_) => socket.take_error()?.map_or(Ok(true), Err),
        Err(error) => Err(error.into()),
    }
}

/// Whether a Unix socket takes no datagrams.
fn is_other_kind(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error())
}

/// Whether a message of `last` may be logged again; then it counts as logged now.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
