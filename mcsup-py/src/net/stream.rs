//! A non-blocking connection, by TLS or without: receive, send, send a part of a file, end, abort.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mcsup_core::{Unshared, between_forks};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::buffer::{FilePart, Incoming, Outgoing, Tail};
use super::poller::timespec;
pub(crate) use super::session::Shaken;
use super::session::Tls;
use crate::tls::TlsServer;

/// A connection. Processes that the application forks do not have it, so that it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Unshared,
    /// `None`: without TLS.
    tls: Option<Tls>,
}

/// The result of an attempt to receive or send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The number of bytes. Received: there may be more; by TLS it may be 0, for records without content. Sent: all there was, or as much as was allowed.
    More(usize),
    /// The number of bytes; no more are possible now.
    Blocked(usize),
    /// The client has ended its side, or is gone.
    Ended,
}

/// How much is received at once: a usual head and a small body.
pub(crate) const PIECE: usize = 8 * 1024;
/// How much of a file is sent in one step: where it goes through our memory, less.
const FILE_STEP: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) { 1 << 20 } else { 128 * 1024 };

impl Stream {
    /// The same connection, by TLS. Nothing was received or sent.
    pub(crate) fn by_tls(self, server: &TlsServer) -> Self {
        Self { tls: Some(Tls::new(server.clone())), ..self }
    }

    /// Whether the connection is by TLS, or was meant to be.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Goes on with the handshake; puts the bytes of a client without TLS into `into`.
    pub(crate) fn shake_hands(&self, into: &mut Incoming) -> Shaken {
        match &self.tls {
            Some(tls) => tls.shake_hands(self.socket.as_fd(), into),
            None => Shaken::Plain,
        }
    }

    /// How many bytes of incomplete messages of TLS itself it keeps, at most.
    pub(crate) fn held(&self) -> usize {
        self.tls.as_ref().map_or(0, Tls::held)
    }

    /// Why TLS has ended behind the handshake, if the client is at fault. Once.
    pub(crate) fn take_fault(&self) -> Option<String> {
        self.tls.as_ref()?.take_fault()
    }

