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
    /// The number of requests whose body has not ended.
    pub(super) bodies: AtomicUsize,
    /// Bytes of a response wait for the client.
    is_stuck: AtomicBool,
    /// Whether hyper has passed a request on.
    pub(super) has_request: AtomicBool,
    /// Whether a byte was received.
    pub(super) has_begun: AtomicBool,
    /// A request may upgrade the connection.
    pub(super) upgrades: AtomicBool,
    /// A body has ended outside of the connection's task.
    pub(super) changed: Notify,
}

impl Progress {
    /// Whether no response is in progress and all of them have left.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.load(SeqCst) == 0 && !self.is_stuck.load(SeqCst)
    }
}

/// A connection with its progress.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) connection: AsyncConnection,
    pub(super) progress: Arc<Progress>,
    /// An upgraded connection is open as well.
    pub(super) _open: Open,
}

impl Transport {
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
