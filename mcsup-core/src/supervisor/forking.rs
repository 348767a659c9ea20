//! Forks of workers and molds, and the handles that the new process closes.

use std::io;
use std::sync::Arc;

use rustix::process::Pid;

use super::config::{Children, Config};
use super::effects::Executor;
use super::generation_configs::GenerationConfig;
use super::{ForkSide, Supervisor};
use crate::error::{Error, Result, one_line};
use crate::host::daemon;
use crate::link::channel;
use crate::link::fork_order::{self, ForkOrder};
use crate::link::scoreboard::ScoreboardRow;
use crate::policy::{Event, Place, WorkerId};
use crate::spawn::spec::{GenerationSpec, Listeners, MoldSpec, Origin, WorkerSpec};
use crate::spawn::{self, Hooks, Role, reap};
use crate::supervisor::crew::{Links, QueuedFork};
use crate::sys::ancestry::{self, ADOPTS};
use crate::sys::caught;
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;

/// Whether a worker that is forked now leads its own process group.
fn has_own_group(config: &Config) -> bool {
    config.children != Children::Ignore && ADOPTS && !daemon::has_terminal()
}

impl<S: Supervisor> Executor<S> {
    /// Forks a worker; `None`: its mold has the order, and will report the result.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        place: Place,
        mold: Option<WorkerId>,
        max_requests: Option<u64>,
    ) -> Option<Event> {
        if let Some(generation_config) = self.generation_configs.get(place.generation) {
            self.leftovers.note_listeners(&generation_config.listeners);
            self.leftovers.note_fork(has_own_group(&generation_config.config));
        }
        let made = self.take_row().and_then(|row| {
            let made = match mold {
                Some(mold) => self.order_worker((worker, mold), place, max_requests, &row),
                None => self.fork_worker(worker, place, max_requests, &row).map(Some),
            };
            if made.is_err() {
                self.crew.give_back(&row);
            }
            made
        });
        match made {
            Ok(pid) => pid.map(|pid| Event::Spawned { worker, pid: pid.as_raw_nonzero().get() }),
            Err(error) => Some(Event::SpawnFailed { worker, reason: one_line(&error.to_string()) }),
        }
    }

    /// Forks a mold.
    pub(super) fn spawn_mold(&mut self, mold: WorkerId, generation: u64) -> Event {
        if let Some(generation_config) = self.generation_configs.get(generation) {
            self.leftovers.note_fork(has_own_group(&generation_config.config));
        }
        match self.fork_mold(mold, generation) {
            Ok(pid) => Event::Spawned { worker: mold, pid: pid.as_raw_nonzero().get() },
            Err(error) => Event::SpawnFailed { worker: mold, reason: one_line(&error.to_string()) },
        }
    }

    fn fork_worker(
        &mut self,
        worker: WorkerId,
        Place { slot, generation }: Place,
        max_requests: Option<u64>,
        row: &ScoreboardRow,
    ) -> Result<Pid> {
        let generation_config = self.generation_config(generation)?;
        let (listeners, common) =
            (generation_config.listeners.for_slot(slot), self.generation_spec(generation, generation_config));
        let (link, end) = channel::pair().map_err(|error| Error::system("make a link", error))?;
        let spec = WorkerSpec {
            slot,
            number: worker.0,
            max_requests,
            listeners: Listeners::Open(listeners),
            end,
            row: row.clone(),
            common: Arc::new(common),
            origin: Origin::Supervisor,
        };
        let Some(pid) = self.fork()? else {
            drop(link);
            self.run_child(Role::Worker(Box::new(spec)))
        };
        self.crew.join(worker, pid, Links { link, row: Some(row.clone()), forks: None });
        Ok(pid)
    }

    fn fork_mold(&mut self, mold: WorkerId, generation: u64) -> Result<Pid> {
        let common = Arc::new(self.generation_spec(generation, self.generation_config(generation)?));
        let failed = |error: io::Error| Error::system("make a mold's links", error);
        ancestry::adopt_orphans().map_err(|error| Error::system("adopt what a mold will fork", error))?;
        self.crew.adopts();
        let (link, end) = channel::pair().map_err(failed)?;
        let (ours, forks) = fork_order::pair().map_err(failed)?;
        let spec = MoldSpec { end, forks, board: self.crew.board(), common };
        let Some(pid) = self.fork()? else {
            drop((link, ours));
            self.run_child(Role::Mold(Box::new(spec)))
        };
        self.crew.join(mold, pid, Links { link, row: None, forks: Some(ours) });
        Ok(pid)
    }

    /// Orders a mold to fork a worker, whose pid is unknown until it reports `Born`.
    fn order_worker(
        &mut self,
        (worker, mold): (WorkerId, WorkerId),
        Place { slot, generation }: Place,
        max_requests: Option<u64>,
        row: &ScoreboardRow,
    ) -> Result<Option<Pid>> {
        let generation_config = self.generation_config(generation)?;
        let (link, end) = channel::pair().map_err(|error| Error::system("make a link", error))?;
        let listeners = generation_config.listeners.for_slot(slot);
        let order = ForkOrder {
            worker: worker.0,
            slot,
            row: row.index(),
            max_requests,
            listeners: listeners.describe(),
        };
        let links = Links { link, row: Some(row.clone()), forks: None };
        self.crew.order((worker, mold), links, QueuedFork { order, end, listeners })?;
        Ok(None)
    }

    fn take_row(&mut self) -> Result<ScoreboardRow> {
        self.crew.take_row().ok_or_else(|| {
            Error::system("take a scoreboard line", io::Error::other("too many workers at once"))
        })
    }

    fn generation_config(&self, generation: u64) -> Result<&GenerationConfig> {
        let missing =
            || Error::system("fork", io::Error::other(format!("there is no generation {generation}")));
        self.generation_configs.get(generation).ok_or_else(missing)
    }

    fn generation_spec(&self, generation: u64, generation_config: &GenerationConfig) -> GenerationSpec {
        let config = &generation_config.config;
        GenerationSpec {
            generation,
            handover: Arc::clone(&self.handover),
            run_as: config.run_as.clone(),
            supervisor: self.pid,
            descriptors: self.attributes.descriptors,
            graceful_timeout: config.policy.graceful_timeout,
            has_own_group: has_own_group(config),
            name: config.name.clone(),
            title: config.title.clone(),
            threads: config.mold_threads,
            own_listeners: config.listeners.clone(),
        }
    }

    /// Forks; `None` in the child, which unblocks the signals after it has installed its handlers.
    fn fork(&mut self) -> Result<Option<Pid>> {
        // No signal may reach the child before its handlers; those of the supervisor wait meanwhile.
        let blocked = AllBlocked::new();
        // The new process closes the descriptors of this pool itself, and keeps some.
        self.share();
        self.supervisor.before_fork().map_err(|error| Error::system("fork", error))?;
        let forked = fork::fork().map(|side| match side {
            Side::Parent(pid) => Some(pid),
            Side::Child => None,
        });
        if let Ok(None) = forked {
            std::mem::forget(blocked);
            return Ok(None);
        }
        self.supervisor.after_fork();
        drop(blocked);
        forked.map_err(|error| Error::system("fork", error))
    }

    /// In the child: closes the handles of the supervisor, and runs `role`. The caller has closed the supervisor's ends
    /// of the links to the child.
    fn run_child(&mut self, role: Role) -> ! {
        let close = || {
            self.crew.close_in_child();
            // Also those of other pools in the process.
            caught::leave_in_child();
            reap::leave_in_child();
            self.signals = None;
            self.pid_file = None;
            self.operators.close_in_child();
            self.service.close_in_child();
            self.upgrader.close_in_child();
            self.preparing.close_in_child();
            self.slots.close_in_child();
            drop(std::mem::take(&mut self.generation_configs));
        };
        spawn::run_process(role, close, Embedding(&mut self.supervisor.0))
    }
}

/// The [`Supervisor`]'s hooks in the processes that it has forked.
struct Embedding<'a, S>(&'a mut S);

impl<S: Supervisor> Hooks for Embedding<'_, S> {
    type Worker = S::Worker;

    fn make(&mut self, generation: u64) -> S::Worker {
        self.0.worker(generation)
    }

    fn before_fork(&mut self) {
        self.0.before_fork();
    }

    fn after_fork(&mut self, is_child: bool) {
        self.0.after_fork(if is_child { ForkSide::Worker } else { ForkSide::Mold });
    }
}
