//! The two ends of the socketpair between a supervisor and a worker or a mold.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::message::{HEAD, MAX_PAYLOAD, Order, Report, announced, frame, unframe};
use crate::sys::descriptor;

/// A new pair. Both ends are close-on-exec: no program that a worker starts holds a lifeline.
pub(crate) fn pair() -> io::Result<(SupervisorEnd, WorkerEnd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((
        SupervisorEnd { stream: ours, received: Vec::new(), unsent: Vec::new(), has_ended: false },
        WorkerEnd(Arc::new(theirs)),
    ))
}

/// The supervisor's end: never blocks. Held by nobody else, so that its closing says that the supervisor is gone.
#[derive(Debug)]
pub(crate) struct SupervisorEnd {
    stream: UnixStream,
    received: Vec<u8>,
    /// The rest of a long order, for which the socket had no room: the next one must not end up in the middle of it.
    unsent: Vec<u8>,
    /// Nobody has the other end any more.
    has_ended: bool,
}

/// An end that outlives its supervisor's image: with the pieces of messages that are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    pub(crate) fd: RawFd,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

impl SupervisorEnd {
    /// What the next image needs.
    pub(crate) fn describe(&self) -> EndRecord {
        EndRecord {
            fd: self.stream.as_raw_fd(),
            received: self.received.clone(),
            unsent: self.unsent.clone(),
        }
    }

    /// The end that was described, in the process that has inherited its descriptor.
    pub(crate) fn adopt(record: EndRecord) -> io::Result<Self> {
        let EndRecord { fd, received, unsent } = record;
        Ok(Self {
            stream: UnixStream::from(descriptor::take_inherited(fd)?),
            received,
            unsent,
            has_ended: false,
        })
    }

    /// Says something. An error where the worker does not listen (stopped, gone): its deadline will deal with it.
    pub(crate) fn say(&mut self, order: Order) -> io::Result<()> {
        if self.unsent.len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsent.append(&mut frame(order));
        self.send()
    }

    /// Sends what the socket takes. The rest goes out before the next order, or when the worker is next listened to.
    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Everything that the worker has said by now. Garbage ends the conversation, never the supervisor.
    pub(crate) fn hear(&mut self) -> Vec<Report> {
        // Where it fails the worker is gone, as its end will say.
        let _ = self.send();
        let mut piece = [0; 4096];
        while self.received.len() <= MAX_PAYLOAD + HEAD {
            match self.stream.read(&mut piece) {
                Ok(count @ 1..) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => {
                    self.has_ended = true;
                    break;
                }
            }
        }
        let mut reports = Vec::new();
        while let Ok(Some(report)) = unframe(&mut self.received) {
            reports.push(report);
        }
        reports
    }

    /// Ends the conversation, for both, whoever else may hold the other end: there is nothing more to [hear](Self::hear).
    pub(crate) fn end(&self) {
        // Where it fails it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether everything was [heard](Self::hear) that will ever be said.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl AsFd for SupervisorEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The worker's end; one thread listens, any says something.
#[derive(Debug, Clone)]
pub(crate) struct WorkerEnd(Arc<UnixStream>);

impl WorkerEnd {
    /// Says something; an error where the supervisor is gone. A failed boot is the only long report, and the only
    /// one then: two never mix.
    pub(crate) fn say(&self, report: Report) -> io::Result<()> {
        (&*self.0).write_all(&frame(report))
    }

    /// Waits for the next order; `None`: the supervisor is gone.
    pub(crate) fn hear(&self) -> Option<Order> {
        let mut head = [0; HEAD];
        (&*self.0).read_exact(&mut head).ok()?;
        let length = announced(&head).ok()?;
        let mut received = head.to_vec();
        received.resize(HEAD + length, 0);
        (&*self.0).read_exact(&mut received[HEAD..]).ok()?;
        unframe(&mut received).ok().flatten()
    }

    /// Waits for `patience` at most until there is something to [hear](Self::hear); whether there is.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        !self.poll(patience).is_empty()
    }

    /// Waits for `patience` at most; whether the supervisor is gone.
    pub(crate) fn is_orphaned_within(&self, patience: Duration) -> bool {
        self.poll(patience).intersects(PollFlags::HUP | PollFlags::ERR)
    }

    fn poll(&self, patience: Duration) -> PollFlags {
        let timeout = Timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut source = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        match poll(&mut source, Some(&timeout)) {
            Ok(1..) => source[0].revents(),
            _ => PollFlags::empty(),
        }
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for WorkerEnd {
    /// The end that a mold was sent for a worker.
    fn from(end: OwnedFd) -> Self {
        Self(Arc::new(end.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Drain;

    #[test]
    fn an_order_that_is_longer_than_the_socket_has_room_arrives_whole_and_before_the_next() {
        let (mut supervisor, worker) = pair().unwrap();
        let long = Order::Broken("x".repeat(MAX_PAYLOAD));
        supervisor.say(long.clone()).unwrap();
        supervisor.say(Order::Drain(Drain::Stop)).unwrap();
        assert!(!supervisor.unsent.is_empty(), "the socket has room for everything");
        let heard = std::thread::spawn(move || [worker.hear(), worker.hear(), worker.hear()]);
        while !supervisor.unsent.is_empty() {
            assert!(supervisor.hear().is_empty());
            std::thread::yield_now();
        }
        drop(supervisor);
        assert_eq!(heard.join().unwrap(), [Some(long), Some(Order::Drain(Drain::Stop)), None]);
    }

    #[test]
    fn a_worker_that_does_not_listen_is_told_only_so_much() {
        let (mut supervisor, _worker) = pair().unwrap();
        let long = || Order::Broken("x".repeat(MAX_PAYLOAD));
        let refused = (0..4).map(|_| supervisor.say(long())).find_map(Result::err);
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
