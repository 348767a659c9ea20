//! What a pool's load asks for: a worker more, or one fewer, when looks in a row agree.

use serde::{Deserialize, Serialize};

use super::event::{Load, Moment};

/// So many looks in a row must agree before there is a worker more: a burst passes by itself.
const LOOKS_UP: u32 = 2;

/// So many before there is one fewer: a worker that is missed costs more than one that is idle.
const LOOKS_DOWN: u32 = 30;

/// What the last looks had in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trend {
    hurts: u32,
    idles: u32,
    /// Looks before do not count: growing has just failed.
    pub(super) rests_until: Moment,
}

impl Trend {
    /// Notes a look at a pool of `workers`; whether there should be one more, or one fewer.
    pub(super) fn note(&mut self, load: &Load, workers: usize) -> Option<Change> {
        let (hurts, idles) = (hurts(load), idles(load, workers));
        self.hurts = if hurts { self.hurts + 1 } else { 0 };
        self.idles = if idles { self.idles + 1 } else { 0 };
        let change = match () {
            () if self.hurts >= LOOKS_UP => Change::More,
            () if self.idles >= LOOKS_DOWN => Change::Fewer,
            () => return None,
        };
        (self.hurts, self.idles) = (0, 0);
        Some(change)
    }
}

/// What a load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A worker more.
    More,
    /// A worker fewer.
    Fewer,
}

/// Requests wait that nobody has time for, or nearly everybody is busy.
fn hurts(load: &Load) -> bool {
    let all_busy = load.permits > 0 && load.running >= load.permits;
    all_busy && load.queued + load.waiting > 0 || load.permits > 0 && load.running * 10 > load.permits * 9
}

/// With a worker fewer at most half of the rest would be busy, and nothing waits.
fn idles(load: &Load, workers: usize) -> bool {
    let left = load.permits.saturating_sub(load.permits / workers.max(1));
    load.queued + load.waiting == 0 && load.running * 2 <= left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: usize, permits: usize, waiting: usize) -> Load {
        Load { queued: 0, waiting, running, permits }
    }

    fn after(trend: &mut Trend, looks: u32, load: &Load, workers: usize) -> Option<Change> {
        (0..looks).filter_map(|_| trend.note(load, workers)).next()
    }

    #[test]
    fn requests_that_wait_while_all_are_busy_ask_for_a_worker_more_and_a_burst_does_not() {
        let mut trend = Trend::default();
        assert_eq!(after(&mut trend, 1, &load(2, 2, 5), 2), None);
        assert_eq!(after(&mut trend, 1, &load(0, 2, 0), 2), None);
        assert_eq!(after(&mut trend, 2, &load(2, 2, 5), 2), Some(Change::More));
    }

    #[test]
    fn a_pool_that_has_long_been_idle_gets_smaller_but_not_one_that_would_hurt_then() {
        let mut trend = Trend::default();
        assert_eq!(after(&mut trend, 29, &load(1, 4, 0), 4), None);
        assert_eq!(after(&mut trend, 1, &load(1, 4, 0), 4), Some(Change::Fewer));
        assert_eq!(after(&mut trend, 100, &load(2, 4, 0), 4), None);
    }

    #[test]
    fn what_brings_a_worker_never_takes_it_away_again() {
        for permits in 1..40 {
            for workers in 1..=permits {
                let busy = load(permits, permits, 1);
                let grown = load(permits, permits + permits / workers, 0);
                assert!(hurts(&busy));
                assert!(!idles(&grown, workers + 1), "{permits} permits of {workers} workers");
            }
        }
    }
}
