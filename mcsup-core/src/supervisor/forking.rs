//! Forks: what the supervisor does to make a worker or a mold, and what the new process lets go of.

use std::sync::Arc;

use rustix::process::Pid;

use super::effects::Executor;
use super::{ForkSide, Supervisor};
use crate::error::{Error, Result};
use crate::link::channel::{self, WorkerEnd};
use crate::link::scoreboard::Seat;
use crate::policy::{Event, WorkerId};
use crate::spawn::child::{self, Birth};
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;

impl<S: Supervisor> Executor<S> {
    /// Makes a worker; `None`: its mold has been told, and will say what came of it.
    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        (slot, generation): (usize, u64),
        mold: Option<WorkerId>,
        enough: u64,
    ) -> Option<Event> {
        let _ = mold;
        Some(match self.fork_worker(worker, (slot, generation), enough) {
            Ok(pid) => Event::Spawned { worker, pid: pid.as_raw_nonzero().get() },
            Err(error) => Event::SpawnFailed { worker, reason: error.to_string() },
        })
    }

    /// Makes a mold.
    pub(super) fn spawn_mold(&mut self, mold: WorkerId, _generation: u64) -> Event {
        Event::SpawnFailed { worker: mold, reason: "not yet".to_owned() }
    }

    fn fork_worker(
        &mut self,
        worker: WorkerId,
        (slot, generation): (usize, u64),
        enough: u64,
    ) -> Result<Pid> {
        let (ours, theirs) = channel::pair().map_err(|error| Error::system("make a link", error))?;
        let seat = self.crew.take_seat().ok_or_else(|| {
            Error::system("take a scoreboard line", std::io::Error::other("too many workers at once"))
        })?;
        // Until the child has taken the signals over, none may reach it; the supervisor's own wait as long.
        let blocked = AllBlocked::new();
        self.supervisor.before_fork();
        let forked = fork::fork();
        if let Ok(Side::Child) = forked {
            // It unblocks them itself, when it is ready for them.
            std::mem::forget(blocked);
            drop(ours);
            self.become_worker((slot, generation), enough, theirs, seat);
        }
        self.supervisor.after_fork(ForkSide::Supervisor);
        drop(blocked);
        match forked {
            Ok(Side::Parent(pid)) => {
                self.crew.join(worker, pid, ours, seat);
                Ok(pid)
            }
            Ok(Side::Child) => Err(Error::system("fork", std::io::Error::other("both sides are the child"))),
            Err(error) => {
                self.crew.give_back(&seat);
                Err(Error::system("fork", error))
            }
        }
    }

    /// In the child: lets go of everything that is the supervisor's, and lives as a worker.
    fn become_worker(
        &mut self,
        (slot, generation): (usize, u64),
        max_requests: u64,
        end: WorkerEnd,
        seat: Seat,
    ) -> ! {
        self.crew.let_go();
        self.signals = None;
        self.pid_file = None;
        self.operators.let_go();
        let editions = std::mem::take(&mut self.editions);
        let Some(edition) = editions.get(generation) else { fork::exit_now(1) };
        let birth = Birth {
            slot,
            generation,
            listeners: edition.listeners.for_slot(slot),
            handover: Arc::clone(&self.handover),
            end,
            seat,
            max_requests,
            run_as: edition.config.run_as.clone(),
            supervisor: self.pid,
            graceful_timeout: edition.config.policy.graceful_timeout,
            name: edition.config.name.clone(),
        };
        drop(editions);
        self.supervisor.after_fork(ForkSide::Worker);
        child::live(birth, || self.supervisor.worker(generation))
    }
}
