//! How a pool ends: gracefully, quickly, or at once, each asking escalating the one before.

use super::event::{Ask, Drain, Effect, KillReason, Moment, Notice};
use super::machine::Machine;
use super::status::{Phase, State};

impl Machine {
    /// A stop was asked for. The first may be graceful; a second is quick; a third kills.
    pub(super) fn stop(&mut self, ask: Ask, now: Moment, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Ended => {}
            Phase::Stopping { ask: Ask::StopQuick, killed, .. } => {
                effects.push(Effect::Tell(Notice::Escalated));
                self.hurry(now, now, killed, effects);
            }
            Phase::Stopping { killed, .. } => {
                effects.push(Effect::Tell(Notice::Escalated));
                self.hurry(now, now + self.policy.quick_timeout, killed, effects);
            }
            Phase::Failing { .. } => {}
            Phase::Starting | Phase::Serving | Phase::Reloading { .. } => self.begin_stop(ask, now, effects),
        }
    }

    fn begin_stop(&mut self, ask: Ask, now: Moment, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(Notice::Stopping { ask }));
        self.queued_reload = None;
        self.table.cancel_respawns(0);
        for worker in self.table.select(|entry| matches!(entry.state, State::Booting { .. })) {
            self.kill(worker, KillReason::GivenUp, effects);
        }
        let kill_at = now + self.policy.graceful_timeout;
        self.phase = Phase::Stopping { ask, killed: 0 };
        for worker in self.table.select(|entry| entry.state.is_ready()) {
            if let Some(entry) = self.table.get_mut(worker) {
                entry.state = State::Draining { how: Drain::Stop, kill_at };
                effects.push(Effect::Drain { worker, how: Drain::Stop });
            }
        }
        effects.push(Effect::CloseListeners);
        if ask == Ask::StopQuick {
            self.hurry(now, now + self.policy.quick_timeout, 0, effects);
        }
    }

    /// Asks everybody to end now, and kills whoever is left at `kill_at`.
    fn hurry(&mut self, now: Moment, kill_at: Moment, killed: usize, effects: &mut Vec<Effect>) {
        self.phase = Phase::Stopping { ask: Ask::StopQuick, killed };
        for worker in self.table.select(|entry| matches!(entry.state, State::Draining { .. })) {
            if let Some(entry) = self.table.get_mut(worker) {
                if let State::Draining { kill_at: at, .. } = &mut entry.state {
                    *at = (*at).min(kill_at);
                }
            }
            if kill_at > now {
                effects.push(Effect::Quit { worker });
            }
        }
    }
}
