//! A pool of four workers that send each datagram back in capital letters.
//!
//! `cargo run --example udp`, then `nc -u 127.0.0.1 7001`; reload it with `kill -HUP`, stop it with Ctrl-C.
//!
//! The supervisor holds the socket, so a datagram that no worker has read yet waits there while workers are
//! replaced.

use std::os::fd::AsFd;

use mcsup_core::{Prefork, Worker, WorkerContext, WorkerResult};

struct Shout;

impl Worker for Shout {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let sockets = context.udp_sockets()?;
        let sources: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let mut buffer = [0; 65_535];
        while let Some(readable) = context.readable(&sources)? {
            for socket in readable.iter().map(|index| &sockets[*index]) {
                // Another worker may have been faster.
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                context.request_began();
                buffer[..length].make_ascii_uppercase();
                // A client that is gone is no reason to end.
                let _ = socket.send_to(&buffer[..length], client);
                context.request_ended();
            }
        }
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "udp://127.0.0.1:7001".to_owned());
    Prefork::new(|| Shout).bind(&address).workers(4).run().into()
}
