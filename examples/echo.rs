//! A pool of four workers that send back what they receive.
//!
//! `cargo run --example echo`, then `nc 127.0.0.1 7000`; stop it with Ctrl-C.

use mcsup_core::{Ending, Prefork, Worker, WorkerContext, WorkerResult};

struct Echo;

impl Worker for Echo {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut connection) = context.accept()? {
            std::io::copy(&mut connection.try_clone()?, &mut connection)?;
        }
        Ok(())
    }
}

fn main() -> Ending {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    Prefork::new(|| Echo).bind(&address).workers(4).run()
}
