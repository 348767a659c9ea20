//! A pre-fork process supervisor as a library: a pool of worker processes on shared sockets.
//!
//! # What it is
//! An embedder implements [`Worker`] (the work of each process) and passes a closure that creates one to
//! [`Prefork`]. The process that calls [`Prefork::run`] becomes the *supervisor*: it owns the listeners, the
//! signals and the pid file, forks the workers, and replaces those that die. It has one thread and runs none
//! of the workers' code.
//!
//! # The flow
//! | step | module |
//! |---|---|
//! | open the listeners | [`listener`] |
//! | wait for events | `supervisor/event_loop` |
//! | decide | [`policy`], pure |
//! | act | `supervisor/effects` |
//! | fork a worker, or have a mold fork it | `spawn/child`, `spawn/mold`, `sys/fork` |
//! | report *ready*, order *drain* | `link/` |
//! | serve | [`Worker::run`] with a [`WorkerContext`] |
//! | run a program of another language as a worker | [`program`] |
//! | take an operator's request, and reply | [`control`] |
//! | replace the supervisor's program | [`upgrade`] |
//! | reap, and name the cause | `spawn/reap`, `supervisor/journal` |
//!
//! # Ways to run a pool
//! | the program | calls |
//! |---|---|
//! | has nothing else to do | [`Prefork::run`] |
//! | has a loop of its own, or several pools | [`Prefork::start`], then [`Pool::step`] |
//! | starts threads | [`Prefork::spawn`] before that; [`Spawned`] waits for the end |
//! | changes the pool from code | [`Prefork::handle`]; each request of the [`Handle`] has a [`Ticket`] |
//! | handles signals itself | [`Prefork::signals`] |
//! | observes the pool | [`Supervisor::observe`], with a [`PoolEvent`] |
//!
//! # Guarantees
//! - A worker is ready when its boot has returned `Ok`, never by a timer (but for a program whose settings ask
//!   for one). The old generation serves until a
//!   new one is ready, and goes on without a pause if the new one fails.
//! - When the supervisor dies, its workers finish their requests and end; the listeners are free at once.
//! - Every death is reaped once and logged with its cause, as far as the cause is known.
//! - A slot whose workers keep dying is refilled after ever longer delays; a pool that cannot boot ends with
//!   a reason.
//!
//! # Sockets
//! | work | a pool gets it by | a worker takes it by |
//! |---|---|---|
//! | connections: TCP, Unix stream and seqpacket, vsock | [`Prefork::bind`] | [`WorkerContext::accept`] |
//! | datagrams: UDP, Unix | [`Prefork::bind`] | [`WorkerContext::udp_sockets`], [`readable`](WorkerContext::readable) |
//! | sockets of the service manager | [`Prefork::listen_fds`] | as above |
//! | the program's own | [`Prefork::listener`] | [`Listener::accept`], behind [`WorkerContext::accept`] |
//! | sockets for a runtime that owns them | as above | [`WorkerContext::tcp_listeners`], [`duplicate`](WorkerContext::duplicate) |
//! | jobs of a queue | [`Prefork::without_listeners`] | [`WorkerContext::pause`], [`readable`](WorkerContext::readable) |
//!
//! # Features
//! None is on by default, and the core has no runtime.
//! - `tokio`: `WorkerContext::accept_async` and `draining`.
//! - `hyper`: `serve`, which lets a worker serve axum's `Router` or another tower service over HTTP/1.1. A reload
//!   closes none of its connections.
//!
//! # Not here
//! Without the feature `hyper` the crate speaks no protocol. It embeds no language and prints nothing: log lines
//! go to [`log`], and a program without a logger has no log. A library error never ends the process; [`Ending`]
//! converts to an exit code, and `main` decides.
//!
//! # Where to start reading
//! `policy/machine.rs`, then `supervisor/event_loop.rs`: the loop has twenty lines.

mod clock;
pub mod control;
mod error;
pub mod host;
mod link;
pub mod listener;
pub mod policy;
pub mod program;
#[cfg(feature = "hyper")]
mod serve;
mod spawn;
mod supervisor;
mod sys;
pub mod testing;
pub mod upgrade;
mod worker;

pub use control::{Handle, Ticket};
pub use error::{Error, ErrorKind, Result};
pub use link::lifeline::THREAD_NAME as LIFELINE_THREAD;
pub use listener::{Address, Connection, Listener, Local};
pub use program::Program;
#[cfg(feature = "hyper")]
pub use serve::{Peer, RequestBody, serve, serve_with};
pub use spawn::spec::MoldThreads;
pub use supervisor::config::{Children, Config};
pub use supervisor::{
    Ending, ForkSide, Pool, PoolEvent, PoolProcess, Prefork, Preparation, Spawned, Supervisor,
};
#[cfg(feature = "tokio")]
pub use worker::AsyncConnection;
pub use worker::{
    MAX_HANDED, Phase, Sibling, SignalsBlocked, Unshared, Worker, WorkerContext, WorkerResult, between_forks,
    is_forked_off, restart_companions, stop_companions, with_companion,
};
