//! The listeners, and whether the poller watches them.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::connections::LISTENERS;
use super::{Host, Listening};
use crate::net::poller::{Interest, Poller};

/// How long a worker leaves a connection to a sibling that has fewer: about the time until the kernel runs it.
const SIBLINGS_TIME: Duration = Duration::from_micros(150);

/// Whether the poller watches the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// Not while no permit is free: a worker with a free one accepts the connections.
    NoPermit,
    /// The same, but the listeners are watched for requests that the engine answers itself.
    ForOwnAnswers,
    /// Not for a moment: siblings go first, or there is no descriptor left.
    Resting {
        until: Instant,
    },
    /// Never again.
    Ended,
}

/// The listeners of this worker. The queue among the workers is the last one, and is not in `listeners`.
pub(super) struct Acceptor<'a> {
    host: &'a dyn Host,
    poller: &'a Poller,
    pub(super) listeners: Vec<Listening<'a>>,
    /// The indexes of listeners at which accept(2) has failed for good.
    broken: Vec<usize>,
    /// Whether some requests need no permit: health checks, and those for static files.
    has_own_answers: bool,
    pub(super) accepting: Accepting,
    /// All permits are in the application, and have been for a while.
    pub(super) lacks_permit: bool,
    /// For how many rounds in a row a connection was left to the siblings.
    pub(super) left_to_siblings: u32,
    /// How many connections in a row have failed before they were accepted.
    pub(super) lost: u32,
}

impl<'a> Acceptor<'a> {
    /// Accepts from now on.
    pub(super) fn new(
        listeners: Vec<Listening<'a>>,
        has_own_answers: bool,
        host: &'a dyn Host,
        poller: &'a Poller,
    ) -> Self {
        let (accepting, broken) = (Accepting::NoPermit, Vec::new());
        let (lacks_permit, left_to_siblings, lost) = (false, 0, 0);
        let mut acceptor = Self {
            host,
            poller,
            listeners,
            broken,
            has_own_answers,
            accepting,
            lacks_permit,
            left_to_siblings,
            lost,
        };
        acceptor.accept_again();
        acceptor
    }

    pub(super) fn is_watched(&self) -> bool {
        matches!(self.accepting, Accepting::Yes | Accepting::ForOwnAnswers)
    }

    /// Leaves the listeners to the siblings for a moment.
    pub(super) fn leave_to_siblings(&mut self, now: Instant) {
        self.rest(now + SIBLINGS_TIME);
    }

    pub(super) fn rest(&mut self, until: Instant) {
        if self.is_watched() {
            self.stop(Accepting::Resting { until });
        }
    }

    /// The end of a rest.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        match self.accepting {
            Accepting::Resting { until } => Some(until),
            _ => None,
        }
    }

    /// Accepts again if the rest is over.
    pub(super) fn end_rest(&mut self, now: Instant) {
        match self.rests_until() {
            Some(until) if until <= now && self.lacks_permit => self.no_permit_is_free(),
            Some(until) if until <= now => self.accept_again(),
            _ => {}
        }
    }

    /// Moves this worker to the end of the kernel's order at the listeners.
    pub(super) fn move_to_end_of_order(&mut self, now: Instant) {
        self.stop(Accepting::Resting { until: now });
        self.accept_again();
    }

    /// No permit is free for a while: new connections are left to siblings. A request that the engine answers itself must be
    /// accepted before it can be recognised; another connection that is accepted with it goes to a sibling that is free, or
    /// waits.
    pub(super) fn no_permit_is_free(&mut self) {
        self.lacks_permit = true;
        if !matches!(self.accepting, Accepting::Yes | Accepting::Resting { .. }) {
            return;
        }
        self.stop(Accepting::NoPermit);
        if self.has_own_answers {
            self.accepting = Accepting::ForOwnAnswers;
            self.watch(self.listeners.len());
        }
    }

    /// A permit is free again.
    pub(super) fn permit_is_free(&mut self) {
        self.lacks_permit = false;
        if let Accepting::NoPermit | Accepting::ForOwnAnswers = self.accepting {
            self.stop(Accepting::NoPermit);
            self.accept_again();
        }
    }

    /// Nothing is accepted any more.
    pub(super) fn end(&mut self) {
        self.stop(Accepting::Ended);
        self.host.accepting(0);
    }

    /// Watches a listener no more at which accept(2) has failed for good: it would be ready for ever.
    pub(super) fn give_up(&mut self, index: usize, error: &io::Error) {
        if let Some(listener) = self.listeners.get(index) {
            log::warn!("no more connections are accepted at {:?}: {error}", listener.local);
            let _ = self.poller.delete(listener.fd);
            self.broken.push(index);
        }
    }

    fn stop(&mut self, why: Accepting) {
        if self.is_watched() {
            for fd in self.fds() {
                // Closed because the supervisor is dead: no error.
                let _ = self.poller.delete(fd);
            }
        }
        self.accepting = why;
    }

    fn accept_again(&mut self) {
        self.accepting = Accepting::Yes;
        self.watch(self.listeners.len() + 1);
    }

    /// Watches the first `count` listeners, except for broken ones.
    fn watch(&self, count: usize) {
        for (index, (fd, token)) in self.fds().take(count).zip(LISTENERS..).enumerate() {
            if self.broken.contains(&index) {
                continue;
            }
            if let Err(error) = self.poller.add(fd, token, Interest::Shared) {
                log::error!("cannot watch a listener: {error}");
            }
        }
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(|listener| listener.fd).chain(self.host.handed_over_fd())
    }
}
