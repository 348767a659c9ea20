//! What a worker is handed by its supervisor: the listeners, what is expected of it, and a place for signs of life.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::link::channel::WorkerEnd;
use crate::link::handover::Handover;
use crate::link::lifeline::{Duty, Phase};
use crate::link::message::Report;
use crate::link::scoreboard::{Seat, Sibling};
use crate::listener::Listener;
use crate::listener::open::OpenSet;
use crate::sys::{companion, descriptor};

/// A worker's view of its supervisor. A copy is the same view, for a thread of the worker's own.
#[derive(Debug, Clone)]
pub struct WorkerContext {
    slot: usize,
    generation: u64,
    listeners: Arc<OpenSet>,
    duty: Arc<Duty>,
    seat: Seat,
    handover: Arc<Handover>,
    end: WorkerEnd,
    /// After so many requests it asks for a successor; 0: never.
    max_requests: u64,
}

impl WorkerContext {
    pub(crate) fn new(
        (slot, generation, max_requests): (usize, u64, u64),
        listeners: Arc<OpenSet>,
        duty: Arc<Duty>,
        seat: Seat,
        handover: Arc<Handover>,
        end: WorkerEnd,
    ) -> Self {
        Self { slot, generation, listeners, duty, seat, handover, end, max_requests }
    }

    /// The siblings may count on this worker before the supervisor hears that it is ready: then some of them retire at
    /// once, and look for somebody who goes on.
    pub(crate) fn booted(&self) {
        self.beat();
        self.accepting(1);
    }

    /// The worker's place in the pool, from 0.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The version of code and settings that it belongs to, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The listeners, non-blocking. All workers share them, but for those of which each slot has its own
    /// ([`Options::reuse_port`](crate::listener::Options::reuse_port)).
    pub fn listeners(&self) -> &[Arc<dyn Listener>] {
        &self.listeners
    }

    /// What is expected of the worker now.
    pub fn phase(&self) -> Phase {
        self.duty.phase()
    }

    /// Whether the worker will end soon, from [`Phase::LameDuck`] on: to be asked by whoever outlives the borrow of this
    /// context.
    pub fn is_draining(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let duty = Arc::clone(&self.duty);
        move || duty.phase() > Phase::Serving
    }

