//! The supervisor process: one thread that waits, decides by [`policy`](crate::policy), and acts.
//!
//! - [`config`]: the settings, grouped by their readers.
//! - [`prefork`]: the builder.
//! - `signals`: what arrives from kill(2), as pending bits and one pipe.
//! - `generation_configs`: the settings and listeners of each generation.
//! - `crew`: the handles of the living workers and molds.
//! - `effects`: what the policy asked for, done; `forking`: the part of it that makes processes.
//! - `failed_start`: the first reason of a start that fails.
//! - `operator`: requests at the control socket, and their answers; `report`: the state of the pool, for a request.
//! - `slots`: sockets of slots that begin or end; `orphaned`: connections of those that have ended.
//! - `leftovers`: processes of the application that outlive their worker.
//! - `journal`: what the operator reads; `history`: what is kept of it.
//! - `given`: what is changed of the process, and put back.
//! - `upgrading`: another image is tried and executed; `resumption`: such an image takes over the handles.
//! - `event_loop`: the loop; `stall_detector`: whether it runs when it should; `waiting`: its wait for what happens.

mod crew;
mod effects;
mod event_loop;
mod failed_start;
mod forking;
mod generation_configs;
mod given;
mod history;
mod journal;
mod leftovers;
mod operator;
mod orphaned;
mod prefork;
mod report;
mod resumption;
mod signals;
mod slots;
mod stall_detector;
mod upgrading;
mod waiting;

pub(crate) mod config;

pub use prefork::{Ending, Prefork};

use crate::error::Result;
use crate::listener::Local;
use crate::worker::Worker;
use config::Config;

/// Which process [`Supervisor::after_fork`] runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSide {
    /// The supervisor, which has forked.
    Supervisor,
    /// A mold, which has forked.
    Mold,
    /// The new one: a worker or a mold.
    Worker,
}

/// What an embedder decides about its pool. A closure that makes a worker is a supervisor with defaults for the rest.
///
/// Every method but [`worker`](Self::worker) and those around a fork runs in the supervisor process, on its one thread;
/// while one runs, nothing else happens, so none may wait.
///
/// With a mold ([`Policy::preload`](crate::policy::Policy)), or where leftovers are looked for
/// ([`Config::children`](crate::Config)), the process is given its workers' orphans and reaps all its children. A method
/// that starts one waits for it.
pub trait Supervisor {
    /// The code that runs in each worker.
    type Worker: Worker;

    /// Makes a worker of `generation`. Called in the new process, before [`Worker::load`].
    fn worker(&mut self, generation: u64) -> Self::Worker;

    /// The listeners are open.
    fn listening(&mut self, locals: &[&Local]) {
        for local in locals {
            log::info!("Listening at: {local} ({})", std::process::id());
        }
    }

    /// This image has taken the place of another: instead of [`listening`](Self::listening) and [`ready`](Self::ready),
    /// which were called there. Workers of generations that only the other image knew are made as those of the first.
    fn taken_over(&mut self) {}

    /// The first worker is ready: `ready` of `target` workers are, in the whole life of the pool for the first time.
    fn ready(&mut self, ready: usize, target: usize) {
        let _ = (ready, target);
    }

    /// A reload was asked for: reads the settings again for the workers of a new `generation`; those of older
    /// generations go on with theirs. `None`: they are what they were.
    ///
    /// # Errors
    /// What is wrong with the new settings. The reload is given up, and everything stays as it is.
    fn reload(&mut self, generation: u64) -> Result<Option<Config>> {
        let _ = generation;
        Ok(None)
    }

    /// No worker of `generation` will be made any more.
    fn forget(&mut self, generation: u64) {
        let _ = generation;
    }

    /// Opens log files again.
    fn reopen_logs(&mut self) {}

    /// A fork is about to happen, in the supervisor or in a mold: for a host language that must know.
    fn before_fork(&mut self) {}

    /// It has happened (or failed: then only the process that forked sees it).
    fn after_fork(&mut self, side: ForkSide) {
        let _ = side;
    }
}

impl<F, W> Supervisor for F
where
    F: FnMut() -> W,
    W: Worker,
{
    type Worker = W;

    fn worker(&mut self, _: u64) -> W {
        self()
    }
}
