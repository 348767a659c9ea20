//! A queue of connections between the workers of a pool. A busy worker puts connections in, an idle one takes
//! them out like those of a listener.
//!
//! It is a pair of datagram sockets that every worker inherits. A datagram carries one connection: its
//! descriptor (`SCM_RIGHTS`, unix(7)), and bytes that only the workers interpret. The kernel keeps the order,
//! wakes one receiver, and keeps the queue while workers come and go.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::net::SocketType;

use super::datagram;
use crate::sys::descriptor;

/// The version of the datagrams' format.
///
/// After an upgrade, workers of the previous image and of the new one hand connections to each other. A
/// change of the format, or of the meaning of the bytes, increments this number; an upgrade between different
/// numbers is refused.
pub(crate) const FORM: u32 = 4;

/// The most bytes that can accompany a connection.
pub const MAX_HANDED: usize = 16 * 1024;

/// The two ends of the queue.
#[derive(Debug)]
pub(crate) struct Handover {
    give: OwnedFd,
    take: OwnedFd,
    /// The receive buffer.
    room: Mutex<Vec<u8>>,
}

impl Handover {
    pub(crate) fn new() -> io::Result<Self> {
        let (give, take) = datagram::pair(SocketType::DGRAM, 4 * MAX_HANDED)?;
        Ok(Self { give, take, room: Mutex::default() })
    }

    /// Records the descriptors of both ends for the supervisor's next image.
    pub(crate) fn describe(&self) -> (RawFd, RawFd) {
        (self.give.as_raw_fd(), self.take.as_raw_fd())
    }

    /// The recorded queue, in the process that has inherited both ends.
    pub(crate) fn adopt((give, take): (RawFd, RawFd)) -> io::Result<Self> {
        let give = descriptor::take_recorded(give)?;
        Ok(Self { give, take: descriptor::take_recorded(take)?, room: Mutex::default() })
    }

    /// Puts a connection in. The caller closes its own descriptor of it afterwards.
    ///
    /// # Errors
    /// The connection was not handed over: `WouldBlock` for a full queue, `InvalidInput` for too many bytes,
    /// otherwise the error of sendmsg(2).
    pub(crate) fn give(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > MAX_HANDED {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        datagram::send(&self.give, bytes, &[connection])
    }

    /// Takes a connection out; `None`: the queue is empty.
    ///
    /// # Errors
    /// The error of recvmsg(2); a connection may be lost.
    pub(crate) fn take(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        let mut room = self.room.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        room.resize(MAX_HANDED, 0);
        let (count, descriptors) = match datagram::receive(&self.take, &mut room) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // The process had no descriptor left (unix(7)): this connection is lost, and the queue goes on.
        let connection =
            descriptors.into_iter().next().ok_or_else(|| io::Error::from(rustix::io::Errno::MFILE))?;
        Ok(Some((connection, room[..count].to_vec())))
    }

    /// Like [`take`](Self::take), but leaves the connection in the queue if no descriptor is free.
    pub(crate) fn take_with_room(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        drop(rustix::io::fcntl_dupfd_cloexec(&self.take, 0)?);
        self.take()
    }

    /// Readable while a connection is in the queue.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }

    /// Both ends.
    pub(crate) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.give.as_fd(), self.take.as_fd()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_connection_comes_out_with_its_bytes_and_is_the_same_one() {
        let handover = Handover::new().unwrap();
        assert!(handover.take().unwrap().is_none());
        let (mut client, server) = UnixStream::pair().unwrap();
        handover.give(server.as_fd(), b"GET / ").unwrap();
        let too_much = handover.give(server.as_fd(), &[0; MAX_HANDED + 1]).unwrap_err();
        assert_eq!(too_much.kind(), io::ErrorKind::InvalidInput);
        drop(server);
        let (connection, bytes) = handover.take().unwrap().unwrap();
        assert_eq!(bytes, b"GET / ");
        assert_eq!(rustix::io::fcntl_getfd(&connection).unwrap(), rustix::io::FdFlags::CLOEXEC);
        UnixStream::from(connection).write_all(b"hello").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }

    #[test]
    fn a_connection_stays_in_the_queue_while_no_descriptor_is_free() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let handover = Handover::new().unwrap();
        let (_client, server) = UnixStream::pair().unwrap();
        handover.give(server.as_fd(), b"x").unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
        let refused = handover.take_with_room();
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert!(handover.take_with_room().unwrap().is_some());
    }

    #[test]
    fn a_full_queue_is_an_error_and_keeps_no_connection() {
        let handover = Handover::new().unwrap();
        let (_client, server) = UnixStream::pair().unwrap();
        let refused =
            (0..10_000).find_map(|_| handover.give(server.as_fd(), &[0; MAX_HANDED]).err()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        while handover.take().unwrap().is_some() {}
        handover.give(server.as_fd(), b"again").unwrap();
    }
}
