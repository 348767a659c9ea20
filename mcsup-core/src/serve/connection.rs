//! The life of a connection: its requests, and its move or close when the worker ends.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use rustix::net::Shutdown;
use tokio::time::{Instant, sleep, timeout};

use super::service::{Handler, Peer, Requests};
use super::transport::{Progress, Transport};
use super::{Open, Server};
use crate::worker::{AsyncConnection, Phase};

/// For how long a connection without a byte so far may still begin a request when the worker ends.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// The same between two requests, while no sibling has room for the connection: its client may have sent a
/// request already.
const RETIRING_TIME: Duration = Duration::from_secs(2);
/// The same without siblings.
const DRAINING_TIME: Duration = Duration::from_millis(20);
/// For how long the first part of a head may wait for its rest then.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The interval between attempts to hand a connection over.
const TRY_EVERY: Duration = Duration::from_millis(10);

type Http<H> = Connection<TokioIo<Transport>, Requests<H>>;

/// The end of a stage of a connection.
enum Stage {
    /// It has ended.
    Over,
    /// It is between two requests, or at the first part of one, and the worker ends.
    Idle,
    /// A response upgrades it.
    Upgrading,
    /// A request has begun, and hyper serves no further one.
    Last,
}

/// Serves a connection to its end, or until a sibling has it.
pub(super) async fn live<H: Handler>(
    server: Arc<Server>,
    handler: H,
    connection: AsyncConnection,
    open: Open,
) {
    let peer = Peer::new(connection.peer_addr());
    let mut transport = Transport { connection, progress: Arc::default(), open };
    let mut is_last = false;
    loop {
        let progress = Arc::clone(&transport.progress);
        progress.has_request.store(false, SeqCst);
        let requests = Requests {
            server: Arc::clone(&server),
            handler: handler.clone(),
            peer,
            progress: Arc::clone(&progress),
        };
        let mut http = server.builder.serve_connection(TokioIo::new(transport), requests);
        let stage = if is_last { Stage::Last } else { serve(&server, &mut http, &progress).await };
        match stage {
            Stage::Over => return,
            Stage::Upgrading => return upgrade(http).await,
            Stage::Last => return serve_last(http, &progress).await,
            Stage::Idle => {}
        }
        let parts = http.into_parts();
        transport = parts.io.into_inner();
        transport.connection.put_back(&parts.read_buf);
        is_last = server.part_with(&mut transport).await;
        if !is_last {
            return;
        }
    }
}

/// Serves requests until the end of a stage.
async fn serve<H: Handler>(server: &Server, http: &mut Http<H>, progress: &Progress) -> Stage {
    loop {
        let mut ending = pin!(server.ending.notified());
        ending.as_mut().enable();
        let mut changed = pin!(progress.changed.notified());
        let stage = poll_fn(|context| {
            // Bodies that are dropped during the turn are left to the next one.
            let dropped = progress.dropped_bodies();
            if Pin::new(&mut *http).poll(context).is_ready() {
                return Poll::Ready(Some(Stage::Over));
            }
            progress.settle_bodies(dropped);
            if progress.upgrades.load(SeqCst) {
                return Poll::Ready(Some(Stage::Upgrading));
            }
            let is_ending = server.is_ending();
            if is_ending && progress.is_quiet() {
                return Poll::Ready(Some(Stage::Idle));
            }
            let has_changed = changed.as_mut().poll(context).is_ready();
            match has_changed || !is_ending && ending.as_mut().poll(context).is_ready() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        });
        match stage.await {
            Some(Stage::Idle) => return release(http, progress).await,
            Some(stage) => return stage,
            None => {}
        }
    }
}

/// Stops a quiet connection, without a close of its socket.
async fn release<H: Handler>(http: &mut Http<H>, progress: &Progress) -> Stage {
    Pin::new(&mut *http).graceful_shutdown();
    let released = poll_fn(|context| Poll::Ready(http.poll_without_shutdown(context))).await;
    match released {
        Poll::Ready(Ok(())) => Stage::Idle,
        Poll::Ready(Err(_)) => Stage::Over,
        // hyper waits for the rest of a first request, of which it has consumed nothing.
        Poll::Pending if !progress.has_request.load(SeqCst) => Stage::Idle,
        Poll::Pending => Stage::Last,
    }
}

/// Serves a request that has begun to arrive, as the last one.
///
/// Its first byte may be known to the kernel alone, and hyper would close a connection without a byte at
/// `graceful_shutdown`. The response ends the connection instead.
async fn serve_last<H: Handler>(mut http: Http<H>, progress: &Progress) {
    progress.is_last.store(true, SeqCst);
    let mut limit = pin!(sleep(HEAD_TIME));
    let upgrades = poll_fn(|context| {
        let is_over = Pin::new(&mut http).poll(context).is_ready();
        let is_late = limit.as_mut().poll(context).is_ready() && !progress.has_request.load(SeqCst);
        match progress.upgrades.load(SeqCst) {
            upgrades if upgrades || is_over || is_late => Poll::Ready(upgrades && !is_over),
            _ => Poll::Pending,
        }
    });
    if upgrades.await {
        upgrade(http).await;
    }
}

/// Sends a response that upgrades the connection, and leaves the connection to its handler.
async fn upgrade<H: Handler>(http: Http<H>) {
    let _ = http.with_upgrades().await;
}

impl Server {
    /// Hands an idle connection over or closes it; `true`: it has a request to serve.
    async fn part_with(&self, transport: &mut Transport) -> bool {
        let until = Instant::now() + self.patience(transport);
        loop {
            let connection = &mut transport.connection;
            if self.hand_over(connection) {
                return false;
            }
            match connection.peek() {
                _ if !connection.unread().is_empty() => return true,
                Ok(1..) => return true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return false,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.context.phase() == Phase::Quitting {
                let _ = rustix::net::shutdown(&connection, Shutdown::Write);
                return false;
            }
            let _ = timeout(left.min(TRY_EVERY), connection.readable()).await;
        }
    }

    fn patience(&self, transport: &Transport) -> Duration {
        match self.context.phase() {
            _ if !transport.progress.has_begun.load(SeqCst) => FRESH_TIME,
            Phase::Draining | Phase::Quitting => DRAINING_TIME,
            _ => RETIRING_TIME,
        }
    }

    /// Hands a connection to a sibling; `false`: none takes it now.
    fn hand_over(&self, connection: &AsyncConnection) -> bool {
        self.context.phase() == Phase::Retiring
            && self.context.siblings().next().is_some()
            && self.context.hand_over(std::os::fd::AsFd::as_fd(connection), connection.unread()).is_ok()
    }
}
