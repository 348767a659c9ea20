//! The pools that the tests look at.

use std::convert::Infallible;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use mcsup_core::policy::Limit;
use mcsup_core::{Config, Peer, Prefork, Worker, WorkerContext, WorkerResult};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::axum_example;

/// The environment variable that names the role.
pub const ROLE: &str = "MCSUP_TEST_ROLE";
/// The one that names the address.
pub const ADDRESS: &str = "MCSUP_TEST_ADDRESS";
/// The one that names the file for which the handlers wait.
pub const GATE: &str = "MCSUP_TEST_GATE";

/// Plays a role to its end.
pub fn play(role: &str) -> ExitCode {
    log::set_logger(&Stderr).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut config =
        Config { addresses: vec![std::env::var(ADDRESS).unwrap().parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    config.policy.plan.soak = Duration::from_millis(100);
    match role {
        "example" => axum_example::main(),
        "web" => Prefork::with_config(Web::default, config).run().into(),
        "web-of-flushed-pipelines" => {
            Prefork::with_config(|| Web { pipeline_flush: true }, config).run().into()
        }
        "web-of-3-requests" => {
            config.policy.recycling.requests = Some(Limit { base: 3, jitter: 0 });
            Prefork::with_config(Web::default, config).run().into()
        }
        _ => panic!("there is no role {role}"),
    }
}

/// Serves an application on a runtime of several threads.
#[derive(Default)]
struct Web {
    pipeline_flush: bool,
}

impl Worker for Web {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let app = Router::new()
            .route("/", get(pid))
            .route(
                "/peer",
                get(|Extension(peer): Extension<Peer>| async move { format!("{:?}", peer.address()) }),
            )
            .route("/gated", get(gated))
            .route("/slow", get(slow))
            .route("/streamed", get(streamed))
            .route("/unread", post(unread))
            .route("/upgraded", any(upgraded))
            .with_state(context.clone());
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(hyper_util::rt::TokioTimer::new()).pipeline_flush(self.pipeline_flush);
        Ok(tokio::runtime::Runtime::new()?.block_on(mcsup_core::serve_with(context, builder, app))?)
    }
}

async fn pid() -> String {
    std::process::id().to_string()
}

/// Waits for the test.
async fn gate() {
    let path = std::env::var(GATE).unwrap();
    while !std::fs::exists(&path).unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn gated() -> String {
    gate().await;
    pid().await
}

/// Is not ready at once.
async fn slow() -> String {
    tokio::time::sleep(Duration::from_millis(10)).await;
    pid().await
}

/// A response whose second part waits for the test.
async fn streamed() -> Response {
    let (parts, received) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    tokio::spawn(async move {
        parts.send(Ok(Bytes::from("first\n"))).await.unwrap();
        gate().await;
        parts.send(Ok(Bytes::from("second\n"))).await.unwrap();
    });
    let body = Body::new(Parts(received));
    ([("content-length", "13")], body).into_response()
}

/// A body of the parts that arrive.
struct Parts(tokio::sync::mpsc::Receiver<Result<Bytes, Infallible>>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|bytes| bytes.map(hyper::body::Frame::data)))
    }
}

/// Answers at the gate, without a look at the body.
async fn unread(request: Request) -> String {
    drop(request);
    gated().await
}

/// Changes to a protocol of lines that ends when its worker does.
async fn upgraded(State(context): State<WorkerContext>, request: Request) -> Response {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let mut lines = BufReader::new(hyper_util::rt::TokioIo::new(upgraded));
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        lines.write_all(line.as_bytes()).await.unwrap();
        context.draining().await;
        gate().await;
        lines.write_all(b"the end\n").await.unwrap();
        lines.shutdown().await.unwrap();
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "lines")]).into_response()
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // One write: the lines of several processes stay whole.
        let line = format!("{}: {}\n", record.level(), record.args());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
