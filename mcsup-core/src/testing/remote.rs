//! A test in the place of a supervisor: its orders to one worker, and the worker's reports.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::link::channel::{ReadLimit, SupervisorEnd};
use crate::link::handover::Handover;
use crate::link::lifeline::{Phase, WorkerControl};
use crate::link::message::Report;
use crate::link::scoreboard::{Scoreboard, ScoreboardRow};
use crate::listener::Local;
use crate::listener::open::OpenSet;

/// A test in the place of the supervisor of one worker.
#[derive(Debug)]
pub struct Remote {
    control: Arc<WorkerControl>,
    row: ScoreboardRow,
    board: RefCell<Scoreboard>,
    /// `None`: the supervisor is dead.
    end: RefCell<Option<SupervisorEnd>>,
    handover: Arc<Handover>,
    listeners: OpenSet,
    graceful_timeout: Duration,
    /// The time that the test has let pass.
    passed: Cell<Duration>,
    /// The end of the drain, on that clock.
    drain_ends: Cell<Option<Duration>>,
}

/// A message of a worker to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerReport {
    /// [`WorkerContext::leave`](crate::WorkerContext::leave), with its reason.
    Leaving(String),
    /// [`WorkerContext::ask_reload`](crate::WorkerContext::ask_reload), with its reason.
    ReloadWanted(String),
    /// The worker has served its maximum number of requests.
    MaxRequests(u64),
}

/// The counters of a worker, as `mcsup status` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The number of requests served.
    pub requests: u64,
    /// The number of requests in progress.
    pub in_flight: u64,
    /// The number of requests that wait to be started.
    pub waiting: u64,
    /// The number of open connections.
    pub connections: u64,
    /// The number of requests that it serves at once; 0: it does not accept.
    pub permits: u64,
    /// The age of the oldest request in progress.
    pub oldest: Option<Duration>,
}

impl Remote {
    pub(super) fn new(
        (control, row, board): (Arc<WorkerControl>, ScoreboardRow, Scoreboard),
        (end, handover): (SupervisorEnd, Arc<Handover>),
        listeners: OpenSet,
        graceful_timeout: Duration,
    ) -> Self {
        Self {
            control,
            row,
            board: RefCell::new(board),
            end: RefCell::new(Some(end)),
            handover,
            listeners,
            graceful_timeout,
            passed: Cell::default(),
            drain_ends: Cell::default(),
        }
    }

    /// The addresses of the listeners.
    pub fn locals(&self) -> Vec<Local> {
        self.listeners.locals().cloned().collect()
    }

