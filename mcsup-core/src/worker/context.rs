//! A worker's view of its supervisor: listeners, phase, and signs of life.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::link::channel::WorkerEnd;
use crate::link::handover::Handover;
use crate::link::lifeline::{Phase, WorkerControl};
use crate::link::message::Report;
use crate::link::scoreboard::{ScoreboardRow, Sibling};
use crate::listener::open::OpenSet;
use crate::policy::Policy;
use crate::sys::companion;

/// A worker's view of its supervisor. Clones share it between threads.
#[derive(Debug, Clone)]
pub struct WorkerContext {
    slot: usize,
    number: u64,
    listeners: Arc<OpenSet>,
    control: Arc<WorkerControl>,
    row: ScoreboardRow,
    handover: Arc<Handover>,
    end: WorkerEnd,
    /// The number of requests after which it asks for a successor; 0: never.
    max_requests: Option<u64>,
    graceful_timeout: Duration,
    #[cfg(feature = "tokio")]
    reactors: Arc<super::reactor::Reactors>,
}

impl WorkerContext {
    pub(crate) fn new(
        (slot, number, max_requests): (usize, u64, Option<u64>),
        listeners: Arc<OpenSet>,
        control: Arc<WorkerControl>,
        row: ScoreboardRow,
        handover: Arc<Handover>,
        end: WorkerEnd,
    ) -> Self {
        Self {
            slot,
            number,
            listeners,
            control,
            row,
            handover,
            end,
            max_requests,
            graceful_timeout: Policy::default().graceful_timeout,
            #[cfg(feature = "tokio")]
            reactors: Arc::default(),
        }
    }

    pub(crate) fn with_graceful_timeout(self, graceful_timeout: Duration) -> Self {
        Self { graceful_timeout, ..self }
    }

    /// Announces the worker to its siblings before the supervisor learns that it is ready. Siblings that
    /// retire then find a worker for their connections at once.
    pub(crate) fn booted(&self) {
        self.beat();
        self.accepting(1);
    }

    /// The worker's place in the pool, from 0.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The number of the worker among the processes that the pool has started, from 1. Molds count too, also across
    /// reloads and upgrades.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The stage of the worker's life.
    pub fn phase(&self) -> Phase {
        self.control.phase()
    }

    /// The longest time of the worker to finish once it retires or drains. The supervisor kills it then.
    pub fn graceful_timeout(&self) -> Duration {
        self.graceful_timeout
    }

    /// Returns a function that says whether the worker will end soon, from [`Phase::LameDuck`] on. The
    /// function outlives the borrow of this context.
    pub fn is_draining(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let control = Arc::clone(&self.control);
        move || control.phase() > Phase::Serving
    }

