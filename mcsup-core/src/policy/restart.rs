//! When a dead worker's slot is filled again: at once the first time, then ever later while it keeps dying young.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Slot;
use super::jitter::Jitter;
use super::rules::RestartPolicy;

/// How often each slot's worker died young, and the source of jitter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restarts {
    policy: RestartPolicy,
    early: BTreeMap<Slot, u32>,
    /// Shared with whatever else is left to chance.
    pub(super) jitter: Jitter,
}

impl Restarts {
    /// No deaths yet; `seed` starts the jitter.
    pub fn new(policy: RestartPolicy, seed: u64) -> Self {
        Self { policy, early: BTreeMap::new(), jitter: Jitter::new(seed) }
    }

    /// Notes a death after `ready_for` (`None`: it never was ready) and says how long to wait.
    pub fn delay(&mut self, slot: Slot, ready_for: Option<Duration>) -> Duration {
        let early = self.early.entry(slot).or_insert(0);
        if ready_for.is_some_and(|uptime| uptime >= self.policy.stable) {
            *early = 0;
            return Duration::ZERO;
        }
        *early = early.saturating_add(1);
        let early = *early;
        if early == 1 && ready_for.is_some() {
            return Duration::ZERO;
        }
        let doublings = early.saturating_sub(2).min(16);
        self.jittered((self.policy.base * (1 << doublings)).min(self.policy.cap))
    }

    /// A new version of the code starts with a clean record.
    pub fn forget(&mut self) {
        self.early.clear();
    }

    /// Up to a quarter less, so that slots that died together do not boot together.
    fn jittered(&mut self, delay: Duration) -> Duration {
        let part = self.jitter.up_to(999) as f64 / 1000.0;
        delay.mul_f64(1.0 - part / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn the_first_death_is_mended_at_once_and_further_ones_ever_later() {
        let mut restarts = Restarts::new(RestartPolicy::default(), 1);
        let young = Some(seconds(0.01));
        assert_eq!(restarts.delay(0, young), Duration::ZERO);
        let mut previous = Duration::ZERO;
        for _ in 0..5 {
            let delay = restarts.delay(0, young);
            assert!(delay > previous, "{delay:?} after {previous:?}");
            previous = delay;
        }
        for _ in 0..50 {
            assert!(restarts.delay(0, young) <= seconds(30.0));
        }
        assert!(restarts.delay(0, young) >= seconds(22.5));
    }

    #[test]
    fn a_long_life_clears_the_record() {
        let mut restarts = Restarts::new(RestartPolicy::default(), 1);
        for _ in 0..5 {
            restarts.delay(0, Some(Duration::ZERO));
        }
        assert_eq!(restarts.delay(0, Some(seconds(10.0))), Duration::ZERO);
        assert_eq!(restarts.delay(0, Some(Duration::ZERO)), Duration::ZERO);
    }

    #[test]
    fn a_worker_that_never_was_ready_is_not_tried_again_at_once() {
        let mut restarts = Restarts::new(RestartPolicy::default(), 1);
        assert!(restarts.delay(0, None) > Duration::ZERO);
    }

    #[test]
    fn each_slot_has_its_own_record() {
        let mut restarts = Restarts::new(RestartPolicy::default(), 1);
        restarts.delay(0, Some(Duration::ZERO));
        assert!(restarts.delay(0, Some(Duration::ZERO)) > Duration::ZERO);
        assert_eq!(restarts.delay(1, Some(Duration::ZERO)), Duration::ZERO);
    }
}
