//! When another image of the supervisor takes over, in the same process: only while nothing else is under way, and only
//! one that has shown that it can.

use super::effect::{Answer, Effect};
use super::event::{Moment, Ticket};
use super::machine::Machine;
use super::notice::{Notice, UpgradeNotice};
use super::status::Phase;
use super::step::Step;

impl Machine {
    /// An upgrade was asked for: begun now, or as soon as it may be.
    pub(super) fn ask_upgrade(&mut self, ticket: Option<Ticket>, step: &mut Step) {
        if matches!(self.phase, Phase::LameDuck { .. }) {
            return step.answer(ticket, &Answer::Refused("the pool is about to stop".to_owned()));
        }
        let first = !self.wants_upgrade;
        self.wants_upgrade = true;
        self.upgrade_tickets.extend(ticket);
        if first && !self.may_upgrade() {
            step.tell(Notice::Upgrade(UpgradeNotice::Postponed));
        }
    }

    /// Begins an upgrade that waits.
    pub(super) fn settle_upgrade(&mut self, step: &mut Step) {
        if self.wants_upgrade && self.may_upgrade() {
            self.phase =
                Phase::Upgrading { until: step.after(self.policy.upgrade_timeout), is_checked: false };
            step.tell(Notice::Upgrade(UpgradeNotice::Begun));
            step.push(Effect::CheckImage);
        }
    }

    /// Gives up an upgrade that takes too long.
    pub(super) fn expire_upgrade(&mut self, step: &mut Step) {
        let Phase::Upgrading { until, is_checked } = self.phase else { return };
        if until <= step.now {
            let what = if is_checked {
                "the new image could take over, but a fork that was asked for was not answered"
            } else {
                "the new image did not answer"
            };
            let reason = format!("{what} within {:?}", self.policy.upgrade_timeout);
            self.on_upgrade_failed(reason, step);
        }
    }

    /// The new image can take over.
    pub(super) fn on_image_checked(&mut self) {
        if let Phase::Upgrading { is_checked, .. } = &mut self.phase {
            *is_checked = true;
        }
    }

    /// Lets a new image that can take over do so, once. A fork that was asked for must be answered before: the answer to
    /// this image would be lost with it.
    pub(super) fn take_over(&mut self, step: &mut Step) {
        if self.table.awaits_forks() || self.molds.awaits_forks() {
            return;
        }
        if let Phase::Upgrading { is_checked, .. } = &mut self.phase {
            if std::mem::take(is_checked) {
                step.push(Effect::Exec);
            }
        }
    }

    /// This image goes on, or goes on again.
    pub(super) fn on_upgrade_failed(&mut self, reason: String, step: &mut Step) {
        let is_under_way = matches!(self.phase, Phase::Upgrading { .. });
        if is_under_way {
            self.phase = Phase::Serving;
        } else if !self.is_resumed {
            return;
        }
        step.tell(Notice::Upgrade(UpgradeNotice::Failed { reason: reason.clone() }));
        self.end_upgrade(&Answer::Failed { reason, detail: None }, step);
    }

    /// This image is the new one.
    pub(super) fn on_upgraded(&mut self, message: &str, step: &mut Step) {
        if !self.is_resumed {
            return;
        }
        let workers = self.table.iter().filter(|entry| !entry.state.is_leaving()).count();
        step.tell(Notice::Upgrade(UpgradeNotice::Done { workers }));
        self.end_upgrade(&Answer::Done(message.to_owned()), step);
    }

    /// Whoever waits for an upgrade is answered.
    pub(super) fn end_upgrade(&mut self, answer: &Answer, step: &mut Step) {
        self.wants_upgrade = false;
        self.is_resumed = false;
        let tickets: Vec<Ticket> = std::mem::take(&mut self.upgrade_tickets);
        step.answer(tickets, answer);
    }

    /// When a check counts as failed.
    pub(super) fn next_upgrade_deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Upgrading { until, .. } => Some(until),
            _ => None,
        }
    }

    fn may_upgrade(&self) -> bool {
        self.phase == Phase::Serving && self.replacing.is_none() && !self.is_resumed
    }
}
