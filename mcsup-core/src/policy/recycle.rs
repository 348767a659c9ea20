//! Recycling: the replacement of healthy workers by others of their own generation.
//!
//! A worker has reached a limit of requests, lifetime or memory, or an operator has requested it. The successor is ready
//! before the old worker drains. One worker is replaced at a time, and none during a reload, which replaces all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::FailureReason;
use super::event::{Moment, Slot, Ticket, WorkerId};
use super::jitter::Jitter;
use super::pool::Pool;
use super::rules::{Limit, Policy, Recycling};
use super::state::State;
use super::status::PoolPhase;
use super::table::{Allowance, Entry};

/// The interval between measurements of the workers' memory.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The replacement in progress, the requests that wait for one, and the time of the next measurement of memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Recycler {
    jitter: Jitter,
    #[serde(skip)]
    replacing: Option<Replacing>,
    waiting: Vec<WorkerTicket>,
    /// The time of the next attempt after a failed replacement.
    again: Option<Moment>,
    #[serde(skip)]
    next_measurement: Option<Moment>,
}

/// A worker that is being replaced.
#[derive(Debug, Clone, PartialEq)]
struct Replacing {
    old: WorkerId,
    new: WorkerId,
    slot: Slot,
    /// The reason why the new worker failed, if known.
    failure: Option<FailureReason>,
}

/// A client that waits until a worker is replaced.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct WorkerTicket {
    ticket: Ticket,
    worker: WorkerId,
}

/// A worker that waits for its replacement.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) worker: WorkerId,
    pub(super) reason: String,
}

/// The outcome of a replacement.
#[derive(Debug)]
pub(super) enum Replaced {
    /// The new worker is ready, so the old one can drain.
    Done { old: WorkerId, slot: Slot, tickets: Vec<Ticket> },
    /// The new worker has ended, and the old one stays.
    Failed { slot: Slot, why: FailureReason, tickets: Vec<Ticket> },
}

/// The remains of an abandoned replacement.
#[derive(Debug)]
pub(super) struct AbandonedReplacement {
    /// The new worker, if the old one continues.
    pub(super) superfluous: Option<WorkerId>,
    pub(super) tickets: Vec<Ticket>,
}

impl Recycler {
    /// No replacement is in progress.
    pub(super) fn new(policy: &Policy) -> Self {
        let jitter = Jitter::new(policy.seed.wrapping_add(2));
        Self { jitter, replacing: None, waiting: Vec::new(), again: None, next_measurement: None }
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

    // Limits.

    /// The reason to replace a worker after `requests` requests; `None`: its limit is higher.
    pub(super) fn judge_requests(entry: &Entry, requests: u64) -> Option<String> {
        let is_enough = entry.allowance.requests.is_some_and(|most| requests >= most);
        is_enough.then(|| format!("it has served {requests} requests"))
    }

    /// The reason to replace a worker with `bytes` of memory; `None`: its limit is higher.
    pub(super) fn judge_memory(entry: &Entry, bytes: u64) -> Option<String> {
        let mib = |bytes: u64| bytes / (1 << 20);
        let limit = entry.allowance.rss.filter(|limit| bytes > *limit)?;
        Some(format!("it uses {} MiB of memory, more than {}", mib(bytes), mib(limit)))
    }

    /// The workers that have reached their lifetime.
    pub(super) fn aged(pool: &Pool, now: Moment) -> Vec<Marked> {
        let is_old = |entry: &&Entry| expires(entry).is_some_and(|at| at <= now);
        let mark = |entry: &Entry| {
            let since = entry.state.ready_since().unwrap_or(now);
            let reason = format!("it has lived for {} s", now.saturating_sub(since).as_secs());
            Marked { worker: entry.id, reason }
        };
        pool.table.iter().filter(is_old).map(mark).collect()
    }

    /// The next time at which something about recycling is due.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        let is_marked = pool.table.iter().any(|entry| entry.recycle.is_some() && entry.state.is_ready());
        let again = self.again.filter(|_| is_marked && pool.phase == PoolPhase::Serving);
        let measurement = self.next_measurement.filter(|_| measures(pool));
        pool.table.iter().filter_map(expires).chain(again).chain(measurement).min()
    }

    /// Ends the wait after a failed replacement.
    pub(super) fn retry_now(&mut self) {
        self.again = None;
    }

