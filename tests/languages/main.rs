//! Workers in Rust for the end-to-end tests: `workers axum|udp ADDRESS`.
//!
//! A pool of two in the current directory: its control socket is `pool.ctl`, its pid file `pool.pid`. A worker boots
//! with the text of the file `version`, unless it is "broken".

use std::os::fd::AsFd;
use std::process::ExitCode;

use axum::{Router, routing::get};
use mcsup_core::{Children, Prefork, Worker, WorkerContext, WorkerResult};

enum Kind {
    Axum,
    Udp,
}

struct Versioned(Kind);

impl Worker for Versioned {
    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        match std::fs::read_to_string("version")?.trim() {
            "broken" => Err("the version is broken".into()),
            _ => Ok(()),
        }
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        match self.0 {
            Kind::Axum => web(context),
            Kind::Udp => echo(context),
        }
    }
}

fn web(context: &WorkerContext) -> WorkerResult {
    let app = Router::new().route("/", get(|| async { format!("{}\n", std::process::id()) }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(mcsup_core::serve(context, app))?)
}

fn echo(context: &WorkerContext) -> WorkerResult {
    let sockets = context.udp_sockets()?;
    let sources: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut buffer = [0; 65_535];
    while let Some(readable) = context.readable(&sources)? {
        for socket in readable.iter().map(|index| &sockets[*index]) {
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            let _ = socket.send_to(&buffer[..length], client);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, address] = &arguments[..] else { return ExitCode::from(2) };
    let is_udp = kind == "udp";
    let pool = move || Versioned(if is_udp { Kind::Udp } else { Kind::Axum });
    let address = if is_udp { format!("udp://{address}") } else { address.clone() };
    Prefork::new(pool)
        .bind(&address)
        .workers(2)
        .control_socket("pool.ctl")
        .pid_file("pool.pid")
        .children(Children::End)
        .run()
        .into()
}
