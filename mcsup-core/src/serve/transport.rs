//! A connection as hyper reads and writes it, and the state that tells whether it is between two requests.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Open;
use crate::worker::AsyncConnection;

/// The requests of one connection. Its task, its requests and its transport share it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of requests whose response has not ended.
    pub(super) requests: AtomicUsize,
    /// The number of requests from whose body hyper may still read.
    bodies: AtomicUsize,
    /// The number of those of them that no handler reads any more: hyper reads or drops the rest in its next turn.
    dropped: AtomicUsize,
    /// Bytes of a response wait for the client.
    is_stuck: AtomicBool,
    /// Whether hyper has passed a request on.
    pub(super) has_request: AtomicBool,
    /// Whether a byte was received.
    pub(super) has_begun: AtomicBool,
    /// Whether the next response is the last one of the connection.
    pub(super) is_last: AtomicBool,
    /// A response upgrades the connection.
    pub(super) upgrades: AtomicBool,
    /// A body has ended, perhaps outside of the connection's task.
    pub(super) changed: Notify,
}

impl Progress {
    /// Whether no response is in progress, all of them have left, and no body is in front of the next request.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.load(SeqCst) == 0 && !self.has_body() && !self.is_stuck.load(SeqCst)
    }

    fn has_body(&self) -> bool {
        self.bodies.load(SeqCst) > 0
    }

    pub(super) fn begin_body(&self) {
        self.bodies.fetch_add(1, SeqCst);
    }

    /// A handler has read a body to its end.
    pub(super) fn end_body(&self) {
        self.bodies.fetch_sub(1, SeqCst);
        self.changed.notify_one();
    }

    /// A handler reads no more of a body.
    pub(super) fn drop_body(&self) {
        self.dropped.fetch_add(1, SeqCst);
        self.changed.notify_one();
    }

    /// The bodies that hyper reads to their ends, or else closes the connection, in its next turn.
    pub(super) fn dropped_bodies(&self) -> usize {
        self.dropped.load(SeqCst)
    }

    /// Hyper has had its turn with these bodies.
    pub(super) fn settle_bodies(&self, dropped: usize) {
        self.dropped.fetch_sub(dropped, SeqCst);
        self.bodies.fetch_sub(dropped, SeqCst);
    }
}

/// A connection with its progress.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) connection: AsyncConnection,
    pub(super) progress: Arc<Progress>,
    /// An upgraded connection is open as well.
    pub(super) open: Open,
}

impl Transport {
    /// Whether hyper gets no further request: it stays in the socket, and moves with the connection.
    ///
    /// Else a client that always has a request on its way would never be between two of them.
    fn is_shut(&self) -> bool {
        let progress = &self.progress;
        let is_apart = progress.is_last.load(SeqCst) || progress.upgrades.load(SeqCst);
        self.open.is_ending() && !is_apart && !progress.has_body()
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.progress.is_stuck.store(written.is_pending(), SeqCst);
        written
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_shut() && self.connection.poll_end(context).is_pending() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.progress.has_begun.store(true, SeqCst);
        }
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(context, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
