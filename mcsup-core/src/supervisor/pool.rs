//! A pool in a loop of its program.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use super::Supervisor;
use super::ending::Ending;
use super::event_loop::RunningPool;
use super::readiness::Readiness;
use crate::clock;
use crate::control::{Handle, handle};
use crate::error::{Error, Result};
use crate::policy::{Moment, Outcome};

/// A pool that its program steps, from [`Prefork::start`](crate::Prefork::start).
///
/// The program waits until the pool is readable (by poll(2), epoll(7), or a runtime of one thread) or until
/// [`deadline`](Self::deadline), and then calls [`step`](Self::step). It may call it at any other time too. A pool that
/// gets no step serves, but replaces no worker.
///
/// ```no_run
/// # use mcsup_core::{Prefork, Result, Worker, WorkerContext, Pool, Supervisor};
/// # fn wait<S: Supervisor>(pool: &Pool<S>) {}
/// # fn serve(supervisor: impl Supervisor) -> Result<mcsup_core::Ending> {
/// let mut pool = Prefork::new(supervisor).bind("127.0.0.1:7000").workers(4).start()?;
/// let ending = loop {
///     if let Some(ending) = pool.step() {
///         break ending;
///     }
///     wait(&pool); // Until `pool.as_fd()` is readable, another descriptor is, or `pool.deadline()` has come.
/// };
/// # Ok(ending)
/// # }
/// ```
///
/// A program may have several pools, sixteen at once, and step them in any order, but not from within a method of a
/// [`Supervisor`]. Workers get no descriptor of another pool. An upgrade is refused while there is another pool.
///
/// tokio's `AsyncFd` and mio's `SourceFd` take its descriptor. In a tokio runtime, which must have one thread, workers are
/// forked within that runtime, so a worker starts a runtime of its own in a new thread only.
///
/// # Children of the program
/// The program may start processes of its own. With a mold ([`Policy::preload`](crate::policy::Policy)), with
/// [`Config::children`](crate::Config), and as the first process of a container the pool reaps all children of this
/// process, also the program's: a wait for one of them fails then (ECHILD), and its exit status is lost. From then on all
/// pools of the process do. A program that needs such statuses uses [`Prefork::spawn`](crate::Prefork::spawn).
///
/// Leftovers ([`Children`](crate::Children)) are the processes in the group of an ended worker only: any other may be the
/// program's. So there are none at a terminal, where workers have no groups of their own.
///
/// # The end
/// Dropping a running pool is a quick stop: it waits until the last worker has ended, at most for
/// [`Policy::quick_timeout`](crate::policy::Policy::quick_timeout) and the time that SIGKILL takes. While the thread panics
/// it does not wait: the workers end by themselves, and the paths of Unix sockets stay.
#[derive(Debug)]
pub struct Pool<S: Supervisor> {
    /// `None`: it has ended.
    running: Option<RunningPool<S>>,
    readiness: Readiness,
    /// The time of the next step, as known at the end of the last one. It does not move while the program waits.
    deadline: Option<Moment>,
    outcome: Outcome,
    /// The process that has the pool. A process that the program forks has not.
    owner: u32,
}

impl<S: Supervisor> Pool<S> {
    /// The pool that `begin` returns; `None`: a dry run, which has ended already.
    pub(super) fn new(begin: impl FnOnce() -> Result<Option<RunningPool<S>>>) -> Result<Self> {
        // First: after an error nothing of the pool is left.
        let readiness = Readiness::new().map_err(|error| Error::system("make a poller", error))?;
        let mut running = begin()?;
        running.iter_mut().for_each(RunningPool::leave_to_the_program);
        let outcome = Outcome::Stopped;
        Ok(Self { running, readiness, deadline: None, outcome, owner: std::process::id() })
    }

    /// Handles all events since the last step without a wait. Returns the ending once the pool has ended.
    ///
    /// The last step alone may wait: for up to a second until clients and the service manager have read their last
    /// messages, and with [`Children::End`](crate::Children::End) for up to 3 more until leftovers have ended.
    ///
    /// After the end, also in the dry run of an upgrade, each step returns the outcome again, without the error.
    pub fn step(&mut self) -> Option<Ending> {
        let outcome = match &mut self.running {
            Some(running) => running.turn(),
            None => Some(self.outcome),
        };
        match outcome {
            Some(outcome) => Some(self.end(outcome)),
            None => {
                if let Some(running) = &mut self.running {
                    running.leave_to_the_program();
                }
                self.watch();
                self.deadline = self.next_deadline();
                None
            }
        }
    }

    /// The time of the next step without an event; `None`: an event comes first.
    pub fn deadline(&self) -> Option<Instant> {
        let Some(running) = &self.running else { return Some(Instant::now()) };
        // Another pool of this process may have reaped a process of this one since the last step.
        let deadline = self.deadline.into_iter().chain(running.deadline(clock::now())).min()?;
        Instant::now().checked_add(deadline.saturating_sub(clock::now()))
    }

    fn next_deadline(&self) -> Option<Moment> {
        let now = clock::now();
        let running = self.running.as_ref().and_then(|running| running.deadline(now));
        running.into_iter().chain(self.readiness.deadline(now)).min()
    }

    /// A further handle on the pool.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn handle(&mut self) -> Result<Handle> {
        let (handle, end) = handle::pair()?;
        if let Some(running) = &mut self.running {
            running.serve(end);
            running.withhold();
            self.watch();
            self.deadline = self.deadline.into_iter().chain(self.readiness.deadline(clock::now())).min();
        }
        Ok(handle)
    }

    fn end(&mut self, outcome: Outcome) -> Ending {
        self.outcome = outcome;
        self.readiness.stay_ready();
        match self.running.take() {
            Some(running) => running.finish(outcome),
            None => Ending::of(outcome, None),
        }
    }

    /// Makes the descriptor readable for the events of the next step.
    fn watch(&mut self) {
        if let Some(running) = &self.running {
            self.readiness.watch(&running.sources());
        }
    }
}

impl<S: Supervisor> AsFd for Pool<S> {
    /// Readable while there is an event for [`step`](Pool::step). It is the same descriptor for the pool's whole life.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl<S: Supervisor> AsRawFd for Pool<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<S: Supervisor> Drop for Pool<S> {
    fn drop(&mut self) {
        // After a panic the links close, and the workers end themselves.
        if self.owner != std::process::id() || std::thread::panicking() {
            return;
        }
        if let Some(mut running) = self.running.take() {
            running.stop();
            let _ = running.run();
        }
    }
}
