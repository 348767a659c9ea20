//! What a worker is handed by its supervisor: the listeners, what is expected of it, and a place for signs of life.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::link::channel::WorkerEnd;
use crate::link::handover::Handover;
use crate::link::lifeline::{Duty, Phase};
use crate::link::message::Report;
use crate::link::scoreboard::{Seat, Sibling};
use crate::listener::open::OpenSet;
use crate::listener::{Connection, Listener};
use crate::sys::{descriptor, listening};

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

    /// Whether this process goes on as a mold when the worker has finished: it does not end, so nothing of what is done at
    /// the end of a process is due.
    pub fn becomes_mold(&self) -> bool {
        self.duty.becomes_mold()
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

    /// Shows that the worker moves. Costs a clock read and a store; due more often than the liveness timeout.
    pub fn beat(&self) {
        self.seat.beat();
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
    /// No descriptor was left: the connection is lost.
    pub fn take_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        self.handover.take()
    }

    /// Asks to be replaced, for `reason`: another worker is forked, and this one is asked to retire.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn leave(&self, reason: &str) -> io::Result<()> {
        self.end.say(Report::Leaving(reason.to_owned()))
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

    /// What a process that the worker's own code forks has to do: let go of the listeners, so that the port does not
    /// stay taken by it. Harmless in such a child alone: to be called there, and never in the worker.
    pub fn let_go_in_child(&self) -> impl Fn() + Send + Sync + use<> {
        let (listeners, handover) = (Arc::clone(&self.listeners), Arc::clone(&self.handover));
        move || {
            let listeners = listeners.iter().map(|listener| listener.as_fd());
            for fd in listeners.chain(handover.ends()) {
                let _ = descriptor::let_go(fd);
            }
        }
    }

    /// Lets go of the listeners: this worker accepts no more. What was queued stays for whoever else holds them.
    pub fn close_listeners(&self) {
        self.accepting(0);
        for listener in self.listeners.iter() {
            let _ = descriptor::let_go(listener.as_fd());
        }
    }

    /// Waits for a connection, at the listeners and in the handover; `None`: the worker is to finish and return.
    ///
    /// While it waits it shows signs of life. In [`Phase::Draining`] what is queued is still handed out. Where no
    /// descriptor or memory is left it waits until there is. A connection that another worker has
    /// [handed over](Self::hand_over) with bytes is closed: a pool that sends bytes along takes them by
    /// [`take_over`](Self::take_over).
    ///
    /// # Errors
    /// What poll(2) or accept(2) say, other than that a connection has failed already or that something is short.
    pub fn accept(&self) -> Result<Option<Connection>> {
        let mut shortages = 0;
        loop {
            self.beat();
            let is_draining = match self.phase() {
                Phase::Serving | Phase::LameDuck => false,
                Phase::Retiring | Phase::Quitting => return Ok(None),
                Phase::Draining => true,
            };
            match self.try_accept(is_draining)? {
                Tried::Taken(connection) => return Ok(Some(connection)),
                Tried::Nothing if is_draining => return Ok(None),
                Tried::Nothing => {}
                Tried::Short(_) if is_draining && shortages >= MOST_SHORTAGES => return Ok(None),
                Tried::Short(error) => {
                    if shortages == 0 {
                        log::error!("cannot accept connections for a moment: {error}");
                    }
                    shortages += 1;
                    self.rest()?;
                }
            }
        }
    }

    /// Waits until a connection may be there, or something has changed, and takes it; `at_once`: does not wait.
    fn try_accept(&self, at_once: bool) -> Result<Tried> {
        let [handed, listening @ ..] = &self.wait(at_once)?[..] else { return Ok(Tried::Nothing) };
        // First those that have waited at another worker before.
        if *handed {
            match self.handover.take_with_room() {
                Ok(Some((connection, bytes))) if bytes.is_empty() => {
                    return Ok(Connection::adopt(connection).map_or(Tried::Nothing, Tried::Taken));
                }
                Ok(Some((_, bytes))) => {
                    log::error!("a connection was handed over with {} bytes: it is closed", bytes.len());
                }
                Ok(None) => {}
                Err(error) if listening::is_shortage(&error) => return Ok(Tried::Short(error)),
                Err(error) => return Err(Error::system("take a connection that was handed over", error)),
            }
        }
        for (listener, _) in self.listeners.iter().zip(listening).filter(|(_, is_ready)| **is_ready) {
            match listener.accept() {
                Ok(connection) => {
                    // BSD sockets inherit the listener's non-blocking mode.
                    connection.set_nonblocking(false)?;
                    return Ok(Tried::Taken(connection));
                }
                Err(error) if listening::is_nobody(&error) => {}
                Err(error) if listening::is_shortage(&error) => return Ok(Tried::Short(error)),
                // The listener was let go of because the supervisor is dead.
                Err(_) if !self.phase().accepts() => {}
                Err(error) => {
                    let step = format!("accept on {}", listener.local());
                    return Err(Error::system(step, error).of_kind(ErrorKind::Worker));
                }
            }
        }
        Ok(Tried::Nothing)
    }

    /// Waits for a connection or a change, a second at most, so that beats go on; `at_once`: looks only. Whether the
    /// handover, and each of the listeners, may have a connection.
    fn wait(&self, at_once: bool) -> Result<Vec<bool>> {
        let sources = [self.wake_fd(), self.handed_over_fd()];
        let sources = sources.into_iter().chain(self.listeners.iter().map(|listener| listener.as_fd()));
        let mut sources: Vec<_> = sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = if at_once { Duration::ZERO } else { Duration::from_secs(1) };
        wait(&mut sources, limit)?;
        self.acknowledge();
        Ok(sources[1..].iter().map(|source| !source.revents().is_empty()).collect())
    }

    /// Waits until something may be there again of what is short, or something has changed.
    fn rest(&self) -> Result<()> {
        wait(&mut [PollFd::from_borrowed_fd(self.wake_fd(), PollFlags::IN)], REST)
    }
}

