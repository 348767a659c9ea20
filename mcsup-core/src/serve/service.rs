//! Each request, from its head to the end of its response.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;

use super::transport::Progress;
use super::{BoxError, Server};

/// The client of a request, among its extensions (`axum::Extension<Peer>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
}

impl Peer {
    pub(super) fn new(address: Option<SocketAddr>) -> Self {
        Self { address }
    }

    /// The client's address; `None`: it has none, as over a Unix socket, or is gone.
    pub fn address(self) -> Option<SocketAddr> {
        self.address
    }
}

/// A service that can be served, of any kind of body.
pub(super) trait Handler: Clone + Send + 'static {
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;

    fn handle(
        self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Self::Body>, BoxError>> + Send;
}

impl<S, B> Handler for S
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;

    async fn handle(mut self, request: Request<RequestBody>) -> Result<Response<B>, BoxError> {
        poll_fn(|context| self.poll_ready(context)).await.map_err(Into::into)?;
        self.call(request).await.map_err(Into::into)
    }
}

/// The requests of one connection, as hyper calls it.
pub(super) struct Requests<H> {
    pub(super) server: Arc<Server>,
    pub(super) handler: H,
    pub(super) peer: Peer,
    pub(super) progress: Arc<Progress>,
}

// Nothing pins the handler: each request has its own.
impl<H> Unpin for Requests<H> {}

impl<H: Handler> hyper::service::Service<Request<Incoming>> for Requests<H> {
    type Response = Response<ResponseBody<H::Body>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_progress = InProgress::begin(&self.server, &self.progress);
        let progress = Arc::clone(&self.progress);
        let mut request = request.map(|body| RequestBody::new(body, &progress));
        request.extensions_mut().insert(self.peer);
        let (server, handler) = (Arc::clone(&self.server), self.handler.clone());
        let (can_upgrade, method) =
            (request.extensions().get::<OnUpgrade>().is_some(), request.method().clone());
        Box::pin(async move {
            let mut response = handler.handle(request).await?;
            if upgrades(&method, response.status()) {
                if can_upgrade {
                    progress.upgrades.store(true, SeqCst);
                    // The connection's task prepares for the upgrade meanwhile.
                    tokio::task::yield_now().await;
                }
            } else if progress.is_last.load(SeqCst) || server.is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| ResponseBody { body, in_progress }))
        })
    }
}

/// Whether a response with this status upgrades the connection (RFC 9110 §15.2.2, §9.3.6).
fn upgrades(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || *method == Method::CONNECT && status.is_success()
}

/// Counts a request while it lives.
struct InProgress {
    server: Arc<Server>,
    progress: Arc<Progress>,
    number: u64,
}

impl InProgress {
    fn begin(server: &Arc<Server>, progress: &Arc<Progress>) -> Self {
        progress.has_request.store(true, SeqCst);
        progress.requests.fetch_add(1, SeqCst);
        server.context.request_began();
        let number = server.running.begin();
        Self { server: Arc::clone(server), progress: Arc::clone(progress), number }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.server.running.end(self.number);
        self.server.context.request_ended();
        self.progress.requests.fetch_sub(1, SeqCst);
    }
}

/// The body of a request that [`serve`](crate::serve) passes on.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    /// `None`: the body has ended.
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    fn new(body: Incoming, progress: &Arc<Progress>) -> Self {
        let progress = (!body.is_end_stream()).then(|| Arc::clone(progress));
        if let Some(progress) = &progress {
            progress.begin_body();
        }
        Self { body, progress }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.drop_body();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            if let Some(progress) = self.progress.take() {
                progress.end_body();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// The body of a response; its request is in progress until it is dropped.
    pub(super) struct ResponseBody<B> {
        #[pin]
        body: B,
        in_progress: InProgress,
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
