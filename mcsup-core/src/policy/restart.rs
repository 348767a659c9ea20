//! The back-off of a slot, by the cost of a boot and the losses of the slot.
//!
//! A back-off saves processor time, so it is a multiple of the duration of a boot:
//!
//! - The successor of a worker that was ready boots at once. After further deaths in a short time it boots four boots
//!   after the worker was ready, [`RestartPolicy::ready_cap`] at most. So a slot boots for a fifth of its time.
//! - After a failed boot the delay doubles, up to [`RestartPolicy::cap`].
//! - Boots that fail share one processor, whatever the number of slots: after each the pool rests for four times as long
//!   as it took, from [`RestartPolicy::base`] to [`RestartPolicy::cap`]. That is a fifth of a processor, except for boots of
//!   more than 7.5 s, most of which wait for another service and use none.
//! - A boot that takes much longer than usual delays no other one ([`Restarts::patience`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Moment, Slot};
use super::jitter::Jitter;
use super::rules::RestartPolicy;

/// The rest after a boot, in boots: so boots take a fifth of a processor at most.
const REST: u32 = 4;

/// The kind of a loss, which determines the delay of the successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The worker was ready since then.
    Ready(Moment),
    /// The worker never was ready.
    Boot,
}

/// The time of a worker that was ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    /// When it became ready.
    pub(crate) ready: Moment,
    /// How long its boot had taken.
    pub(crate) boot: Duration,
}

/// The losses of each slot, and the last boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Restarts {
    policy: RestartPolicy,
    losses: BTreeMap<Slot, Losses>,
    last_boot: Option<Boot>,
    /// The duration of the last successful boot.
    usual: Option<Duration>,
    jitter: Jitter,
}

/// The losses of a slot.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Losses {
    /// Deaths of ready workers; one is forgotten for each [`RestartPolicy::stable`] in which the slot was served.
    deaths: u32,
    /// The time in which the slot was served since the last forgotten death.
    served: Duration,
    /// Boots that failed in a row.
    failures: u32,
}

/// A boot that has ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Boot {
    ended: Moment,
    took: Duration,
    worked: bool,
}

impl Restarts {
    /// No losses yet; `seed` starts the jitter.
    pub(crate) fn new(policy: RestartPolicy, seed: u64) -> Self {
        Self { policy, losses: BTreeMap::new(), last_boot: None, usual: None, jitter: Jitter::new(seed) }
    }

    /// Notes the death of a ready worker. Returns the time of its successor.
    pub(crate) fn after_death(&mut self, slot: Slot, served: Served, now: Moment) -> Moment {
        self.note_served(slot, now.saturating_sub(served.ready));
        let losses = self.losses.entry(slot).or_default();
        losses.deaths = losses.deaths.saturating_add(1);
        if losses.deaths == 1 { now } else { self.after_ready(served, now) }
    }

    /// The earliest successor in a slot with several recent losses.
    pub(crate) fn after_ready(&self, served: Served, now: Moment) -> Moment {
        served.ready.saturating_add(self.rest(served.boot).min(self.policy.ready_cap)).max(now)
    }

    /// The time of the next boot after a failed one, which is noted already.
    pub(crate) fn after_failed_boot(&mut self, slot: Slot, now: Moment) -> Moment {
        let doublings = self.failures(slot).saturating_sub(1).min(16);
        now.saturating_add(
            self.jittered(self.policy.base.saturating_mul(1 << doublings).min(self.policy.cap)),
        )
    }

    /// Notes the end of a boot.
    pub(crate) fn note_boot(&mut self, slot: Slot, took: Duration, worked: bool, now: Moment) {
        self.last_boot = Some(Boot { ended: now, took, worked });
        let losses = self.losses.entry(slot).or_default();
        losses.failures = if worked { 0 } else { losses.failures.saturating_add(1) };
        if worked {
            self.usual = Some(took);
        }
    }

    /// Notes a boot that exceeded its timeout. It counts as a usual boot, since most of the time it only waited.
    pub(crate) fn note_timeout(&mut self, slot: Slot, took: Duration, now: Moment) {
        let most = self.usual.map_or(self.policy.cap, |usual| self.rest(usual));
        self.note_boot(slot, took.min(most), false, now);
    }

    /// The time after which a boot no longer delays others: four usual boots.
    ///
    /// It is at least the longest boot whose rest is not capped.
    pub(crate) fn patience(&self) -> Duration {
        self.usual.map_or(self.policy.cap, |usual| self.rest(usual)).max(self.policy.cap / REST)
    }

    /// Notes the time in which a dead or leaving worker has served its slot.
    pub(crate) fn note_served(&mut self, slot: Slot, time: Duration) {
        let Some(losses) = self.losses.get_mut(&slot) else { return };
        losses.served = losses.served.saturating_add(time);
        while losses.deaths > 0 && losses.served >= self.policy.stable {
            losses.deaths -= 1;
            losses.served -= self.policy.stable;
        }
        if losses.deaths == 0 {
            losses.served = Duration::ZERO;
        }
    }

    /// The number of failed boots of a slot in a row.
    pub(crate) fn failures(&self, slot: Slot) -> u32 {
        self.losses.get(&slot).map_or(0, |losses| losses.failures)
    }

    /// The number of recent deaths of ready workers of a slot.
    pub(crate) fn deaths(&self, slot: Slot) -> u32 {
        self.losses.get(&slot).map_or(0, |losses| losses.deaths)
    }

