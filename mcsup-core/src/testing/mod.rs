//! For the tests of an embedder: a worker without a fork, and a pool with simulated processes.
//!
//! - [`WorkerSetup`] makes a [`WorkerContext`](crate::WorkerContext) in the test's own process, with real listeners.
//!   A [`Remote`] plays its supervisor; a [`RunningWorker`] runs a [`Worker`](crate::Worker) on a thread.
//! - [`Simulation`] runs a [`Supervisor`](crate::Supervisor) in a pool whose processes and clock are simulated: the
//!   decisions are those of a real pool, hours pass in milliseconds, and each run is the same.
//!
//! # A worker
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use mcsup_core::testing::WorkerSetup;
//! use mcsup_core::{Worker, WorkerContext, WorkerResult};
//!
//! struct Echo;
//!
//! impl Worker for Echo {
//!     fn run(&mut self, context: &WorkerContext) -> WorkerResult {
//!         while let Some(mut connection) = context.accept()? {
//!             std::io::copy(&mut connection.try_clone()?, &mut connection)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let worker = WorkerSetup::new().bind("127.0.0.1:0").run(Echo)?;
//! let mut client = std::net::TcpStream::connect(worker.address().ok_or("no address")?)?;
//! // It is queued when the pool stops, and a drain loses no queued client.
//! worker.drain();
//! client.write_all(b"hello")?;
//! client.shutdown(std::net::Shutdown::Write)?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello");
//! worker.finish(Duration::from_secs(5))?;
//! # Ok(()) }
//! ```
//!
//! # A supervisor
//! ```
//! use std::time::Duration;
//! use mcsup_core::testing::{Behaviour, Simulation};
//! use mcsup_core::{Config, Worker, WorkerContext, WorkerResult};
//!
//! # struct Echo;
//! # impl Worker for Echo { fn run(&mut self, _: &WorkerContext) -> WorkerResult { Ok(()) } }
//! let mut config = Config { addresses: vec!["127.0.0.1:80".parse().unwrap()], ..Config::default() };
//! config.policy.workers = 2;
//! let mut pool = Simulation::start(|| Echo, config).unwrap();
//! pool.pass(Duration::from_secs(1));
//! assert_eq!(pool.ready(), 2);
//!
//! // The next version does not boot.
//! pool.behave(|_| Behaviour::fails_to_boot("no database"));
//! let reload = pool.reload();
//! pool.pass(Duration::from_secs(1));
//! let reply = pool.reply(reload).unwrap();
//! assert_eq!(reply.message, "no database; the old generation goes on serving");
//! assert_eq!((pool.ready(), pool.generation()), (2, 1));
//! ```

mod behaviour;
mod remote;
mod running;
mod setup;
mod simulation;
mod world;

pub use behaviour::Behaviour;
pub use remote::{Counters, Remote, TestSibling, WorkerReport};
pub use running::{RunningWorker, StillRunning};
pub use setup::WorkerSetup;
pub use simulation::{RequestId, SimulatedWorker, Simulation};