    /// Becomes readable when [`phase`](Self::phase) or [`log_epoch`](Self::log_epoch) may have changed.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.control.wake_fd()
    }

    /// Makes [`wake_fd`](Self::wake_fd) unreadable until the next change. Call it before reading the state.
    pub fn acknowledge(&self) {
        self.control.acknowledge();
    }

    /// Changes whenever log files should be reopened.
    pub fn log_epoch(&self) -> u32 {
        self.control.log_epoch()
    }

    /// Shows a sign of life. Costs a clock read, a load and a store.
    ///
    /// Due more often than the liveness timeout, and a few times a second if the worker's code forks: it then
    /// also restarts threads of this crate that the system had no room for after a fork.
    pub fn beat(&self) {
        self.row.beat();
        if companion::mend() {
            // Without a supervisor the worker ends anyway.
            let _ = self.leave("the system has no thread for it since its application forked");
        }
    }

    /// Announces to the siblings that the worker accepts. It serves up to `permits` requests at once; 0: it
    /// stops accepting.
    pub fn accepting(&self, permits: usize) {
        self.row.accepting(permits);
    }

    /// The other workers that accept from the same listeners and show signs of life.
    pub fn siblings(&self) -> impl Iterator<Item = Sibling> + '_ {
        self.row.siblings()
    }

    /// Hands a connection to the first worker that takes it, with up to [`MAX_HANDED`](crate::MAX_HANDED)
    /// bytes.
    ///
    /// The caller closes its own descriptor afterwards.
    ///
    /// # Errors
    /// The connection was not handed over: `WouldBlock` for a full queue, `InvalidInput` for too many bytes.
    pub fn hand_over(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        self.handover.give(connection, bytes)
    }

    /// Readable while a handed-over connection is queued, like a listener.
    pub fn handed_over_fd(&self) -> BorrowedFd<'_> {
        self.handover.as_fd()
    }

    /// Takes a connection that a worker has handed over; `None`: there is none.
    ///
    /// # Errors
    /// See [`AcceptFailure`](crate::listener::AcceptFailure); after a shortage the connection is still
    /// queued.
    pub fn take_handed_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        self.handover.take_with_room()
    }

    /// Asks to be replaced, for `reason`: the supervisor forks another worker and lets this one retire.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn leave(&self, reason: &str) -> io::Result<()> {
        self.end.send(Report::Leaving(reason.to_owned()))
    }

    /// Finishes, as at SIGTERM: this worker ends on its own, and the supervisor replaces it.
    pub fn finish(&self) {
        self.control.raise(Phase::Draining);
    }

    /// Asks for a reload of the whole pool, for `reason` (`app.py has changed`). Equal requests cause one
    /// reload.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn ask_reload(&self, reason: &str) -> io::Result<()> {
        self.end.send(Report::ReloadWanted(reason.to_owned()))
    }

    /// The reason why the next generation does not boot, once the supervisor has reported it. Costs one load
    /// if there is none.
    pub fn broken(&self) -> Option<Arc<str>> {
        self.control.broken()
    }

    /// Counts the start of a request, or of another unit of work.
    pub fn request_began(&self) {
        self.row.request_began();
    }

    /// Counts the end of a request. After the worker's maximum number the supervisor boots a successor and
    /// then lets this worker retire.
    pub fn request_ended(&self) {
        let requests = self.row.request_ended();
        if Some(requests) == self.max_requests {
            // Without a supervisor the worker ends anyway.
            let _ = self.end.send(Report::Enough { requests });
        }
    }

    /// The number of requests that have begun.
    pub fn requests(&self) -> u64 {
        self.row.requests()
    }

    /// Reports the number of requests that wait to be started.
    pub fn waiting(&self, count: usize) {
        self.row.waiting(count);
    }

    /// Reports the age of the oldest of several requests; `None`: none is in progress. Due a few times a
    /// second at most.
    pub fn oldest(&self, age: Option<Duration>) {
        self.row.oldest(age);
    }

    /// Reports the number of open connections.
    pub fn connections(&self, open: usize) {
        self.row.connections(open);
    }

    pub(super) fn open_listeners(&self) -> &OpenSet {
        &self.listeners
    }

    pub(super) fn release_listeners(&self) {
        #[cfg(feature = "tokio")]
        self.reactors.forget_all();
        self.control.release(&self.listeners);
    }

    /// Whether the worker or its lifeline has released the listeners.
    pub(super) fn has_released(&self) -> bool {
        self.control.has_released()
    }

    /// Whether released listeners are readable for ever.
    pub(super) fn is_noisy(&self) -> bool {
        self.control.is_noisy()
    }

    pub(super) fn handover(&self) -> &Handover {
        &self.handover
    }

    #[cfg(feature = "tokio")]
    pub(super) fn control(&self) -> &Arc<WorkerControl> {
        &self.control
    }

    #[cfg(feature = "tokio")]
    pub(super) fn reactors(&self) -> &super::reactor::Reactors {
        &self.reactors
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::link::channel;
    use crate::link::scoreboard::Scoreboard;
    use crate::listener::Listener;

    /// A worker with a maximum number of requests, and its supervisor's end.
    pub(in crate::worker) fn with_max_requests(
        max_requests: Option<u64>,
    ) -> (WorkerContext, channel::SupervisorEnd) {
        with_row(Scoreboard::new(1).unwrap().take().unwrap(), max_requests)
    }

    impl WorkerContext {
        /// The same worker with one listener.
        pub(in crate::worker) fn with_listener(mut self, listener: Arc<dyn Listener>) -> Self {
            self.listeners = Arc::new(OpenSet::with(listener));
            self
        }

        pub(in crate::worker) fn raise(&self, phase: Phase) {
            self.control.raise(phase);
        }
    }

    fn with_row(row: ScoreboardRow, max_requests: Option<u64>) -> (WorkerContext, channel::SupervisorEnd) {
        let (ours, theirs) = channel::pair().unwrap();
        let (control, handover) =
            (Arc::new(WorkerControl::new().unwrap()), Arc::new(Handover::new().unwrap()));
        let place = (0, 1, max_requests);
        (WorkerContext::new(place, Arc::default(), control, row, handover, theirs), ours)
    }

    #[test]
    fn a_worker_reports_its_maximum_of_requests_once() {
        for (max_requests, expected) in
            [(Some(3), vec![Report::Enough { requests: 3 }]), (None, vec![]), (Some(6), vec![])]
        {
            let (worker, mut supervisor) = with_max_requests(max_requests);
            for _ in 0..5 {
                worker.request_began();
                worker.request_ended();
            }
            assert_eq!(supervisor.receive(channel::ReadLimit::Turn), expected);
        }
    }

    #[test]
    fn a_worker_counts_the_requests_that_have_begun() {
        let (worker, _supervisor) = with_max_requests(None);
        worker.request_began();
        worker.request_ended();
        worker.request_began();
        assert_eq!((worker.requests(), worker.number()), (2, 1));
    }

    #[test]
    fn a_worker_that_has_booted_is_counted_on_before_it_accepts() {
        let mut board = Scoreboard::new(2).unwrap();
        let (old, new) = (board.take().unwrap(), board.take().unwrap());
        let (new, _supervisor) = with_row(new, None);
        assert_eq!(old.siblings().count(), 0);
        new.booted();
        assert_eq!(old.siblings().map(|sibling| sibling.free).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn the_coming_end_of_a_worker_is_visible_before_it_drains() {
        let (worker, _supervisor) = with_max_requests(None);
        let is_draining = worker.is_draining();
        assert!(!is_draining());
        worker.control.raise(Phase::LameDuck);
        assert!(is_draining() && worker.phase().accepts());
    }
}
