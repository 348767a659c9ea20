//! When a new generation takes over, and when it is given up.
//!
//! A reload is a transaction. The new generation boots beside the old one, and the old one goes on serving until
//! every new worker is ready. If one fails, the new generation goes and nothing has changed.

use super::event::{Drain, Effect, KillReason, Moment, Notice, WorkerId};
use super::machine::Machine;
use super::status::{Phase, State};

/// How many generations may drain behind the serving one before a further reload waits: bounds what a storm of
/// reloads can pile up without cutting a request off.
const DRAINING_GENERATIONS: usize = 2;

impl Machine {
    /// A reload was asked for: begun now, or as soon as it may be. The newest request wins.
    pub(super) fn ask_reload(&mut self, workers: Option<usize>, now: Moment, effects: &mut Vec<Effect>) {
        self.queued_reload = Some(workers);
        let reason = match self.phase {
            Phase::Starting => "the first generation is still booting",
            Phase::Serving if self.drains_too_many() => "older generations are still draining",
            Phase::Reloading { since, .. } if now < since + self.policy.reload_interval => {
                "another reload has only just begun"
            }
            _ => return,
        };
        effects.push(Effect::Tell(Notice::ReloadPostponed { reason }));
    }

    /// Commits a complete generation and begins a queued reload.
    pub(super) fn settle_rollout(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Phase::Reloading { generation, since } = self.phase {
            if self.table.is_complete(generation, self.target) {
                self.commit(now.saturating_sub(since), now, effects);
            }
        }
        if self.queued_reload.is_none() {
            return;
        }
        match self.phase {
            Phase::Serving if !self.drains_too_many() => self.begin_reload(now, effects),
            Phase::Reloading { generation, since } if now >= since + self.policy.reload_interval => {
                effects.push(Effect::Tell(Notice::ReloadSuperseded { generation }));
                self.phase = Phase::Serving;
                self.withdraw_new_generation(now, effects);
                self.begin_reload(now, effects);
            }
            _ => {}
        }
    }

    /// When a queued reload can be tried again.
    pub(super) fn next_reload_attempt(&self) -> Option<Moment> {
        match self.phase {
            Phase::Reloading { since, .. } if self.queued_reload.is_some() => {
                Some(since + self.policy.reload_interval)
            }
            _ => None,
        }
    }

    /// The new generation failed: it goes, the old one never stopped serving.
    pub(super) fn give_up(&mut self, reason: String, now: Moment, effects: &mut Vec<Effect>) {
        let Phase::Reloading { generation, .. } = self.phase else { return };
        self.phase = Phase::Serving;
        self.withdraw_new_generation(now, effects);
        effects.push(Effect::Tell(Notice::ReloadFailed { generation, reason }));
    }

    /// Asks a worker to finish while others go on; one that is not ready yet has nothing to finish.
    pub(super) fn retire(&mut self, worker: WorkerId, now: Moment, effects: &mut Vec<Effect>) {
        let kill_at = now + self.policy.graceful_timeout;
        let Some(entry) = self.table.get_mut(worker) else { return };
        match entry.state {
            State::Ready { .. } => {
                entry.state = State::Draining { how: Drain::Retire, kill_at };
                effects.push(Effect::Drain { worker, how: Drain::Retire });
            }
            State::Booting { .. } => self.kill(worker, KillReason::GivenUp, effects),
            _ => {}
        }
    }

    fn begin_reload(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let workers = self.queued_reload.take().flatten();
        if let Some(workers) = workers {
            self.scale(workers, now, effects);
        }
        self.newest += 1;
        let generation = self.newest;
        self.phase = Phase::Reloading { generation, since: now };
        effects.push(Effect::Tell(Notice::Reloading { generation }));
        for slot in 0..self.target {
            self.spawn(slot, generation, now, effects);
        }
    }

    fn commit(&mut self, took: Moment, now: Moment, effects: &mut Vec<Effect>) {
        let Phase::Reloading { generation, .. } = self.phase else { return };
        self.phase = Phase::Serving;
        self.current = generation;
        self.restarts.forget();
        self.table.cancel_respawns(0);
        effects.push(Effect::Tell(Notice::ReloadDone { generation, took }));
        for worker in self.table.select(|entry| entry.generation < generation && !entry.state.is_leaving()) {
            self.retire(worker, now, effects);
        }
    }

    /// Those of it that are ready have accepted connections, and finish them.
    fn withdraw_new_generation(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let current = self.current;
        for worker in self.table.select(|entry| entry.generation > current && !entry.state.is_leaving()) {
            self.retire(worker, now, effects);
        }
    }

    fn drains_too_many(&self) -> bool {
        self.table.old_generations(self.current) >= DRAINING_GENERATIONS
    }
}
