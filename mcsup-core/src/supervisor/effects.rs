//! What the policy asked for, done: one function for each effect that is more than a line.

use std::sync::Arc;

use rustix::process::{Pid, Signal};

use super::config::Config;
use super::crew::Crew;
use super::journal;
use super::signals::Signals;
use super::{ForkSide, Supervisor};
use crate::error::{Error, Result};
use crate::host::pidfile::PidFile;
use crate::link::channel::{self, WorkerEnd};
use crate::link::handover::Handover;
use crate::link::message::Order;
use crate::link::scoreboard::Seat;
use crate::listener::open::OpenSet;
use crate::policy::{BootFailure, Effect, Event, Notice, Outcome, WorkerId};
use crate::spawn::child::{self, Birth};
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;

/// The supervisor's handles on the world, and the acts that use them.
#[derive(Debug)]
pub(crate) struct Executor<S> {
    pub(crate) supervisor: S,
    /// This process.
    pub(crate) pid: Pid,
    pub(crate) config: Config,
    pub(crate) signals: Option<Signals>,
    pub(crate) crew: Crew,
    pub(crate) listeners: OpenSet,
    /// Between the workers; nothing of it is the supervisor's business.
    pub(crate) handover: Arc<Handover>,
    pub(crate) pid_file: Option<PidFile>,
    /// Why the first generation could not boot, for the caller of the library.
    pub(crate) boot_failure: Option<BootFailure>,
}

impl<S: Supervisor> Executor<S> {
    /// Does `effect`; returns what came of it at once, and the outcome where nothing is left to do.
    pub(crate) fn apply(&mut self, effect: Effect, events: &mut Vec<Event>) -> Option<Outcome> {
        match effect {
            Effect::Spawn { worker, slot, generation, .. } => {
                events.push(match self.spawn(worker, slot, generation) {
                    Ok(pid) => Event::Spawned { worker, pid: pid.as_raw_nonzero().get() },
                    Err(error) => Event::SpawnFailed { worker, reason: error.to_string() },
                });
            }
            Effect::Drain { worker, how } => self.crew.say(worker, Order::Drain(how)),
            Effect::Quit { worker } => self.crew.say(worker, Order::Quit),
            Effect::ReopenLogs { worker } => self.crew.say(worker, Order::ReopenLogs),
            Effect::Abort { worker } => self.crew.signal(worker, Signal::ABORT),
            Effect::Kill { worker } => self.crew.signal(worker, Signal::KILL),
            Effect::CloseListeners => self.close_listeners(),
            Effect::PoolReady => self.supervisor.ready(),
            Effect::Tell(notice) => self.tell(&notice),
            Effect::End(outcome) => return Some(outcome),
            Effect::Prepare { generation } => {
                events.push(Event::Prepared { generation, policy: None, closes_listeners: false });
            }
            _ => {}
        }
        None
    }

    /// Closes our listeners, and takes their paths away so that nobody new comes.
    pub(crate) fn close_listeners(&mut self) {
        self.listeners.withdraw();
        self.listeners = OpenSet::default();
    }

    fn tell(&mut self, notice: &Notice) {
        if let Notice::BootFailed { failure, .. } = notice {
            self.boot_failure.get_or_insert_with(|| failure.clone());
        }
        journal::write(notice);
    }

    fn spawn(&mut self, worker: WorkerId, slot: usize, generation: u64) -> Result<Pid> {
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
            self.become_worker(slot, generation, theirs, seat);
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
    fn become_worker(&mut self, slot: usize, generation: u64, end: WorkerEnd, seat: Seat) -> ! {
        self.crew.let_go();
        self.signals = None;
        self.pid_file = None;
        self.supervisor.after_fork(ForkSide::Worker);
        let birth = Birth {
            slot,
            generation,
            listeners: std::mem::take(&mut self.listeners),
            handover: Arc::clone(&self.handover),
            end,
            seat,
            run_as: self.config.run_as.take(),
            supervisor: self.pid,
            graceful_timeout: self.config.policy.graceful_timeout,
            name: self.config.name.take(),
        };
        child::live(birth, || self.supervisor.worker())
    }
}