    /// The address of the first TCP or UDP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.locals().into_iter().find_map(|local| match local {
            Local::Tcp(address) | Local::Udp(address) => Some(address),
            _ => None,
        })
    }

    /// The phase of the worker.
    pub fn phase(&self) -> Phase {
        self.control.phase()
    }

    /// Announces that the pool will end soon: [`Phase::LameDuck`].
    pub fn lame_duck(&self) {
        self.control.raise(Phase::LameDuck);
    }

    /// Retires the worker, as a reload does: [`Phase::Retiring`].
    ///
    /// `serve` hands the idle connections of such a worker over to a [`sibling`](Self::sibling). Without one it closes
    /// them after two seconds.
    pub fn retire(&self) {
        self.begin_drain(Phase::Retiring);
    }

    /// Stops the worker, as the stop of a pool does: [`Phase::Draining`].
    pub fn drain(&self) {
        self.begin_drain(Phase::Draining);
    }

    /// Ends the worker at once, as a quick stop does: [`Phase::Quitting`].
    pub fn quit(&self) {
        self.control.raise(Phase::Quitting);
    }

    fn begin_drain(&self, phase: Phase) {
        if self.drain_ends.get().is_none() {
            self.drain_ends.set(Some(self.passed.get().saturating_add(self.graceful_timeout)));
        }
        self.control.raise(phase);
    }

    /// Kills the supervisor: the worker drains, its reports fail, and its listeners are closed. Their addresses
    /// are free at once.
    pub fn kill_supervisor(&self) {
        *self.end.borrow_mut() = None;
        // As the lifeline of a worker does: before the worker is woken.
        self.control.release(&self.listeners);
        self.begin_drain(Phase::Draining);
    }

    /// Lets `time` pass on the supervisor's clock: no real time passes.
    ///
    /// A worker that drains for longer than the graceful timeout is past its time: [`Phase::Quitting`].
    pub fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get().saturating_add(time));
        if self.is_overdue() {
            self.quit();
        }
    }

    /// Whether a supervisor would have killed the worker: its drain has exceeded the graceful timeout.
    pub fn is_overdue(&self) -> bool {
        self.drain_ends.get().is_some_and(|end| end <= self.passed.get())
    }

    /// The time since the last [beat](crate::WorkerContext::beat) of the worker, in real time. A supervisor with
    /// a timeout kills a worker whose silence is longer.
    pub fn silence(&self) -> Duration {
        clock::now().saturating_sub(self.row.last_beat())
    }

    /// Asks the worker to reopen its log files: [`log_epoch`](crate::WorkerContext::log_epoch) changes.
    pub fn reopen_logs(&self) {
        self.control.reopen_logs();
    }

    /// Reports that the next generation does not boot, for this reason: see
    /// [`broken`](crate::WorkerContext::broken).
    pub fn broken(&self, reason: &str) {
        self.control.set_broken(reason.to_owned());
    }

    /// The reports since the last call.
    pub fn reports(&self) -> Vec<WorkerReport> {
        let mut end = self.end.borrow_mut();
        let reports = end.as_mut().map(|end| end.receive(ReadLimit::All)).unwrap_or_default();
        let known = reports.into_iter().filter_map(|report| match report {
            Report::Leaving(reason) => Some(WorkerReport::Leaving(reason)),
            Report::ReloadWanted(reason) => Some(WorkerReport::ReloadWanted(reason)),
            Report::Enough { requests } => Some(WorkerReport::MaxRequests(requests)),
            _ => None,
        });
        known.collect()
    }

    /// The counters of the worker.
    pub fn counters(&self) -> Counters {
        let gauges = self.row.gauges();
        Counters {
            requests: gauges.requests,
            in_flight: gauges.running,
            waiting: gauges.waiting,
            connections: gauges.connections,
            permits: gauges.permits,
            oldest: gauges.oldest,
        }
    }

    /// Hands a connection over to the worker, as a sibling does.
    ///
    /// # Errors
    /// Those of [`WorkerContext::hand_over`](crate::WorkerContext::hand_over).
    pub fn hand_over(&self, connection: impl Into<OwnedFd>, bytes: &[u8]) -> io::Result<()> {
        self.handover.give(connection.into().as_fd(), bytes)
    }

    /// Takes a connection that the worker has handed over; `None`: there is none.
    ///
    /// # Errors
    /// Those of [`WorkerContext::take_handed_over`](crate::WorkerContext::take_handed_over).
    pub fn take_handed_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        self.handover.take_with_room()
    }

    /// Adds a sibling to the worker's [`siblings`](crate::WorkerContext::siblings); `None`: there are too many.
    pub fn sibling(&self) -> Option<TestSibling> {
        self.board.borrow_mut().take().map(TestSibling)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.listeners.withdraw();
    }
}

/// A sibling of the worker under test.
#[derive(Debug)]
pub struct TestSibling(ScoreboardRow);

