//! A pre-fork process supervisor as a library: a pool of worker processes on shared sockets, for years, without an
//! operator's help.
//!
//! # What it is
//! An embedder implements [`Worker`] (what each process does) and hands a closure that makes one to [`Prefork`]. The
//! process that calls [`Prefork::run`] becomes the *supervisor*: it owns the listeners, the signals and the pid file,
//! forks the workers, and replaces whatever dies. It has one thread and runs none of the workers' code.
//!
//! # The flow
//! | verb | where |
//! |---|---|
//! | open the listeners | [`listener`] |
//! | wait for something to happen | `supervisor/life` |
//! | decide what to do about it | [`policy`], pure |
//! | do it | `supervisor/effects` |
//! | fork a worker, or have a mold fork it | `spawn/child`, `spawn/mold`, `sys/fork` |
//! | say *ready*, hear *drain* | `link/` |
//! | serve | [`Worker::run`] with a [`WorkerContext`] |
//! | hear an operator, and answer | [`control`] |
//! | let another image take over | [`upgrade`] |
//! | reap, and name the cause | `spawn/reap`, `supervisor/journal` |
//!
//! # Guarantees
//! - A worker is ready when its boot returned `Ok`, never by a timer; until a new generation is ready the old one
//!   serves, and if it fails the old one never stopped.
//! - When the supervisor dies, however it dies, its workers finish what they have and end; the listeners are free at
//!   once.
//! - Every death is reaped once and told with its cause, as far as it can be known and no further.
//! - A slot that keeps dying is filled again ever later; a pool that cannot boot ends with a reason.
//!
//! # Not here
//! No protocol is spoken, no language is embedded, nothing is printed: lines go to [`log`]. A library error never
//! ends the process; [`Ending`] converts to an exit code, and `main` decides.
//!
//! # Where to start reading
//! [`policy::Machine`], then `supervisor/life.rs`: the loop is twenty lines.

mod clock;
pub mod control;
pub mod error;
pub mod host;
mod link;
pub mod listener;
pub mod policy;
mod spawn;
mod supervisor;
mod sys;
pub mod upgrade;
pub mod worker;

pub use error::{Error, ErrorKind, Result};
pub use link::lifeline::THREAD_NAME as LIFELINE_THREAD;
pub use listener::{Address, Connection, Listener, Local};
pub use spawn::birth::MoldThreads;
pub use supervisor::config::{Children, Config};
pub use supervisor::{Ending, ForkSide, Prefork, Supervisor};
pub use worker::{
    MAX_HANDED, Phase, Sibling, SignalsBlocked, Unshared, Worker, WorkerContext, beside, between_forks,
    call_companions_back, is_forked_off, send_companions_away,
};
