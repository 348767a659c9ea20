//! HTTP/1.1 by hyper: a worker that serves a [tower](tower_service::Service) service, such as axum's `Router`.
//!
//! A worker that retires in a reload loses no request: an idle connection moves to a sibling by the handover,
//! with the bytes of a request that has begun, and a busy one follows after the responses to the requests that
//! hyper has received. Its client sees the same connection. If the pool stops, the next response has
//! `Connection: close`, and the socket is checked before an idle connection closes. A request that crosses the
//! close is lost (RFC 9112 §9.5).
//!
//! - `service`: each request, from its head to the end of its response.
//! - `running`: the requests in progress.
//! - `transport`: the connection as hyper reads and writes it.
//! - `connection`: the life of a connection.

mod connection;
mod running;
mod service;
mod transport;

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Body;
use hyper::server::conn::http1::Builder;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::error::Result;
use crate::worker::{AsyncConnection, Phase, WorkerContext};
use running::Running;
use service::Handler;
pub use service::{Peer, RequestBody};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The interval between reports to the supervisor.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// The time after which a worker that drains looks for connections a last time: handshakes end meanwhile.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// More requests than a worker has at once: it refuses none.
const PERMITS: usize = 1 << 20;

/// Serves HTTP/1.1 until the worker ends. Needs the feature `hyper`.
///
/// [`serve_with`] with hyper's defaults: 30 seconds for a request's head, which also ends idle connections.
///
/// ```no_run
/// # use mcsup_core::{Worker, WorkerContext, WorkerResult};
/// struct Web;
///
/// impl Worker for Web {
///     fn run(&mut self, context: &WorkerContext) -> WorkerResult {
///         let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello\n" }));
///         let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
///         Ok(runtime.block_on(mcsup_core::serve(context, app))?)
///     }
/// }
/// ```
///
/// # Errors
/// Those of [`WorkerContext::accept_async`].
///
/// # Panics
/// As tokio does, in a runtime without I/O or time (`Builder::enable_all`).
pub async fn serve<S, B>(context: &WorkerContext, service: S) -> Result<()>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new());
    serve_with(context, builder, service).await
}

/// Serves HTTP/1.1 by hyper's `builder` until the worker ends. Needs the feature `hyper`.
///
/// It returns when the worker should end and the last connection is closed, also those that a request has
/// upgraded (their tasks can await [`WorkerContext::draining`]), or in [`Phase::Quitting`]. Connections are
/// tasks of the current runtime. Each request carries a [`Peer`] among its extensions. A handler that panics
/// ends its connection.
///
/// It turns the option `pipeline_flush` of the builder off: a connection whose response waits for the next request
/// cannot move to a sibling.
///
/// It shows signs of life while the runtime runs, and reports requests and connections to the supervisor:
/// `max_requests` and `mcsup status` count them.
///
/// # Errors
/// Those of [`WorkerContext::accept_async`].
///
/// # Panics
/// As tokio does, in a runtime without I/O or time (`Builder::enable_all`), and hyper, in a timeout without a
/// timer.
pub async fn serve_with<S, B>(context: &WorkerContext, mut builder: Builder, service: S) -> Result<()>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    builder.pipeline_flush(false);
    let server = Arc::new(Server {
        context: context.clone(),
        builder,
        running: Running::default(),
        open: AtomicUsize::new(0),
        is_ending: AtomicBool::new(false),
        ending: Notify::new(),
        closed: Notify::new(),
    });
    context.accepting(PERMITS);
    let _reports = Reports(tokio::spawn(report(Arc::clone(&server))));
    let _end = End(&server);
    accept_all(&server, &service).await?;
    if context.phase() == Phase::Draining {
        sleep(LAST_LOOK).await;
        accept_all(&server, &service).await?;
    }
    context.close_listeners();
    server.end();
    finish(&server, &service).await;
    Ok(())
}

/// The state that the connections of a worker share.
#[derive(Debug)]
struct Server {
    context: WorkerContext,
    builder: Builder,
    running: Running,
    /// The number of open connections.
    open: AtomicUsize,
    /// Whether connections are to move or close.
    is_ending: AtomicBool,
    /// `is_ending` was set.
    ending: Notify,
    /// A connection has ended.
    closed: Notify,
}

impl Server {
    fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.ending.notify_waiters();
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Whether a response that begins now is the last one of its connection.
    fn is_last(&self) -> bool {
        match self.context.phase() {
            Phase::Serving | Phase::LameDuck => false,
            Phase::Retiring => self.context.siblings().next().is_none(),
            Phase::Draining | Phase::Quitting => true,
        }
    }
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
struct Open(Arc<Server>);

impl Open {
    fn on(server: &Arc<Server>) -> Self {
        server.context.connections(server.open.fetch_add(1, Ordering::AcqRel) + 1);
        Self(Arc::clone(server))
    }

    fn is_ending(&self) -> bool {
        self.0.is_ending()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.context.connections(self.0.open.fetch_sub(1, Ordering::AcqRel) - 1);
        self.0.closed.notify_waiters();
    }
}

/// Ends the connections when the worker stops to serve, also if its future is dropped.
struct End<'a>(&'a Server);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The task of the reports; it ends with this.
struct Reports(JoinHandle<()>);

impl Drop for Reports {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports to the supervisor for ever.
async fn report(server: Arc<Server>) {
    loop {
        server.context.beat();
        server.context.oldest(server.running.oldest());
        sleep(REPORT_EVERY).await;
    }
}

/// Serves connections until the worker should end.
async fn accept_all<H: Handler>(server: &Arc<Server>, handler: &H) -> Result<()> {
    while let Some(connection) = server.context.accept_async().await? {
        begin(server, handler, connection);
    }
    Ok(())
}

/// Begins to serve a connection. It counts from now on: its task may have its first turn after the last accept.
fn begin<H: Handler>(server: &Arc<Server>, handler: &H, connection: AsyncConnection) {
    let open = Open::on(server);
    tokio::spawn(connection::live(Arc::clone(server), handler.clone(), connection, open));
}

/// Waits for the end of all connections, or for [`Phase::Quitting`].
async fn finish<H: Handler>(server: &Arc<Server>, handler: &H) {
    while server.context.phase() != Phase::Quitting {
        let mut closed = std::pin::pin!(server.closed.notified());
        closed.as_mut().enable();
        if server.open.load(Ordering::Acquire) == 0 && !adopt_last(server, handler) {
            return;
        }
        let _ = tokio::time::timeout(REPORT_EVERY, closed).await;
    }
}

/// Takes the connections back that were handed over and that no sibling takes; `false`: there are none.
fn adopt_last<H: Handler>(server: &Arc<Server>, handler: &H) -> bool {
    if server.context.siblings().next().is_some() {
        return false;
    }
    let mut has_any = false;
    while let Ok(Some(connection)) = server.context.take_handed_over_async() {
        begin(server, handler, connection);
        has_any = true;
    }
    has_any
}
