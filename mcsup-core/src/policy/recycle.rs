//! Workers that are replaced by others of their own generation, before anything is wrong with them: they have served
//! enough requests, lived long enough, or use too much memory; or an operator asked.
//!
//! Capacity first: the successor is ready before the old worker is asked to finish. One at a time, and none while a
//! reload is under way, which replaces them all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Why;
use super::event::{Moment, Slot, Ticket, WorkerId};
use super::jitter::Jitter;
use super::pool::Pool;
use super::rules::{Limit, Policy, Recycling};
use super::state::State;
use super::status::PoolPhase;
use super::table::{Allowance, Entry};

/// The replacement that is under way, and the requests that wait for one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Recycler {
    jitter: Jitter,
    #[serde(skip)]
    replacing: Option<Replacing>,
    waiting: Vec<WorkerTicket>,
    /// When a replacement that failed is tried again.
    again: Option<Moment>,
}

/// A worker that is being replaced.
#[derive(Debug, Clone, PartialEq)]
struct Replacing {
    old: WorkerId,
    new: WorkerId,
    slot: Slot,
    /// Why the new one has failed, where that is known.
    failure: Option<Why>,
}

/// A client that waits until a worker is replaced.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct WorkerTicket {
    ticket: Ticket,
    worker: WorkerId,
}

/// A worker that is to be replaced when its turn comes.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) worker: WorkerId,
    pub(super) reason: String,
}

/// The outcome of a replacement.
#[derive(Debug)]
pub(super) enum Replaced {
    /// The new worker is ready, so the old one can go.
    Done { old: WorkerId, slot: Slot, tickets: Vec<Ticket> },
    /// The new worker has gone, and the old one stays.
    Failed { slot: Slot, why: Why, tickets: Vec<Ticket> },
}

/// The rest of a replacement that is given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// The new worker, where the old one goes on.
    pub(super) superfluous: Option<WorkerId>,
    pub(super) tickets: Vec<Ticket>,
}

impl Recycler {
    /// Nothing is being replaced.
    pub(super) fn new(policy: &Policy) -> Self {
        let jitter = Jitter::new(policy.seed.wrapping_add(2));
        Self { jitter, replacing: None, waiting: Vec::new(), again: None }
    }

    /// Draws the limits of a worker.
    pub(super) fn draw(&mut self, recycling: &Recycling) -> Allowance {
        // A limit below a unit is none.
        let mut draw = |Limit { base, jitter }: Limit<u64>| {
            (base > 0).then(|| base.saturating_add(self.jitter.up_to(jitter)))
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lifetime =
            |limit: Limit<Duration>| Limit { base: millis(limit.base), jitter: millis(limit.jitter) };
        Allowance {
            requests: recycling.requests.and_then(&mut draw),
            lifetime: recycling.lifetime.and_then(|limit| draw(lifetime(limit))).map(Duration::from_millis),
            rss: recycling.rss.and_then(&mut draw),
        }
    }

    // Which workers are replaced.

    /// A worker has served `requests`: why it is to be replaced, where these are enough.
    pub(super) fn judge_requests(entry: &Entry, requests: u64) -> Option<String> {
        let is_enough = entry.allowance.requests.is_some_and(|most| requests >= most);
        is_enough.then(|| format!("it has served {requests} requests"))
    }

    /// A worker uses `bytes` of memory: why it is to be replaced, where these are too many.
    pub(super) fn judge_memory(entry: &Entry, bytes: u64) -> Option<String> {
        let mib = |bytes: u64| bytes / (1 << 20);
        let limit = entry.allowance.rss.filter(|limit| bytes > *limit)?;
        Some(format!("it uses {} MiB of memory, more than {}", mib(bytes), mib(limit)))
    }

    /// The workers that have lived long enough.
    pub(super) fn aged(pool: &Pool, now: Moment) -> Vec<Marked> {
        let is_old = |entry: &&Entry| expires(entry).is_some_and(|at| at <= now);
        let mark = |entry: &Entry| {
            let since = entry.state.ready_since().unwrap_or(now);
            let reason = format!("it has lived for {} s", now.saturating_sub(since).as_secs());
            Marked { worker: entry.id, reason }
        };
        pool.table.iter().filter(is_old).map(mark).collect()
    }

    /// When something of it is due.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        let is_marked = pool.table.iter().any(|entry| entry.recycle.is_some() && entry.state.is_ready());
        let again = self.again.filter(|_| is_marked && pool.phase == PoolPhase::Serving);
        pool.table.iter().filter_map(expires).chain(again).min()
    }

    /// An operator does not wait until a failed replacement is tried again.
    pub(super) fn hurry(&mut self) {
        self.again = None;
    }

