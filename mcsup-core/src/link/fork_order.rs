//! Orders to a mold to fork a worker: one datagram with a record of the worker and its descriptors.
//!
//! They do not use the link, where an order may wait for room: descriptors must arrive with the bytes that
//! describe them.
//!
//! Mold and supervisor are usually one program, but a mold may be older than an upgrade. A mold that cannot
//! read an order ends, and another one is booted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::SocketType;
use serde::{Deserialize, Serialize};

use super::channel::WorkerEnd;
use super::datagram::{self, MAX_DESCRIPTORS};
use crate::listener::record::ListenerRecord;
use crate::sys::descriptor;

/// The properties of one worker among those of its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForkOrder {
    pub(crate) worker: u64,
    pub(crate) slot: usize,
    /// The index of its row on the scoreboard.
    pub(crate) row: usize,
    pub(crate) max_requests: Option<u64>,
    /// Its listeners. Their descriptors arrive in the same order.
    pub(crate) listeners: Vec<ListenerRecord>,
}

/// The descriptors that an order carries.
#[derive(Debug)]
pub(crate) struct Descriptors<D> {
    /// The worker's end of its link.
    pub(crate) end: D,
    pub(crate) listeners: Vec<D>,
}

/// The largest size of an order.
const ROOM: usize = 64 * 1024;

#[cfg(not(target_vendor = "apple"))]
const KIND: SocketType = SocketType::SEQPACKET;
// macOS has no other kind that keeps messages apart.
#[cfg(target_vendor = "apple")]
const KIND: SocketType = SocketType::DGRAM;

/// Creates a pair: the supervisor's end and the mold's. Both are close-on-exec and non-blocking.
pub(crate) fn pair() -> io::Result<(OrderingEnd, ForkingEnd)> {
    let (ours, theirs) = datagram::pair(KIND, 2 * ROOM)?;
    Ok((OrderingEnd(ours), ForkingEnd(theirs)))
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct OrderingEnd(OwnedFd);

impl OrderingEnd {
    /// The end with this descriptor number, inherited from the previous image.
    pub(crate) fn adopt(fd: RawFd) -> io::Result<Self> {
        Ok(Self(descriptor::take_recorded(fd)?))
    }

    /// Sends an order. The caller closes its own copies of the descriptors afterwards.
    pub(crate) fn send(&self, order: &ForkOrder, with: &Descriptors<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(order)?;
        let descriptors: Vec<BorrowedFd<'_>> =
            [with.end].into_iter().chain(with.listeners.iter().copied()).collect();
        if bytes.len() > ROOM || descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::other(format!(
                "{} listeners are too many for a mold",
                with.listeners.len()
            )));
        }
        datagram::send(&self.0, &bytes, &descriptors)
    }
}

impl AsFd for OrderingEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The mold's end.
#[derive(Debug)]
pub(crate) struct ForkingEnd(OwnedFd);

impl ForkingEnd {
    /// Receives the next order; `None`: none is queued.
    ///
    /// # Errors
    /// The supervisor is gone. Or the descriptors were lost, because this process is at its limit; the error
    /// then names the worker, so that the supervisor can be informed.
    pub(crate) fn take(&self) -> Result<Option<(ForkOrder, Descriptors<OwnedFd>)>, ReceiveError> {
        let mut room = vec![0; ROOM];
        let (count, descriptors) = match datagram::receive(&self.0, &mut room) {
            Ok((0, _)) => return Err(ReceiveError::Gone),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(_) => return Err(ReceiveError::Gone),
        };
        let order: ForkOrder = serde_json::from_slice(&room[..count]).map_err(|_| ReceiveError::Gone)?;
        match sort(&order, descriptors) {
            Some(descriptors) => Ok(Some((order, descriptors))),
            None => Err(ReceiveError::Incomplete { worker: order.worker }),
        }
    }
}

