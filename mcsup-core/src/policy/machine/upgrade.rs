//! An upgrade: the dry run of another image, and its exec once no fork is pending.

use super::Machine;
use crate::policy::effect::{Answer, Effect};
use crate::policy::event::{Moment, Ticket};
use crate::policy::notice::UpgradeNotice;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;

impl Machine {
    /// Handles a request to upgrade: the upgrade begins as soon as possible.
    pub(super) fn ask_upgrade(&mut self, ticket: Option<Ticket>, step: &mut Step) {
        if self.upgrades.ask(ticket) && !self.may_upgrade() {
            step.log(UpgradeNotice::Postponed);
        }
    }

    /// Begins a waiting upgrade.
    pub(super) fn settle_upgrade(&mut self, step: &mut Step) {
        if self.upgrades.is_wanted() && self.may_upgrade() {
            let until = step.after(self.pool.policy.upgrade_timeout);
            self.enter(PoolPhase::Upgrading { until, is_checked: false });
            step.log(UpgradeNotice::Begun);
            step.push(Effect::CheckImage);
        }
    }

    /// Ends an upgrade that exceeds its timeout.
    pub(super) fn expire_upgrade(&mut self, step: &mut Step) {
        let PoolPhase::Upgrading { until, is_checked } = self.pool.phase else { return };
        if until <= step.now {
            let what = if is_checked {
                "the new image could take over, but a fork that was asked for was not answered"
            } else {
                "the new image did not answer"
            };
            let reason = format!("{what} within {:?}", self.pool.policy.upgrade_timeout);
            self.on_upgrade_failed(reason, step);
        }
    }

    /// Notes a successful dry run.
    pub(super) fn on_image_checked(&mut self) {
        if let PoolPhase::Upgrading { is_checked, .. } = &mut self.pool.phase {
            *is_checked = true;
        }
    }

    /// Executes the checked image, once, and only while no fork is pending: its result would be lost with this image.
    pub(super) fn execute_image(&mut self, step: &mut Step) {
        if self.pool.table.awaits_forks() || self.molds.awaits_forks() {
            return;
        }
        if let PoolPhase::Upgrading { is_checked, .. } = &mut self.pool.phase {
            if std::mem::take(is_checked) {
                step.push(Effect::Exec);
            }
        }
    }

    /// Handles a failed upgrade: this image continues.
    pub(super) fn on_upgrade_failed(&mut self, reason: String, step: &mut Step) {
        if matches!(self.pool.phase, PoolPhase::Upgrading { .. }) {
            self.enter(PoolPhase::Serving);
        } else if !self.upgrades.is_resumed() {
            return;
        }
        step.log(UpgradeNotice::Failed { reason: reason.clone() });
        step.answer(self.upgrades.end(), &Answer::Failed { reason, detail: None });
    }

    /// Handles a successful upgrade, in the new image.
    pub(super) fn on_upgraded(&mut self, message: String, step: &mut Step) {
        if self.upgrades.is_resumed() {
            let workers = self.pool.table.iter().filter(|entry| !entry.state.is_leaving()).count();
            step.log(UpgradeNotice::Done { workers });
            step.answer(self.upgrades.end(), &Answer::Done(message));
        }
    }

    /// The deadline of the upgrade in progress.
    pub(super) fn next_upgrade_deadline(&self) -> Option<Moment> {
        match self.pool.phase {
            PoolPhase::Upgrading { until, .. } => Some(until),
            _ => None,
        }
    }

    fn may_upgrade(&self) -> bool {
        self.upgrades.may_begin(&self.pool, self.recycler.is_replacing())
    }
}