    /// A client waits until `worker` is replaced.
    pub(super) fn wait(&mut self, ticket: Option<Ticket>, worker: WorkerId) {
        self.waiting.extend(ticket.map(|ticket| WorkerTicket { ticket, worker }));
    }

    // How one is replaced.

    /// Whether a replacement is under way.
    pub(super) fn is_replacing(&self) -> bool {
        self.replacing.is_some()
    }

    /// The worker that is replaced next, where one may be.
    pub(super) fn candidate<'a>(&self, pool: &'a Pool) -> Option<&'a Entry> {
        if self.replacing.is_some() || self.again.is_some() {
            return None;
        }
        // Not where another boots beside it already, which a rollback asked for: it goes as soon as that one is ready.
        let is_alone = |entry: &Entry| pool.table.in_slot(entry.slot).count() == 1;
        let is_marked = |entry: &&Entry| entry.recycle.is_some() && entry.state.is_ready() && is_alone(entry);
        let is_waited_for = |entry: &&Entry| self.waiting.iter().any(|waiting| waiting.worker == entry.id);
        let asked_for = pool.table.iter().filter(is_marked).find(is_waited_for);
        asked_for.or_else(|| pool.table.iter().find(is_marked))
    }

    /// `new` boots in the place of `old`.
    pub(super) fn begin(&mut self, old: WorkerId, new: WorkerId, slot: Slot) {
        self.replacing = Some(Replacing { old, new, slot, failure: None });
    }

    /// A worker failed: where it is the new one, this says why the replacement does.
    pub(super) fn note_failure(&mut self, worker: WorkerId, why: &Why) {
        if let Some(replacing) = self.replacing.as_mut().filter(|replacing| replacing.new == worker) {
            replacing.failure.get_or_insert_with(|| why.clone());
        }
    }

    /// Goes on, at `now`; `None`: nothing has come of it yet, or an ordinary death has.
    pub(super) fn advance(&mut self, pool: &Pool, now: Moment) -> Option<Replaced> {
        self.again.take_if(|at| *at <= now);
        let Replacing { old, new, slot, .. } = *self.replacing.as_ref()?;
        let serves = |worker| pool.table.get(worker).is_some_and(|entry| entry.state.is_ready());
        let state = pool.table.get(new).map(|entry| entry.state);
        if matches!(state, Some(State::Booting { .. })) {
            return None;
        }
        let Replacing { failure, .. } = self.replacing.take()?;
        if serves(new) {
            return Some(Replaced::Done { old, slot, tickets: self.take_waiting(old) });
        }
        if !serves(old) {
            // It is dead as well, or leaves: an ordinary death.
            return None;
        }
        self.again = Some(now.saturating_add(pool.policy.restart.cap));
        let why = failure.unwrap_or_else(|| Why::new("the new worker died before it was ready"));
        Some(Replaced::Failed { slot, why, tickets: self.take_waiting(old) })
    }

    /// Clients that wait for a worker to be replaced that has gone by itself: it has been, or will be.
    pub(super) fn take_gone(&mut self, pool: &Pool) -> Vec<Ticket> {
        let serves = |waiting: &WorkerTicket| {
            pool.table.get(waiting.worker).is_some_and(|entry| entry.state.is_ready())
        };
        let (waiting, gone) = std::mem::take(&mut self.waiting).into_iter().partition(serves);
        self.waiting = waiting;
        let gone: Vec<WorkerTicket> = gone;
        gone.into_iter().map(|gone| gone.ticket).collect()
    }

    /// A reload replaces every worker anyway, or the pool ends.
    pub(super) fn stop(&mut self, pool: &Pool) -> GivenUp {
        let serves = |worker| pool.table.get(worker).is_some_and(|entry| entry.state.is_ready());
        let superfluous =
            self.replacing.take().filter(|replacing| serves(replacing.old)).map(|replacing| replacing.new);
        GivenUp { superfluous, tickets: self.waiting.drain(..).map(|waiting| waiting.ticket).collect() }
    }

    fn take_waiting(&mut self, worker: WorkerId) -> Vec<Ticket> {
        let (answered, left) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.worker == worker);
        self.waiting = left;
        let answered: Vec<WorkerTicket> = answered;
        answered.into_iter().map(|answered| answered.ticket).collect()
    }
}

/// When a worker has lived long enough.
fn expires(entry: &Entry) -> Option<Moment> {
    match (entry.state, entry.allowance.lifetime, &entry.recycle) {
        (State::Ready { since, .. }, Some(lifetime), None) => Some(since.saturating_add(lifetime)),
        _ => None,
    }
}