/// Assigns the descriptors; `None`: some are missing.
fn sort(order: &ForkOrder, descriptors: Vec<OwnedFd>) -> Option<Descriptors<OwnedFd>> {
    let mut descriptors = descriptors.into_iter();
    let end = descriptors.next()?;
    let listeners: Vec<OwnedFd> = descriptors.collect();
    (listeners.len() == order.listeners.len()).then_some(Descriptors { end, listeners })
}

/// The reason why there is no order to carry out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReceiveError {
    /// The supervisor is gone.
    Gone,
    /// The descriptors of an order are missing.
    Incomplete {
        /// The worker of that order.
        worker: u64,
    },
}

impl AsFd for ForkingEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Descriptors<OwnedFd> {
    /// Splits into the worker's end of its link and its listeners.
    pub(crate) fn into_parts(self) -> (WorkerEnd, Vec<OwnedFd>) {
        (self.end.into(), self.listeners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn order(listeners: usize) -> ForkOrder {
        let record = |fd| ListenerRecord {
            address: "127.0.0.1:80".to_owned(),
            is_own: false,
            fd,
            slot: None,
            bound: None,
        };
        ForkOrder {
            worker: 7,
            slot: 1,
            row: 2,
            max_requests: Some(3),
            listeners: (0..).take(listeners).map(record).collect(),
        }
    }

    fn send(end: &OrderingEnd, order: &ForkOrder, fd: BorrowedFd<'_>) -> io::Result<()> {
        let listeners = vec![fd; order.listeners.len()];
        end.send(order, &Descriptors { end: fd, listeners })
    }

    #[test]
    fn orders_arrive_one_by_one_with_their_own_descriptors() {
        let (supervisor, mold) = pair().unwrap();
        assert!(mold.take().unwrap().is_none());
        let (mut one, given) = UnixStream::pair().unwrap();
        let (mut other, also_given) = UnixStream::pair().unwrap();
        send(&supervisor, &order(0), given.as_fd()).unwrap();
        send(&supervisor, &order(3), also_given.as_fd()).unwrap();
        drop((given, also_given));
        let (first, descriptors) = mold.take().unwrap().unwrap();
        assert_eq!((&first, descriptors.listeners.len()), (&order(0), 0));
        drop(descriptors);
        assert_eq!(one.read(&mut [0]).unwrap(), 0, "some copy is still open");
        let (second, descriptors) = mold.take().unwrap().unwrap();
        assert_eq!((&second, descriptors.listeners.len()), (&order(3), 3));
        let flags = |fd: &OwnedFd| rustix::io::fcntl_getfd(fd).unwrap();
        for fd in descriptors.listeners.iter().chain([&descriptors.end]) {
            assert_eq!(flags(fd), rustix::io::FdFlags::CLOEXEC);
        }
        UnixStream::from(descriptors.end).write_all(b"hello").unwrap();
        drop(descriptors.listeners);
        let mut said = String::new();
        other.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
    }

    #[test]
    fn an_order_that_is_never_taken_keeps_nothing_open() {
        let (supervisor, mold) = pair().unwrap();
        let (mut ours, given) = UnixStream::pair().unwrap();
        send(&supervisor, &order(1), given.as_fd()).unwrap();
        drop((given, mold));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        assert!(send(&supervisor, &order(0), ours.as_fd()).is_err());
    }

    #[test]
    fn more_listeners_than_can_travel_are_refused() {
        let (supervisor, mold) = pair().unwrap();
        let (given, _) = UnixStream::pair().unwrap();
        assert!(send(&supervisor, &order(MAX_DESCRIPTORS), given.as_fd()).is_err());
        send(&supervisor, &order(MAX_DESCRIPTORS - 1), given.as_fd()).unwrap();
        assert_eq!(mold.take().unwrap().unwrap().1.listeners.len(), MAX_DESCRIPTORS - 1);
        drop(supervisor);
        assert_eq!(mold.take().unwrap_err(), ReceiveError::Gone);
    }
}