    /// The end of the rest after the last boot.
    pub(crate) fn rest_ends(&self) -> Moment {
        self.last_boot.map_or(Duration::ZERO, |boot| boot.ended.saturating_add(self.rest(boot.took)))
    }

    /// The same if that boot failed; otherwise zero.
    pub(crate) fn rest_after_failure_ends(&self) -> Moment {
        self.last_boot.filter(|boot| !boot.worked).map_or(Duration::ZERO, |_| self.rest_ends())
    }

    /// Forgets the losses of the slots from `first` on.
    pub(crate) fn forget_from(&mut self, first: Slot) {
        self.losses.retain(|slot, _| *slot < first);
    }

    /// Forgets all losses, for a new generation.
    pub(crate) fn forget(&mut self) {
        self.losses.clear();
        self.last_boot = None;
    }

    fn rest(&self, boot: Duration) -> Duration {
        boot.saturating_mul(REST).clamp(self.policy.base, self.policy.cap.max(self.policy.base))
    }

    /// Shortens a delay by up to a quarter, so that slots that failed together do not boot together.
    fn jittered(&mut self, delay: Duration) -> Duration {
        let part = self.jitter.up_to(999) as f64 / 1000.0;
        delay.saturating_sub(delay.mul_f64(part / 4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Duration = Duration::from_millis(10);

    fn restarts() -> Restarts {
        Restarts::new(RestartPolicy::default(), 1)
    }

    fn served(ready: Moment, boot: Duration) -> Served {
        Served { ready, boot }
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_death_is_mended_at_once_and_later_ones_when_the_slot_has_rested() {
        let mut restarts = restarts();
        let now = millis(10_000);
        assert_eq!(restarts.after_death(0, served(now, BOOT), now), now);
        assert_eq!(restarts.after_death(0, served(now, BOOT), now), now + millis(500));
        // It has served for longer than it has to rest.
        assert_eq!(restarts.after_death(0, served(now - millis(500), BOOT), now), now);
        assert_eq!(restarts.after_death(0, served(now, millis(300)), now), now + millis(1200));
    }

    #[test]
    fn a_worker_that_was_ready_is_replaced_within_five_seconds_however_long_it_boots_and_often_it_dies() {
        let mut restarts = restarts();
        let now = millis(10_000);
        for boot in [0, 1, 1000, 60_000, u64::MAX] {
            for _ in 0..50 {
                assert!(restarts.after_death(0, served(now, millis(boot)), now) <= now + millis(5000));
            }
        }
    }

    #[test]
    fn deaths_are_forgotten_while_the_slot_is_served_by_any_worker() {
        let mut restarts = restarts();
        let now = millis(100_000);
        for _ in 0..6 {
            restarts.after_death(0, served(now, BOOT), now);
        }
        // Two workers in a row, of which the first was recycled.
        restarts.note_served(0, millis(45_000));
        assert_eq!(restarts.deaths(0), 2);
        restarts.note_served(0, millis(15_000));
        assert_eq!(restarts.deaths(0), 0);
        assert_eq!(restarts.after_death(0, served(now, BOOT), now), now);
    }

    #[test]
    fn a_boot_that_keeps_failing_is_tried_ever_later_until_one_works() {
        let mut restarts = restarts();
        let fails = |restarts: &mut Restarts| {
            restarts.note_boot(0, BOOT, false, Duration::ZERO);
            restarts.after_failed_boot(0, Duration::ZERO)
        };
        let mut previous = Duration::ZERO;
        for _ in 0..6 {
            let at = fails(&mut restarts);
            assert!(at > previous, "{at:?} after {previous:?}");
            previous = at;
        }
        for _ in 0..50 {
            assert!(fails(&mut restarts) <= millis(30_000));
        }
        assert!(fails(&mut restarts) >= millis(22_500));
        restarts.note_boot(0, BOOT, true, Duration::ZERO);
        assert!(fails(&mut restarts) <= millis(500));
    }

    #[test]
    fn each_slot_has_its_own_record_and_boots_are_the_pools() {
        let mut restarts = restarts();
        let now = millis(10_000);
        restarts.after_death(0, served(now, BOOT), now);
        assert_eq!(restarts.after_death(1, served(now, BOOT), now), now);
        assert_eq!(
            (restarts.rest_ends(), restarts.rest_after_failure_ends()),
            (Duration::ZERO, Duration::ZERO)
        );
        restarts.note_boot(0, millis(2000), false, now);
        assert_eq!(restarts.rest_after_failure_ends(), now + millis(8000));
        restarts.note_boot(1, BOOT, true, now);
        assert_eq!(
            (restarts.rest_ends(), restarts.rest_after_failure_ends()),
            (now + millis(500), Duration::ZERO)
        );
    }

    #[test]
    fn a_boot_that_hangs_is_charged_no_more_than_the_pool_has_counted_on_it() {
        let mut restarts = restarts();
        restarts.note_boot(0, BOOT, true, Duration::ZERO);
        assert_eq!(restarts.patience(), millis(7500));
        restarts.note_timeout(0, millis(60_000), Duration::ZERO);
        assert_eq!(restarts.rest_ends(), millis(2000));
        restarts.note_boot(0, millis(10_000), true, Duration::ZERO);
        assert_eq!(restarts.patience(), millis(30_000));
    }

    #[test]
    fn a_boot_that_waits_for_long_before_it_fails_does_not_keep_the_pool_waiting_for_four_times_as_long() {
        let mut restarts = restarts();
        restarts.note_boot(0, millis(60_000), false, Duration::ZERO);
        assert_eq!(restarts.rest_ends(), millis(30_000));
    }
}
