//! The two ends of the socketpair between a supervisor and a worker.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::message::{MAX_PAYLOAD, Order, Report, frame, unframe};

/// A new pair. Both ends are close-on-exec: no program that a worker starts holds a lifeline.
pub(crate) fn pair() -> io::Result<(SupervisorEnd, WorkerEnd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((SupervisorEnd { stream: ours, received: Vec::new() }, WorkerEnd(Arc::new(theirs))))
}

/// The supervisor's end: never blocks. Held by nobody else, so that its closing says that the supervisor is gone.
#[derive(Debug)]
pub(crate) struct SupervisorEnd {
    stream: UnixStream,
    received: Vec<u8>,
}

impl SupervisorEnd {
    /// Says something. An error where the worker does not listen (stopped, gone): its deadline will deal with it.
    pub(crate) fn say(&mut self, order: Order) -> io::Result<()> {
        self.stream.write_all(&frame(&order))
    }

    /// Everything that the worker has said by now. Garbage ends the conversation, never the supervisor.
    pub(crate) fn hear(&mut self) -> Vec<Report> {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = self.stream.read(&mut piece) {
            self.received.extend_from_slice(&piece[..count]);
            if self.received.len() > MAX_PAYLOAD + 5 {
                break;
            }
        }
        let mut reports = Vec::new();
        while let Ok(Some(report)) = unframe(&mut self.received) {
            reports.push(report);
        }
        reports
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
    pub(crate) fn say(&self, report: &Report) -> io::Result<()> {
        (&*self.0).write_all(&frame(report))
    }

    /// Waits for the next order; `None`: the supervisor is gone.
    pub(crate) fn hear(&self) -> Option<Order> {
        let mut received = Vec::new();
        loop {
            match unframe(&mut received) {
                Ok(Some(order)) => return Some(order),
                Ok(None) => {}
                Err(_) => return None,
            }
            let mut byte = [0];
            match (&*self.0).read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => received.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}