    /// The client's address; `None` on a Unix socket, and where the client has reset the connection.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        SockRef::from(&self.socket).peer_addr().ok()?.as_socket()
    }

    /// Our own address; `None` on a Unix socket.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        SockRef::from(&self.socket).local_addr().ok()?.as_socket()
    }

    /// Receives what is there, up to one piece.
    pub(crate) fn receive(&self, into: &mut Incoming) -> Progress {
        self.receive_into_room_of(into.room(PIECE))
    }

    /// Receives what is there, up to the spare capacity of `into`. Never waits, even if the application has had the socket and
    /// has made it blocking.
    pub(crate) fn receive_into_room_of(&self, into: &mut Vec<u8>) -> Progress {
        if let Some(progress) = self.tls.as_ref().and_then(|tls| tls.receive(self.socket.as_fd(), into)) {
            return progress;
        }
        let most = into.capacity() - into.len();
        loop {
            let room = rustix::buffer::spare_capacity(into);
            return match rustix::net::recv(&self.socket, room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Progress::Ended,
                Ok((_, count)) if count == most => Progress::More(count),
                // A short read empties the socket (epoll(7)): one system call instead of two.
                Ok((_, count)) => Progress::Blocked(count),
                Err(rustix::io::Errno::AGAIN) => Progress::Blocked(0),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => Progress::Ended,
            };
        }
    }

    /// Sends as much of `from` as the socket takes.
    pub(crate) fn send(&self, from: &mut Outgoing) -> Progress {
        self.send_at_most(from, usize::MAX)
    }

    /// Sends as much of `from` as the socket takes, but no more than `most` bytes: a client may read as fast as this
    /// sends.
    pub(crate) fn send_at_most(&self, from: &mut Outgoing, most: usize) -> Progress {
        if let Some(progress) = self.tls.as_ref().and_then(|tls| tls.send(self.socket.as_fd(), from, most)) {
            return progress;
        }
        let mut sent = 0;
        while !from.is_empty() && sent < most {
            let left = most - sent;
            let bytes = up_to(left, from.bytes());
            let step = match from.tail() {
                Some(Tail::File(part)) if bytes.is_empty() => self.send_file(part, left),
                Some(Tail::Block(part)) => self.send_both(bytes, up_to(left - bytes.len(), part.bytes())),
                _ => rustix::net::send(&self.socket, bytes, flags()),
            };
            match step {
                Ok(count) => {
                    from.consume(count);
                    sent += count;
                }
                Err(rustix::io::Errno::AGAIN) => return Progress::Blocked(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Progress::Ended,
            }
        }
        Progress::More(sent)
    }

    /// Sends a few bytes of the engine's own, such as `100 Continue`; whether the socket took them.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> bool {
        if let Some(sent) = self.tls.as_ref().and_then(|tls| tls.send_now(self.socket.as_fd(), bytes)) {
            return sent;
        }
        rustix::net::send(&self.socket, bytes, flags()) == Ok(bytes.len())
    }

    /// Waits until something can be sent; `false`: nothing could within `timeout`, or within a day.
    ///
    /// # Errors
    /// Those of poll(2); `INTR`: a signal came.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> rustix::io::Result<bool> {
        Ok(poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&timespec(timeout)))? > 0)
    }

    /// Shows what has arrived, up to the spare capacity of `into`, and leaves it in the socket.
    pub(crate) fn peek(&self, into: &mut Vec<u8>) -> Progress {
        let room = rustix::buffer::spare_capacity(into);
        match rustix::net::recv(&self.socket, room, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Progress::Ended,
            Ok((_, count)) => Progress::More(count),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Progress::Blocked(0),
            Err(_) => Progress::Ended,
        }
    }

    /// Receives as many bytes as `shown` has, which [`Stream::peek`] has shown.
    pub(crate) fn discard(&self, mut shown: &mut [u8]) {
        while !shown.is_empty() {
            match rustix::net::recv(&self.socket, &mut *shown, RecvFlags::DONTWAIT) {
                Ok((count @ 1.., _)) => shown = &mut shown[count..],
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }

    /// Answers without TLS, before a handshake.
    pub(crate) fn give_up_tls(&self) {
        if let Some(tls) = &self.tls {
            tls.give_up();
        }
    }

    /// Whether bytes wait to be received.
    pub(crate) fn has_unread(&self) -> bool {
        if self.tls.as_ref().is_some_and(Tls::has_received) {
            return true;
        }
        let mut byte = [0];
        matches!(
            rustix::net::recv(&self.socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Ok((_, 1..))
        )
    }

    /// Whether there may be another answer: keys of TLS 1.2 do not last for ever.
    pub(crate) fn may_go_on(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::may_go_on)
    }

    /// Says by TLS that no more will be sent, where the client cannot tell the end from a loss otherwise.
    pub(crate) fn say_goodbye(&self) {
        if let Some(tls) = &self.tls {
            tls.say_goodbye(self.socket.as_fd());
        }
    }

    /// Says that no more will be sent.
    pub(crate) fn end(&self) {
        self.say_goodbye();
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }

    /// A second descriptor of the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Ends both directions, also for other descriptors of the same socket.
    pub(crate) fn shut_down(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Makes the coming close a reset, so that the client cannot take what it has for the whole.
    pub(crate) fn abort(&self) {
        if let Some(tls) = &self.tls {
            tls.abort();
        }
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// In one system call, without a copy.
    fn send_both(&self, bytes: &[u8], block: &[u8]) -> rustix::io::Result<usize> {
        let parts = [IoSlice::new(bytes), IoSlice::new(block)];
        let parts = if bytes.is_empty() { &parts[1..] } else { &parts[..] };
        rustix::net::sendmsg(&self.socket, parts, &mut rustix::net::SendAncillaryBuffer::default(), flags())
    }

    fn send_file(&self, part: &FilePart, most: usize) -> rustix::io::Result<usize> {
        match send_part(self.socket.as_fd(), part, most.min(FILE_STEP))? {
            // The file is shorter than it was: what was announced cannot be kept.
            0 => Err(rustix::io::Errno::PIPE),
            count => Ok(count),
        }
    }
}

pub(super) fn up_to(most: usize, bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

impl From<OwnedFd> for Stream {
    /// A connection that was accepted elsewhere, non-blocking; received inside of the same [`between_forks`].
    fn from(fd: OwnedFd) -> Self {
        Self { socket: fd.into(), tls: None }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts a connection with the address of its client (`None`: a Unix socket): non-blocking, close-on-exec, TCP_NODELAY
/// inherited from the listener.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(Stream, Option<SocketAddr>)> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, remote) = between_forks(|| {
        let (socket, remote) = rustix::net::acceptfrom_with(listener, flags)?;
        Ok::<_, io::Error>((Stream::from(socket), remote))
    })?;
    Ok((stream, remote.and_then(|remote| SocketAddr::try_from(remote).ok())))
}

/// Accepts a connection with the address of its client (`None`: a Unix socket): non-blocking, close-on-exec, no delay.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(Stream, Option<SocketAddr>)> {
    let (stream, remote) = between_forks(|| {
        let (socket, remote) = rustix::net::acceptfrom(listener)?;
        Ok::<_, io::Error>((Stream::from(socket), remote))
    })?;
    rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&stream, true)?;
    let socket = SockRef::from(&stream.socket);
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(target_vendor = "apple")]
    socket.set_nosigpipe(true)?;
    Ok((stream, remote.and_then(|remote| SocketAddr::try_from(remote).ok())))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn flags() -> SendFlags {
    SendFlags::NOSIGNAL
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn flags() -> SendFlags {
    SendFlags::empty()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn send_part(socket: BorrowedFd<'_>, part: &FilePart, most: usize) -> rustix::io::Result<usize> {
    let mut offset = part.offset;
    let count = usize::try_from(part.length).unwrap_or(most).min(most);
    rustix::fs::sendfile(socket, &part.file, Some(&mut offset), count)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn send_part(socket: BorrowedFd<'_>, part: &FilePart, most: usize) -> rustix::io::Result<usize> {
    let mut bytes = vec![0; usize::try_from(part.length).unwrap_or(most).min(most)];
    let count = rustix::io::pread(&part.file, &mut bytes, part.offset)?;
    rustix::net::send(socket, &bytes[..count], flags())
}