    /// Becomes readable when [`phase`](Self::phase) or [`log_epoch`](Self::log_epoch) may have changed.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.duty.wake_fd()
    }

    /// Makes [`wake_fd`](Self::wake_fd) unreadable until the next change. Call it before looking.
    pub fn acknowledge(&self) {
        self.duty.acknowledge();
    }

    /// Changes whenever log files should be opened anew.
    pub fn log_epoch(&self) -> u32 {
        self.duty.log_epoch()
    }

    /// Shows that the worker moves. Costs a clock read, a load and a store; due more often than the liveness timeout, and a few
    /// times a second where the worker's code forks: then threads of this crate's that the system had no place for after a
    /// fork are started.
    pub fn beat(&self) {
        self.seat.beat();
        if companion::mend() {
            // Without a supervisor it ends anyway.
            let _ = self.leave("the system has no thread for it since its application forked");
        }
    }

    /// From now on the worker accepts connections and does up to `permits` requests at once; 0: it accepts no more. Tells
    /// its siblings, and nobody else.
    pub fn accepting(&self, permits: usize) {
        self.seat.accepting(permits);
    }

    /// The other workers that accept from the same listeners and move.
    pub fn siblings(&self) -> impl Iterator<Item = Sibling> + '_ {
        self.seat.siblings()
    }

    /// Hands a connection to whichever worker takes it first, with up to [`MAX_HANDED`](crate::MAX_HANDED) bytes that
    /// it will understand. The caller closes its own descriptor afterwards.
    ///
    /// # Errors
    /// `WouldBlock` where many wait already, `InvalidInput` for too many bytes; then nothing was handed over.
    pub fn hand_over(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        self.handover.give(connection, bytes)
    }

    /// Readable while a connection waits that some worker has handed over: one more listener.
    pub fn handed_over_fd(&self) -> BorrowedFd<'_> {
        self.handover.as_fd()
    }

    /// Takes a connection that some worker has handed over; `None`: there is none.
    ///
    /// # Errors
    /// What [`AcceptFailure`](crate::listener::AcceptFailure) tells apart; after a shortage the connection is still there.
    pub fn take_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        self.handover.take_with_room()
    }

    /// Asks to be replaced, for `reason`: another worker is forked, and this one is asked to retire.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn leave(&self, reason: &str) -> io::Result<()> {
        self.end.say(Report::Leaving(reason.to_owned()))
    }

    /// Finishes, as at SIGTERM: this worker ends of its own will, and the supervisor replaces it.
    pub fn finish(&self) {
        self.duty.raise(Phase::Draining);
    }

    /// Asks for a reload of the whole pool, for `reason` (`app.py has changed`). Workers that ask for the same one
    /// get one.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn ask_reload(&self, reason: &str) -> io::Result<()> {
        self.end.say(Report::ReloadWanted(reason.to_owned()))
    }

    /// Why the version that should have replaced this worker's does not boot, if the supervisor has said so. Costs a
    /// load where it has not.
    pub fn broken(&self) -> Option<Arc<str>> {
        self.duty.broken()
    }

    /// A request (or whatever the worker's unit of work is) begins.
    pub fn request_began(&self) {
        self.seat.request_began();
    }

    /// It has ended. Where it was the last of those that the worker was born for, the supervisor hears of it, and makes a
    /// successor ready before it asks this worker to retire.
    pub fn request_ended(&self) {
        let requests = self.seat.request_ended();
        if requests == self.max_requests {
            // Without a supervisor it ends anyway.
            let _ = self.end.say(Report::Enough { requests });
        }
    }

    /// So many requests wait until the worker can begin them.
    pub fn waiting(&self, count: usize) {
        self.seat.waiting(count);
    }

    /// For how long the oldest request has been running, where several run at once; `None`: none is. Due a few times a
    /// second at most.
    pub fn oldest(&self, age: Option<Duration>) {
        self.seat.oldest(age);
    }

    /// How many connections are open.
    pub fn connections(&self, open: usize) {
        self.seat.connections(open);
    }

    /// Lets go of the listeners: this worker accepts no more. What was queued stays for whoever else holds them.
    pub fn close_listeners(&self) {
        self.accepting(0);
        for listener in self.listeners.iter() {
            let _ = descriptor::let_go(listener.as_fd());
        }
    }

    pub(super) fn handover(&self) -> &Handover {
        &self.handover
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::link::channel;
    use crate::link::scoreboard::Scoreboard;

    /// A worker that was born for so many requests, and its supervisor's end.
    pub(in crate::worker) fn born_for(max_requests: u64) -> (WorkerContext, channel::SupervisorEnd) {
        seated(Scoreboard::new(1).unwrap().take().unwrap(), max_requests)
    }

    impl WorkerContext {
        /// The same worker with one listener.
        pub(in crate::worker) fn with_listener(mut self, listener: Arc<dyn Listener>) -> Self {
            self.listeners = Arc::new(OpenSet::with(listener));
            self
        }

        pub(in crate::worker) fn raise(&self, phase: Phase) {
            self.duty.raise(phase);
        }
    }

    fn seated(seat: Seat, max_requests: u64) -> (WorkerContext, channel::SupervisorEnd) {
        let (ours, theirs) = channel::pair().unwrap();
        let (duty, handover) = (Arc::new(Duty::new().unwrap()), Arc::new(Handover::new().unwrap()));
        let place = (0, 1, max_requests);
        (WorkerContext::new(place, Arc::default(), duty, seat, handover, theirs), ours)
    }

    #[test]
    fn a_worker_that_has_done_what_it_was_born_for_says_so_once() {
        for (max_requests, expected) in [(3, vec![Report::Enough { requests: 3 }]), (0, vec![]), (6, vec![])]
        {
            let (worker, mut supervisor) = born_for(max_requests);
            for _ in 0..5 {
                worker.request_began();
                worker.request_ended();
            }
            assert_eq!(supervisor.hear(channel::Hear::Some), expected);
        }
    }

    #[test]
    fn a_worker_that_has_booted_is_counted_on_before_it_accepts() {
        let mut board = Scoreboard::new(2).unwrap();
        let (old, new) = (board.take().unwrap(), board.take().unwrap());
        let (new, _supervisor) = seated(new, 0);
        assert_eq!(old.siblings().count(), 0);
        new.booted();
        assert_eq!(old.siblings().map(|sibling| sibling.free).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn whoever_asks_hears_that_the_worker_will_end_before_it_does() {
        let (worker, _supervisor) = born_for(0);
        let is_draining = worker.is_draining();
        assert!(!is_draining());
        worker.duty.raise(Phase::LameDuck);
        assert!(is_draining() && worker.phase().accepts());
    }
}
