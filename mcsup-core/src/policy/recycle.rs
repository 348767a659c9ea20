//! Workers that are replaced by others of their own generation, before anything is wrong with them: they have served
//! enough requests, lived long enough, or use too much memory; or somebody asked.
//!
//! Capacity first: the successor is ready before the old worker is asked to finish. One at a time, and none while a
//! reload is under way, which replaces them all.

use std::time::Duration;

use super::effect::{Answer, Drain};
use super::event::{Moment, Slot, Ticket, WorkerId};
use super::machine::Machine;
use super::notice::{Notice, RecycleNotice};
use super::rules::Recycling;
use super::status::{Phase, State};
use super::step::Step;
use super::table::{Allowance, Entry};
use super::under_way::Replacing;

impl Machine {
    /// Draws what a worker may use.
    pub(super) fn draw_allowance(&mut self) -> Allowance {
        let Recycling { requests, lifetime, rss } = self.policy.recycling;
        let mut draw = |base: u64, jitter: u64| {
            if base == 0 { 0 } else { base.saturating_add(self.jitter.up_to(jitter)) }
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let requests = draw(requests.0, requests.1);
        let lifetime = draw(millis(lifetime.0), millis(lifetime.1));
        let rss = draw(rss.0, rss.1);
        Allowance { requests, lifetime: (lifetime > 0).then(|| Duration::from_millis(lifetime)), rss }
    }

    /// When a worker has lived long enough.
    pub(super) fn expires(entry: &Entry) -> Option<Moment> {
        match (entry.state, entry.allowance.lifetime, &entry.recycle) {
            (State::Ready { since, .. }, Some(lifetime), None) => Some(since.saturating_add(lifetime)),
            _ => None,
        }
    }

    /// A worker has served as many requests as it may.
    pub(super) fn on_enough(&mut self, worker: WorkerId, requests: u64, step: &mut Step) {
        let most = self.table.get(worker).map_or(0, |entry| entry.allowance.requests);
        if most > 0 && requests >= most {
            self.mark(worker, format!("it has served {requests} requests"), None, step);
        }
    }

    /// How much memory workers use.
    pub(super) fn on_memory(&mut self, used: Vec<(WorkerId, u64)>, step: &mut Step) {
        for (worker, bytes) in used {
            let limit = self.table.get(worker).map_or(0, |entry| entry.allowance.rss);
            if limit > 0 && bytes > limit {
                let mib = |bytes: u64| bytes / (1 << 20);
                let reason = format!("it uses {} MiB of memory, more than {}", mib(bytes), mib(limit));
                self.mark(worker, reason, None, step);
            }
        }
    }

    /// An operator wants another worker in a slot; in an empty one, a worker now.
    pub(super) fn ask_recycle(&mut self, slot: Slot, ticket: Option<Ticket>, step: &mut Step) {
        // Whoever asks does not wait until what failed by itself is tried again.
        self.recycle_again = None;
        let ready = self.table.in_slot(slot).find(|entry| entry.state.is_ready()).map(|entry| entry.id);
        match ready {
            Some(worker) => self.mark(worker, "somebody asked for it".to_owned(), ticket, step),
            None if slot < self.target => self.ask_start(slot, ticket, step),
            None => {
                let reason = format!("there is no slot {slot}: they are 0 to {}", self.target - 1);
                step.answer(ticket, &Answer::Refused(reason));
            }
        }
    }

    /// A worker is to be replaced, when its turn comes.
    pub(super) fn mark(&mut self, worker: WorkerId, reason: String, ticket: Option<Ticket>, step: &mut Step) {
        let postponed = !matches!(self.phase, Phase::Serving);
        let Some(entry) = self.table.get_mut(worker) else { return };
        if !entry.state.is_ready() {
            return;
        }
        self.recycle_tickets.extend(ticket.map(|ticket| (ticket, worker)));
        if entry.recycle.is_none() {
            entry.recycle = Some(reason.clone());
            if postponed {
                let slot = entry.slot;
                step.tell(Notice::Recycle(RecycleNotice::Postponed { slot, reason }));
            }
        }
    }

    /// Marks whoever has lived long enough, and goes on with the one that is being replaced.
    pub(super) fn settle_recycling(&mut self, step: &mut Step) {
        let old = |entry: &Entry| Self::expires(entry).is_some_and(|at| at <= step.now);
        for worker in self.table.select(old) {
            let age = self.table.get(worker).and_then(|entry| entry.state.ready_since()).unwrap_or(step.now);
            let reason = format!("it has lived for {} s", step.now.saturating_sub(age).as_secs());
            self.mark(worker, reason, None, step);
        }
        if self.phase != Phase::Serving {
            return;
        }
        if self.recycle_again.is_some_and(|at| at <= step.now) {
            self.recycle_again = None;
        }
        if let Some(replacing) = self.replacing.take() {
            self.go_on_replacing(replacing, step);
        }
        let may_begin = self.recycle_again.is_none() && !self.wants_upgrade && self.refusal.is_none();
        if self.replacing.is_none() && may_begin {
            self.begin_replacing(step);
        }
        self.answer_for_the_gone(step);
    }

    /// When a replacement that failed is tried again.
    pub(super) fn next_recycling(&self) -> Option<Moment> {
        let marked = self.table.iter().any(|entry| entry.recycle.is_some() && entry.state.is_ready());
        let again = self.recycle_again.filter(|_| marked && self.phase == Phase::Serving);
        self.table.iter().filter_map(Self::expires).chain(again).min()
    }

    /// A new worker failed; whether it was one that was to replace another.
    pub(super) fn note_failed_successor(&mut self, worker: WorkerId, reason: &str, detail: Option<String>) {
        if let Some(replacing) = self.replacing.as_mut().filter(|replacing| replacing.new == worker) {
            replacing.failure.get_or_insert((reason.to_owned(), detail));
        }
    }

    /// A reload replaces everybody anyway, or the pool ends.
    pub(super) fn stop_recycling(&mut self, step: &mut Step) {
        if let Some(Replacing { old, new, .. }) = self.replacing.take() {
            if self.table.get(old).is_some_and(|entry| entry.state.is_ready()) {
                self.retire(new, Drain::Retire, step);
            }
        }
        let tickets: Vec<Ticket> = self.recycle_tickets.drain(..).map(|(ticket, _)| ticket).collect();
        step.answer(tickets, &Answer::Superseded);
    }

    fn begin_replacing(&mut self, step: &mut Step) {
        // Not where another boots beside it already, which a rollback asked for: it goes as soon as that one is ready.
        let is_alone = |entry: &Entry| self.table.in_slot(entry.slot).count() == 1;
        let marked = |entry: &&Entry| entry.recycle.is_some() && entry.state.is_ready() && is_alone(entry);
        let waited_for = |entry: &&Entry| self.recycle_tickets.iter().any(|(_, worker)| *worker == entry.id);
        let asked_for = self.table.iter().filter(marked).find(waited_for);
        let Some(entry) = asked_for.or_else(|| self.table.iter().find(marked)) else { return };
        if !self.molds.can_fork(self.current) {
            return;
        }
        let (old, slot, pid) = (entry.id, entry.slot, entry.pid);
        let reason = entry.recycle.clone().unwrap_or_default();
        step.tell(Notice::Recycle(RecycleNotice::Begun { pid, slot, reason: reason.clone() }));
        let new = self.spawn(slot, self.current, step);
        self.replacing = new.map(|new| Replacing { old, new, slot, reason, failure: None });
    }

    fn go_on_replacing(&mut self, replacing: Replacing, step: &mut Step) {
        let Replacing { old, new, slot, .. } = replacing;
        let old_serves = self.table.get(old).is_some_and(|entry| entry.state.is_ready());
        match self.table.get(new).map(|entry| entry.state) {
            Some(State::Booting { .. }) => self.replacing = Some(replacing),
            Some(State::Ready { .. }) => {
                self.retire(old, Drain::Retire, step);
                step.tell(Notice::Recycle(RecycleNotice::Done { slot, reason: replacing.reason }));
                let answer = Answer::Done(format!("slot {slot} has a new worker"));
                self.answer_recycle(|worker| worker == old, &answer, step);
            }
            // The old one is dead as well, or leaves: an ordinary death.
            _ if !old_serves => {}
            _ => {
                let again_in = self.policy.restart.cap;
                self.recycle_again = Some(step.after(again_in));
                let unknown = || ("the new worker died before it was ready".to_owned(), None);
                let (reason, detail) = replacing.failure.unwrap_or_else(unknown);
                step.tell(Notice::Recycle(RecycleNotice::Failed { slot, reason: reason.clone(), again_in }));
                self.answer_recycle(|worker| worker == old, &Answer::Failed { reason, detail }, step);
            }
        }
    }

    /// Whoever waits for a worker to be replaced that has gone by itself: it has been, or will be.
    fn answer_for_the_gone(&mut self, step: &mut Step) {
        let gone: Vec<WorkerId> = self.recycle_tickets.iter().map(|(_, worker)| *worker).collect();
        for worker in gone {
            if !self.table.get(worker).is_some_and(|entry| entry.state.is_ready()) {
                let answer = Answer::Done("the worker had left its slot already".to_owned());
                self.answer_recycle(|other| other == worker, &answer, step);
            }
        }
    }

    fn answer_recycle(&mut self, which: impl Fn(WorkerId) -> bool, answer: &Answer, step: &mut Step) {
        let (answered, left) =
            std::mem::take(&mut self.recycle_tickets).into_iter().partition(|(_, w)| which(*w));
        self.recycle_tickets = left;
        let answered: Vec<(Ticket, WorkerId)> = answered;
        step.answer(answered.into_iter().map(|(ticket, _)| ticket), answer);
    }
}
