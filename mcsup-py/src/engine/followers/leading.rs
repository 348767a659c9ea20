//! The round of a leader: it waits for events, receives, and ends what is overdue.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::connections::WAKER;
use super::super::overdue;
use super::super::turns::QUEUE_TIME;
use super::{Guard, Leader, Locked, Shared};
use crate::net::poller::Batch;

/// Rounds in low-latency mode after a delayed write.
const ALERT: u32 = 10;

impl<'a> Shared<'a> {
    /// One round. It waits for `most` at most.
    pub(super) fn round<'g>(
        &'g self,
        mut state: Guard<'g, 'a>,
        leader: Leader,
        batch: &mut Batch,
        most: Duration,
    ) -> (Guard<'g, 'a>, Instant) {
        // With one permit and no request deadline a request that keeps the permit is a worker that hangs: then only the
        // permit's thread may beat.
        let may_beat = self.permits.len() > 1 || self.config.timeouts.request.is_some();
        // An application that has taken a connection may keep the permit.
        if leader == Leader::Permit || may_beat || self.permits.iter().all(|permit| permit.race.is_taken()) {
            self.host.beat();
        }
        let now = Instant::now();
        self.tidy(&mut state, now);
        if state.table.is_over(now) {
            self.over.store(true, Ordering::Release);
            return (state, now);
        }
        let timeout = self.timeout(&state, leader, now).min(most);
        let timeout = self.watch.wait(timeout, state.alert > 0);
        state.alert = state.alert.saturating_sub(1);
        drop(state);
        let waited = if leader == Leader::Spare {
            self.poller.wait_aside(batch, timeout, self.spare_waker.as_fd())
        } else {
            self.spare.leaderless_since.store(0, Ordering::Relaxed);
            self.poller.wait(batch, timeout)
        };
        self.watch.woke();
        let now = Instant::now();
        let mut state = self.lock();
        match waited {
            Ok(true) => self.note_signal(&mut state),
            Ok(false) if timeout == most && batch.events().next().is_none() => self.look_for_signals(),
            Ok(false) => {}
            Err(error) => {
                state.failed.get_or_insert(error);
                self.over.store(true, Ordering::Release);
            }
        }
        self.handle(&mut state, leader, batch, now);
        (state, now)
    }

    /// Does what is due before a wait.
    fn tidy(&self, state: &mut Locked<'a>, now: Instant) {
        state.table.send_coalesced(now);
        if self.send_held() {
            state.alert = ALERT;
        }
        state.table.apply_phase();
        state.table.body_memory.tidy(now);
        state.table.hand_on_idle(now);
        state.table.accept_last(now);
        let Locked { table, running, .. } = state;
        let taken = running.iter().zip(&self.permits).filter(|(_, permit)| permit.race.is_taken());
        table.end_taken(taken.filter_map(|(running, _)| running.token()), now);
        state.gauges.report(state.table.ready.len(), &state.running, self.host, now);
        if let Some(access) = &mut state.table.access {
            access.flush(now, || self.host.backlog());
        }
    }

    /// How long the leader may wait.
    fn timeout(&self, state: &Locked<'a>, leader: Leader, now: Instant) -> Duration {
        if self.needs_spare_for_files(state) {
            return Duration::ZERO;
        }
        let limit = self.config.timeouts.request;
        let overdue = limit.and_then(|limit| overdue::next_deadline(&state.running, limit));
        let timeout = state.table.timeout(leader == Leader::Permit, now);
        overdue.map_or(timeout, |at| timeout.min(at.saturating_duration_since(now)))
    }

    /// Handles the events of a wait, and what is due after it.
    fn handle(&self, state: &mut Locked<'a>, leader: Leader, batch: &Batch, now: Instant) {
        state.table.compare_with_siblings(now);
        for event in batch.events() {
            if event.token == WAKER {
                self.waker.acknowledge();
            }
            state.table.on_event(event, leader == Leader::Permit, now);
        }
        state.table.expire(now);
        if let Some(limit) = self.config.timeouts.request {
            let races = self.permits.iter().map(|permit| &permit.race);
            overdue::handle(&mut state.running, races, limit, &mut state.table, self.host, now);
        }
        (state.budget, state.queue_time) = (state.table.ready.len(), QUEUE_TIME);
    }

    /// Sends the delayed bytes of permits that are in the application; `false`: there are none.
    pub(super) fn send_held(&self) -> bool {
        self.permits.iter().filter(|permit| permit.held.send(&self.watch)).count() > 0
    }
}
