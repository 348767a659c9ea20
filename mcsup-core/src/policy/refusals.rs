//! Forks that the system refuses.
//!
//! A refused fork counts for no slot: the whole pool waits, and then tries one fork.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Moment, WorkerId};

/// The wait after the first refused fork, doubled by each further one.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(2);

/// The number of refused forks in a row after which a mold is replaced.
const MAX_REFUSALS: u32 = 4;

/// The current refusal, if the system refuses forks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Refusals(Option<Refusal>);

/// The last refused fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    /// The time of the next attempt.
    again: Moment,
    delay: Duration,
    /// The number of refused forks in a row.
    times: u32,
    /// Whether an attempt is pending.
    is_tried: bool,
    /// The mold that could not fork; `None`: the supervisor could not.
    mold: Option<WorkerId>,
    reason: String,
}

impl Refusals {
    /// Notes a refused fork. Returns the time until the next attempt.
    pub(super) fn note(&mut self, mold: Option<WorkerId>, reason: &str, now: Moment) -> Duration {
        let delay = match &self.0 {
            Some(refusal) if refusal.is_tried => (refusal.delay * 2).min(LONGEST),
            // It was requested together with an earlier refused one.
            Some(refusal) => return refusal.again.saturating_sub(now),
            None => FIRST,
        };
        let times = self.0.as_ref().map_or(1, |refusal| refusal.times + 1);
        let (again, reason) = (now.saturating_add(delay), reason.to_owned());
        self.0 = Some(Refusal { again, delay, times, is_tried: false, mold, reason });
        delay
    }

    /// Notes an attempt: during a refusal the next one waits for its outcome.
    pub(super) fn note_tried(&mut self, now: Moment) {
        if let Some(refusal) = &mut self.0 {
            refusal.again = now.saturating_add(refusal.delay);
            refusal.is_tried = true;
        }
    }

    /// Ends the refusal: a fork has succeeded, or none is needed.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// Ends the refusal of a mold that has ended.
    pub(super) fn mold_ended(&mut self, mold: WorkerId) {
        self.0.take_if(|refusal| refusal.mold == Some(mold));
    }

    /// Whether a fork may be tried now.
    pub(super) fn may_fork(&self, now: Moment) -> bool {
        self.0.as_ref().is_none_or(|refusal| refusal.again <= now)
    }

    /// Whether the last fork was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.0.is_some()
    }

    /// The time of the next attempt during a refusal.
    pub(super) fn again(&self) -> Option<Moment> {
        self.0.as_ref().map(|refusal| refusal.again)
    }

    /// The reason of the refusal.
    pub(super) fn reason(&self) -> Option<&str> {
        self.0.as_ref().map(|refusal| refusal.reason.as_str())
    }

    /// The mold whose forks were refused [`MAX_REFUSALS`] times in a row: another one may succeed.
    pub(super) fn failing_mold(&self) -> Option<WorkerId> {
        self.0.as_ref().filter(|refusal| refusal.times >= MAX_REFUSALS)?.mold
    }
}