    /// Notes a client that waits until `worker` is replaced.
    pub(super) fn wait(&mut self, ticket: Option<Ticket>, worker: WorkerId) {
        self.waiting.extend(ticket.map(|ticket| WorkerTicket { ticket, worker }));
    }

    // Replacements.

    /// Whether a replacement is in progress.
    pub(super) fn is_replacing(&self) -> bool {
        self.replacing.is_some()
    }

    /// The next worker to replace; `None`: there is none, or it must wait.
    pub(super) fn candidate<'a>(&self, pool: &'a Pool) -> Option<&'a Entry> {
        if self.replacing.is_some() || self.again.is_some() {
            return None;
        }
        // A worker beside which another one boots for a rollback retires anyway.
        let is_alone = |entry: &Entry| pool.table.in_slot(entry.slot).count() == 1;
        let is_marked = |entry: &&Entry| entry.recycle.is_some() && entry.state.is_ready() && is_alone(entry);
        let is_waited_for = |entry: &&Entry| self.waiting.iter().any(|waiting| waiting.worker == entry.id);
        let asked_for = pool.table.iter().filter(is_marked).find(is_waited_for);
        asked_for.or_else(|| pool.table.iter().find(is_marked))
    }

    /// Notes that `new` boots to replace `old`.
    pub(super) fn begin(&mut self, old: WorkerId, new: WorkerId, slot: Slot) {
        self.replacing = Some(Replacing { old, new, slot, failure: None });
    }

    /// Notes the reason of a failure, if `worker` is the new one.
    pub(super) fn note_failure(&mut self, worker: WorkerId, why: &FailureReason) {
        if let Some(replacing) = self.replacing.as_mut().filter(|replacing| replacing.new == worker) {
            replacing.failure.get_or_insert_with(|| why.clone());
        }
    }

    /// The result of the replacement in progress; `None`: there is none yet, or the old worker has died.
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
            // The old worker has died or drains: its slot is filled as after any death.
            return None;
        }
        self.again = Some(now.saturating_add(pool.policy.restart.cap));
        let why = failure.unwrap_or_else(|| FailureReason::new("the new worker died before it was ready"));
        Some(Replaced::Failed { slot, why, tickets: self.take_waiting(old) })
    }

    /// Takes the requests for workers that have ended by themselves: their slots get successors anyway.
    pub(super) fn take_gone(&mut self, pool: &Pool) -> Vec<Ticket> {
        let serves = |waiting: &WorkerTicket| {
            pool.table.get(waiting.worker).is_some_and(|entry| entry.state.is_ready())
        };
        let (waiting, gone) = std::mem::take(&mut self.waiting).into_iter().partition(serves);
        self.waiting = waiting;
        let gone: Vec<WorkerTicket> = gone;
        gone.into_iter().map(|gone| gone.ticket).collect()
    }

    /// Whether a measurement is due; then the next one follows after the interval.
    pub(super) fn begin_measurement(&mut self, pool: &Pool, now: Moment) -> bool {
        let is_due = measures(pool) && self.next_measurement.is_none_or(|at| at <= now);
        if is_due {
            self.next_measurement = Some(now.saturating_add(MEASURE_EVERY));
        }
        is_due
    }

    /// Abandons the replacement, because a reload begins or the pool ends.
    pub(super) fn stop(&mut self, pool: &Pool) -> AbandonedReplacement {
        let serves = |worker| pool.table.get(worker).is_some_and(|entry| entry.state.is_ready());
        let superfluous =
            self.replacing.take().filter(|replacing| serves(replacing.old)).map(|replacing| replacing.new);
        AbandonedReplacement {
            superfluous,
            tickets: self.waiting.drain(..).map(|waiting| waiting.ticket).collect(),
        }
    }

    fn take_waiting(&mut self, worker: WorkerId) -> Vec<Ticket> {
        let (answered, left) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.worker == worker);
        self.waiting = left;
        let answered: Vec<WorkerTicket> = answered;
        answered.into_iter().map(|answered| answered.ticket).collect()
    }
}

/// The end of the lifetime of a worker.
fn expires(entry: &Entry) -> Option<Moment> {
    match (entry.state, entry.allowance.lifetime, &entry.recycle) {
        (State::Ready { since, .. }, Some(lifetime), None) => Some(since.saturating_add(lifetime)),
        _ => None,
    }
}

/// Whether a limit needs the workers' memory.
fn measures(pool: &Pool) -> bool {
    matches!(pool.phase, PoolPhase::Serving | PoolPhase::Reloading(_)) && pool.policy.recycling.rss.is_some()
}
