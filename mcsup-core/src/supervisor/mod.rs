//! The supervisor process: one thread that waits for events, and applies the effects of the [`policy`](crate::policy).
//!
//! - [`config`]: the settings, grouped by their readers.
//! - [`prefork`]: the builder; `ending`: the result of its run.
//! - `hooks`: calls of the embedder's code.
//! - `signals`: received signals, as pending marks and one pipe.
//! - [`preparing`]: the preparation of a reload.
//! - `generation_configs`: the settings and listeners of each generation.
//! - `crew`: the handles of the living workers and molds.
//! - `effects`: applies the effects of the policy; `forking`: those that make processes.
//! - `failed_start`: the first reason of a start that fails.
//! - `operator`: requests at the control socket, and their answers; `report`: the status of the pool.
//! - `slots`: the sockets of slots that begin or end; `orphaned`: the connections of ended slots.
//! - `leftovers`: processes of the application that outlive their worker.
//! - `journal`: the log messages; `history`: numbers and causes for `mcsup status`.
//! - `service`: messages to the service manager.
//! - [`pool_event`]: the events of a pool, for its program; `observations`: makes them.
//! - `attributes`: the attributes of the process before the pool, which are restored after it.
//! - `upgrading`: checks and executes another image; `resumption`: adopts the handles in that image.
//! - [`pool`]: the loop in pieces, for a program with a loop of its own; `readiness`: one descriptor for all events.
//! - [`spawning`]: a supervisor in a process of its own.
//! - `event_loop`: the loop; `stall_detector`: delays of the supervisor; `waiting`: the wait for events.

mod attributes;
mod crew;
mod effects;
mod ending;
mod event_loop;
mod failed_start;
mod forking;
mod generation_configs;
mod history;
mod hooks;
mod journal;
mod leftovers;
pub(crate) mod observations;
pub(crate) mod operator;
mod orphaned;
mod pool;
mod pool_event;
mod prefork;
mod preparing;
mod readiness;
pub(crate) mod report;
mod resumption;
mod service;
mod signals;
mod slots;
mod spawning;
mod stall_detector;
mod upgrading;
mod waiting;

pub(crate) mod config;

pub use ending::Ending;
pub use pool::Pool;
pub use pool_event::{PoolEvent, PoolProcess};
pub use prefork::Prefork;
pub use preparing::Preparation;
pub use spawning::Spawned;

use std::time::Duration;

use crate::error::Result;
use crate::listener::Local;
use crate::worker::Worker;
use config::Config;

/// Which process [`Supervisor::after_fork`] runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkSide {
    /// The supervisor, after its fork.
    Supervisor,
    /// A mold, after its fork.
    Mold,
    /// The new process: a worker or a mold.
    Worker,
}

/// The embedder's part of a pool. A closure that makes a worker implements it, with the defaults.
///
/// Every method but [`worker`](Self::worker) and those around a fork runs on the one thread of the supervisor process.
/// The supervisor handles no event meanwhile, so no method but [`starting`](Self::starting) may wait.
///
/// A panic in a method is logged with the method's name, and the pool goes on. In [`reload`](Self::reload) it fails the
/// reload, in [`before_fork`](Self::before_fork) it fails the fork, and in a new process it fails the boot.
///
/// With a mold ([`Policy::preload`](crate::policy::Policy)) or a search for leftovers
/// ([`Config::children`](crate::Config)) the process adopts its workers' orphans and reaps all its children, and so does
/// the first process of a container. A method that starts a child must wait for it.
pub trait Supervisor {
    /// The code that runs in each worker.
    type Worker: Worker;

    /// Makes a worker of `generation`. Called in the new process, before [`Worker::load`].
    fn worker(&mut self, generation: u64) -> Self::Worker;

    /// A new pool is about to open its listeners. It holds its pid file, so no other server with that file runs.
    ///
    /// The supervisor handles no signal yet.
    fn starting(&mut self) {}

    /// The listeners are open.
    fn listening(&mut self, locals: &[&Local]) {
        for local in locals {
            log::info!("Listening at: {local} ({})", std::process::id());
        }
    }

    /// This image has taken over from another one. Called instead of [`starting`](Self::starting),
    /// [`listening`](Self::listening) and [`ready`](Self::ready), with the open listeners.
    ///
    /// Workers of generations that only the other image knew are made as those of the first.
    fn taken_over(&mut self, locals: &[&Local]) {
        let _ = locals;
    }

    /// The listeners of `generation`, which a reload is about to boot, are open.
    ///
    /// The serving generation keeps its own. If the reload fails, [`forget`](Self::forget) follows.
    fn opened(&mut self, generation: u64, locals: &[&Local]) {
        let _ = (generation, locals);
    }

    /// The first worker of the pool's life is ready; at this moment `ready` of `target` workers are.
    fn ready(&mut self, ready: usize, target: usize) {
        let _ = (ready, target);
    }

    /// Begins to read the settings for a reload to `generation`, if that takes time. `None`: it takes none.
    ///
    /// The pool serves meanwhile. [`reload`](Self::reload) is called at the end of the time, and [`forget`](Self::forget)
    /// instead if the reload ends before, because the pool stops or a newer reload replaces it.
    ///
    /// # Errors
    /// The settings cannot be read. The reload ends, and nothing changes.
    fn prepare_reload(&mut self, generation: u64) -> Result<Option<Preparation>> {
        let _ = generation;
        Ok(None)
    }

    /// Reads the settings again for a reload to `generation`. `None`: they are unchanged.
    ///
    /// Workers of older generations keep their settings.
    ///
    /// # Errors
    /// The new settings are invalid. The reload ends, and nothing changes.
    fn reload(&mut self, generation: u64) -> Result<Option<Config>> {
        let _ = generation;
        Ok(None)
    }

    /// No worker of `generation` will be made any more.
    fn forget(&mut self, generation: u64) {
        let _ = generation;
    }

    /// Observes an event of the pool, after its log line.
    ///
    /// A [`Handle`](crate::Handle) may send a request from here; its outcome comes later. In a pool of
    /// [`Prefork::spawn`](crate::Prefork::spawn) this runs in the supervisor's process, and a channel in the program's
    /// memory does not reach the program.
    fn observe(&mut self, event: &PoolEvent) {
        let _ = event;
    }

    /// A text for the return to this image, if the image of an upgrade fails after the exec.
    /// [`Resumption::note`](crate::upgrade::Resumption::note) has it there: settings whose source may be gone by then,
    /// for example.
    fn note(&self) -> Option<String> {
        None
    }

    /// Opens log files again.
    fn reopen_logs(&mut self) {}

    /// The loop is about to wait for the next event. Returns the longest time until the next call; `None`: an event comes
    /// first.
    ///
    /// For work that no event of the pool brings about, such as records that wait for a log server.
    fn before_wait(&mut self) -> Option<Duration> {
        None
    }

    /// Runs before a fork, in the supervisor or in a mold, for the hooks of a host language.
    fn before_fork(&mut self) {}

    /// Runs after a fork in both processes; after a failed fork in the calling process only.
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