/// How long accepting rests where a descriptor or memory is short.
const REST: Duration = Duration::from_millis(50);
/// A worker that is to end rests so often at most.
const MOST_SHORTAGES: u32 = 20;

/// What came of an attempt to take a connection.
enum Tried {
    Taken(Connection),
    /// None was there.
    Nothing,
    /// There may be one, but a descriptor or memory is short.
    Short(io::Error),
}

/// Waits on `sources`; a signal ends it early.
fn wait(sources: &mut [PollFd<'_>], limit: Duration) -> Result<()> {
    match poll(sources, Some(&clock::wait_of(limit))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::system("wait for a connection", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::channel;
    use crate::link::scoreboard::Scoreboard;

    /// A worker that was born for so many requests, and its supervisor's end.
    fn born_for(max_requests: u64) -> (WorkerContext, channel::SupervisorEnd) {
        seated(Scoreboard::new(1).unwrap().take().unwrap(), max_requests)
    }

    fn seated(seat: Seat, max_requests: u64) -> (WorkerContext, channel::SupervisorEnd) {
        let (ours, theirs) = channel::pair().unwrap();
        let (duty, handover) = (Arc::new(Duty::new().unwrap()), Arc::new(Handover::new().unwrap()));
        let place = (0, 1, max_requests);
        (WorkerContext::new(place, Arc::default(), duty, seat, handover, theirs), ours)
    }

    /// Says the errors in turn, as long as there are some; then it has a connection. Always ready.
    #[derive(Debug)]
    struct Failing {
        ready: OwnedFd,
        errors: std::sync::Mutex<Vec<i32>>,
        local: crate::listener::Local,
    }

    impl Listener for Failing {
        fn local(&self) -> &crate::listener::Local {
            &self.local
        }

        fn accept(&self) -> io::Result<Connection> {
            match self.errors.lock().unwrap().pop() {
                Some(number) => Err(io::Error::from_raw_os_error(number)),
                None => Ok(Connection::Unix(std::os::unix::net::UnixStream::pair().unwrap().0)),
            }
        }
    }

    impl AsFd for Failing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.ready.as_fd()
        }
    }

    /// A worker whose only listener fails so.
    fn failing(errors: &[i32]) -> (WorkerContext, channel::SupervisorEnd) {
        let ready = std::fs::File::open("/dev/null").unwrap().into();
        let local = crate::listener::Local::Unix("/none".into());
        let errors = std::sync::Mutex::new(errors.to_vec());
        let (mut worker, supervisor) = born_for(0);
        worker.listeners = Arc::new(OpenSet::with(Arc::new(Failing { ready, errors, local })));
        (worker, supervisor)
    }

    #[test]
    fn errors_of_single_connections_do_not_end_a_worker() {
        use libc::{
            ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EPERM, EPROTO,
        };
        let errors =
            [ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOPROTOOPT, EPERM, EPROTO];
        let (worker, _supervisor) = failing(&errors);
        assert!(worker.accept().unwrap().is_some());
        let (worker, _supervisor) = failing(&[libc::ENOTSOCK]);
        assert!(worker.accept().is_err());
    }

    #[test]
    fn a_worker_without_a_free_descriptor_rests_and_goes_on() {
        let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let (worker, _supervisor) = failing(&errors);
        let begin = std::time::Instant::now();
        assert!(worker.accept().unwrap().is_some());
        assert!(begin.elapsed() >= REST * 4);
        // One that is to end does not wait for ever.
        let (worker, _supervisor) = failing(&[libc::EMFILE; 1000]);
        worker.duty.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn what_was_handed_over_is_accepted_as_well() {
        use std::io::{Read, Write};
        let (worker, _supervisor) = born_for(0);
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        let (_other, closed) = std::os::unix::net::UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        worker.hand_over(closed.as_fd(), b"for another kind of worker").unwrap();
        worker.hand_over(server.as_fd(), &[]).unwrap();
        drop(server);
        worker.accept().unwrap().unwrap().write_all(b"hello").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        worker.hand_over(client.as_fd(), &[]).unwrap();
        worker.duty.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_some() && worker.accept().unwrap().is_none());
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
