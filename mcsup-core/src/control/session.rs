//! One client of the control socket: its unread bytes, its unsent replies, and how far it is.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::protocol::{MAX_REQUEST, Outcome, Reply, Request};
use crate::sys::descriptor;

/// One client, of which at most one request at a time is passed on.
#[derive(Debug)]
pub(super) struct Session {
    stream: UnixStream,
    unread: Vec<u8>,
    pub(super) unsent: Vec<u8>,
    /// A request was passed on, and its reply is still to come.
    awaits_reply: bool,
    state: State,
    /// Whether the program itself has sent it, by a handle.
    is_the_programs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Requests can arrive.
    Open,
    /// No further request can arrive. The session closes after the reply to the last one.
    RequestsEnded,
    /// No further reply is queued. The session closes when the queued ones are sent.
    Closing,
}

/// A [`Session`] as one image of the supervisor passes it to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub(super) fd: RawFd,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    awaits_reply: bool,
    state: State,
    #[serde(default)]
    is_the_programs: bool,
}

impl Session {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            unsent: Vec::new(),
            awaits_reply: false,
            state: State::Open,
            is_the_programs: false,
        }
    }

    /// The session of a client that a handle of the program has sent.
    pub(super) fn of_the_program(stream: UnixStream) -> Self {
        Self { is_the_programs: true, ..Self::new(stream) }
    }

    /// Whether a handle of the program has sent the client.
    pub(super) fn is_the_programs(&self) -> bool {
        self.is_the_programs
    }

    pub(super) fn record(&self) -> SessionRecord {
        SessionRecord {
            fd: self.stream.as_raw_fd(),
            unread: self.unread.clone(),
            unsent: self.unsent.clone(),
            awaits_reply: self.awaits_reply,
            state: self.state,
            is_the_programs: self.is_the_programs,
        }
    }

    /// The recorded session; `None`: its descriptor is not open in this process.
    pub(super) fn adopt(record: SessionRecord) -> Option<Self> {
        let SessionRecord { fd, unread, unsent, awaits_reply, state, is_the_programs } = record;
        let stream = UnixStream::from(descriptor::take_recorded(fd).ok()?);
        Some(Self { stream, unread, unsent, awaits_reply, state, is_the_programs })
    }

    /// The descriptor to poll, and whether for writing; `None`: no event is expected.
    ///
    /// A client that leaves replies unread is not polled for further requests.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let wants_write = !self.unsent.is_empty();
        // After its requests have ended the socket would be readable forever.
        (wants_write || self.has_room()).then(|| (self.stream.as_fd(), wants_write))
    }

    /// Reads a bounded number of bytes, and returns the next request if it can be passed on.
    ///
    /// A request stays unread until the one before it has its reply, so replies come in the order of the requests.
    pub(super) fn receive(&mut self) -> Option<Request> {
        let mut piece = [0; 16 * 1024];
        for _ in 0..4 {
            if !self.has_room() {
                break;
            }
            match (&self.stream).read(&mut piece) {
                Ok(0) => self.state = State::RequestsEnded,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => break,
                // The requests before the error are carried out.
                Err(_) => self.state = State::RequestsEnded,
            }
        }
        self.next_request()
    }

    /// Whether bytes are read: not from a client that leaves replies unread or sends far ahead.
    fn has_room(&self) -> bool {
        self.state == State::Open && self.unsent.is_empty() && self.unread.len() <= MAX_REQUEST
    }

    /// The length of the line that begins at `start` of the unread bytes, if its turn has come.
    fn next_line(&self, start: usize) -> Option<usize> {
        if self.awaits_reply || !self.unsent.is_empty() || self.state == State::Closing {
            return None;
        }
        let unread = &self.unread[start..];
        let whole = unread.iter().position(|byte| *byte == b'\n').map(|newline| newline + 1);
        // The end of the stream also ends a line.
        let is_cut = self.state == State::RequestsEnded || unread.len() > MAX_REQUEST;
        whole.or((is_cut && !unread.is_empty()).then_some(unread.len()))
    }

    /// Whether [`receive`](Self::receive) has work without new bytes.
    pub(super) fn has_line(&self) -> bool {
        self.next_line(0).is_some()
    }

    fn next_request(&mut self) -> Option<Request> {
        let (mut taken, mut request) = (0, None);
        while let Some(length) = self.next_line(taken) {
            let line = &self.unread[taken..taken + length];
            taken += length;
            if length > MAX_REQUEST {
                let why = format!("a request is at most {MAX_REQUEST} bytes");
                self.queue(&Reply::new(Outcome::Mistaken, why));
                self.state = State::Closing;
            } else if !line.trim_ascii().is_empty() {
                match Request::from_line(line) {
                    Ok(next) => {
                        (self.awaits_reply, request) = (true, Some(next));
                    }
                    Err(mistake) => self.queue(&Reply::new(Outcome::Mistaken, mistake.to_string())),
                }
            }
        }
        self.unread.drain(..taken);
        request
    }

    /// Sends the reply to the request that was passed on.
    pub(super) fn reply(&mut self, reply: &Reply) {
        self.awaits_reply = false;
        self.queue(reply);
        if self.is_the_programs {
            // A handle sends one request by each client, and a ticket may be kept for long.
            self.state = State::Closing;
        }
    }

    fn queue(&mut self, reply: &Reply) {
        if self.state != State::Closing {
            self.unsent.extend(reply.to_line());
            self.flush();
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match (&self.stream).write(&self.unsent) {
                Ok(count @ 1..) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => return,
                // The client is gone. The requests that it has sent are carried out.
                _ => {
                    self.unsent.clear();
                    if self.state == State::Open {
                        self.state = State::RequestsEnded;
                    }
                }
            }
        }
    }

    /// Whether the session can be dropped.
    pub(super) fn is_over(&self) -> bool {
        let has_ended = match self.state {
            State::Open => false,
            State::RequestsEnded => self.unread.is_empty() && (!self.awaits_reply || self.has_hung_up()),
            State::Closing => true,
        };
        has_ended && self.unsent.is_empty()
    }

    /// Whether the client has closed its receiving side as well.
    fn has_hung_up(&self) -> bool {
        let mut source = [PollFd::new(&self.stream, PollFlags::empty())];
        let gone = PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut source, Some(&Timespec::default())), Ok(1..))
            && source[0].revents().intersects(gone)
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
