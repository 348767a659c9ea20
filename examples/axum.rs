//! A pool of four workers that serve an axum application, each on a runtime of one thread.
//!
//! `cargo run -p mcsup-core --features hyper --example axum`, then `curl http://127.0.0.1:8000`. `kill -HUP`
//! reloads it, and keeps all connections; Ctrl-C stops it.

use axum::{Router, routing::get};
use mcsup_core::{Prefork, Worker, WorkerContext, WorkerResult};

struct Web;

impl Worker for Web {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let app = Router::new().route("/", get(|| async { format!("{}\n", std::process::id()) }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(mcsup_core::serve(context, app))?)
    }
}

pub(crate) fn main() -> std::process::ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    Prefork::new(|| Web).bind(&address).workers(4).run().into()
}