impl TestSibling {
    /// Beats, and announces these numbers. A sibling that does not beat for 1.5 seconds is ignored.
    pub fn update(&self, connections: usize, permits: usize) {
        self.0.beat();
        self.0.connections(connections);
        self.0.accepting(permits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::WorkerSetup;

    #[test]
    fn a_remote_receives_the_reports_and_counters_of_its_worker() {
        let (worker, remote) = WorkerSetup::new().slot(3).max_requests(1).context().unwrap();
        assert_eq!(worker.slot(), 3);
        worker.request_began();
        assert_eq!(remote.counters().in_flight, 1);
        worker.request_ended();
        worker.connections(7);
        worker.leave("tired").unwrap();
        worker.ask_reload("app.rs has changed").unwrap();
        let changed = WorkerReport::ReloadWanted("app.rs has changed".to_owned());
        let expected = [WorkerReport::MaxRequests(1), WorkerReport::Leaving("tired".to_owned()), changed];
        assert_eq!(remote.reports(), expected);
        assert_eq!(remote.reports(), []);
        let counters = remote.counters();
        assert_eq!((counters.requests, counters.in_flight, counters.connections), (1, 0, 7));
        worker.beat();
        assert!(remote.silence() < Duration::from_secs(60));
    }

    #[test]
    fn a_worker_is_past_its_time_when_it_drains_for_longer_than_the_graceful_timeout() {
        let limit = Duration::from_secs(30);
        let (worker, remote) = WorkerSetup::new().graceful_timeout(limit).context().unwrap();
        remote.pass(Duration::from_secs(3600));
        assert_eq!(worker.phase(), Phase::Serving);
        remote.drain();
        remote.pass(Duration::from_secs(29));
        assert_eq!((worker.phase(), remote.is_overdue()), (Phase::Draining, false));
        remote.pass(Duration::from_secs(1));
        assert_eq!((worker.phase(), remote.is_overdue()), (Phase::Quitting, true));
    }

    #[test]
    fn a_worker_whose_supervisor_is_killed_drains_and_has_freed_its_address() {
        let (worker, remote) = WorkerSetup::new().bind("127.0.0.1:0").context().unwrap();
        let address = remote.address().unwrap();
        remote.kill_supervisor();
        assert_eq!(worker.phase(), Phase::Draining);
        assert!(worker.leave("tired").is_err());
        drop(std::net::TcpListener::bind(address).unwrap());
    }

    #[test]
    fn a_worker_sees_its_siblings_and_what_they_hand_over() {
        let (worker, remote) = WorkerSetup::new().context().unwrap();
        assert_eq!(worker.siblings().count(), 0);
        let sibling = remote.sibling().unwrap();
        sibling.update(5, 2);
        let seen: Vec<_> = worker.siblings().map(|sibling| (sibling.connections, sibling.free)).collect();
        assert_eq!(seen, [(5, 2)]);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        remote.hand_over(theirs, b"GET").unwrap();
        assert_eq!(worker.take_handed_over().unwrap().unwrap().1, b"GET");
        worker.hand_over(ours.as_fd(), b"PUT").unwrap();
        assert_eq!(remote.take_handed_over().unwrap().unwrap().1, b"PUT");
    }

    #[test]
    fn a_worker_of_a_test_has_sockets_of_any_kind() {
        let own = crate::listener::from_socket(std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
        let setup = WorkerSetup::new().bind("udp://127.0.0.1:0").listener(own.unwrap());
        let (worker, remote) = setup.context().unwrap();
        assert_eq!((worker.listeners().len(), remote.locals().len()), (2, 2));
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", remote.address().unwrap()).unwrap();
        assert_eq!(worker.readable(&[worker.listeners()[0].as_fd()]).unwrap(), Some(vec![0]));
    }

    #[test]
    fn other_orders_reach_the_worker() {
        let (worker, remote) = WorkerSetup::new().context().unwrap();
        let epoch = worker.log_epoch();
        remote.reopen_logs();
        remote.broken("line 7");
        remote.lame_duck();
        assert_ne!(worker.log_epoch(), epoch);
        assert_eq!((worker.broken().as_deref(), worker.phase()), (Some("line 7"), Phase::LameDuck));
        remote.retire();
        assert_eq!(remote.phase(), Phase::Retiring);
        assert!(WorkerSetup::new().bind("nowhere:x").context().is_err());
    }
}
