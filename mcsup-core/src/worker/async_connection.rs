//! An accepted connection in a tokio runtime.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
#[cfg(feature = "hyper")]
use std::{future::poll_fn, task::ready};

#[cfg(feature = "hyper")]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::listener::Connection;

/// An accepted connection, registered with the runtime in which it was accepted.
///
/// Its first bytes may come from another worker, which has received them and handed the connection over.
#[derive(Debug)]
pub struct AsyncConnection {
    stream: Stream,
    /// Bytes that precede those of the socket, and the number of them that were read.
    received: Vec<u8>,
    read: usize,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same method of the stream of either kind.
macro_rules! stream {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncConnection {
    /// Registers `connection` with the current runtime; `received` precedes the bytes of its socket.
    ///
    /// # Errors
    /// The error of fcntl(2) or epoll_ctl(2).
    ///
    /// # Panics
    /// As tokio does, outside of a runtime with I/O.
    pub fn new(connection: Connection, received: Vec<u8>) -> io::Result<Self> {
        connection.set_nonblocking(true)?;
        let stream = match connection {
            Connection::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            // A stream of another kind reads and writes like it.
            other => Stream::Unix(UnixStream::from_std(OwnedFd::from(other).into())?),
        };
        Ok(Self { stream, received, read: 0 })
    }

    /// The client's address; `None`: it has none, or the client is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    /// The socket, no longer registered, and the bytes before those of the socket that were not read.
    ///
    /// # Errors
    /// The error of epoll_ctl(2).
    pub fn into_parts(self) -> io::Result<(OwnedFd, Vec<u8>)> {
        let unread = self.received[self.read..].to_vec();
        let socket = match self.stream {
            Stream::Tcp(stream) => stream.into_std()?.into(),
            Stream::Unix(stream) => stream.into_std()?.into(),
        };
        Ok((socket, unread))
    }
}

#[cfg(feature = "hyper")]
impl AsyncConnection {
    /// The bytes before those of the socket that were not read.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.received[self.read..]
    }

    /// Puts bytes back that were read last.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        let unread = self.received.split_off(self.read);
        self.received = [bytes, &unread].concat();
        self.read = 0;
    }

    /// The number of bytes that the socket has now; 0: the client sends no more.
    ///
    /// # Errors
    /// `WouldBlock`: none yet.
    pub(crate) fn peek(&self) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.as_fd(), &mut [0; 1], rustix::net::RecvFlags::PEEK)?;
        Ok(count)
    }

    /// Waits until [`peek`](Self::peek) does not return `WouldBlock`.
    pub(crate) async fn readable(&self) {
        let _ = poll_fn(|context| self.poll_peek(context)).await;
    }

    /// Waits until the client sends no more, or the connection has failed. Bytes in front of that end leave it
    /// pending, without a further wake-up.
    pub(crate) fn poll_end(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.unread().is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_peek(context)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// [`peek`](Self::peek), which waits instead of `WouldBlock`.
    fn poll_peek(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let peek = || self.peek();
        loop {
            let peeked = match &self.stream {
                Stream::Tcp(stream) => {
                    ready!(stream.poll_read_ready(context))?;
                    stream.try_io(Interest::READABLE, peek)
                }
                Stream::Unix(stream) => {
                    ready!(stream.poll_read_ready(context))?;
                    stream.try_io(Interest::READABLE, peek)
                }
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return Poll::Ready(peeked),
            }
        }
    }
}

impl AsFd for AsyncConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for AsyncConnection {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsyncRead for AsyncConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = &self.received[self.read..];
        if unread.is_empty() {
            return stream!(self, stream => Pin::new(stream).poll_read(context, buffer));
        }
        let count = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..count]);
        self.read += count;
        if self.read == self.received.len() {
            (self.received, self.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AsyncConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        stream!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        stream!(self, stream => Pin::new(stream).poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
