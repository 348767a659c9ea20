//! Forks that the system refuses.
//!
//! A refused fork is charged to no slot: the whole pool waits a moment, and one fork is tried.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Moment, WorkerId};

/// How long the pool waits after the first fork that was refused; twice as long after each further one.
const FIRST: Duration = Duration::from_millis(500);
/// The longest such wait.
const LONGEST: Duration = Duration::from_secs(2);

/// After how many refused forks in a row a mold is replaced.
const BARREN: u32 = 4;

/// Whether the system refuses forks, and when the next is tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Refusals(Option<Refusal>);

/// The last fork that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    /// When the next fork is tried.
    again: Moment,
    delay: Duration,
    /// How many were refused in a row.
    times: u32,
    /// One was tried since the last answer.
    is_tried: bool,
    /// The mold that could not fork; `None`: the supervisor.
    mold: Option<WorkerId>,
    reason: String,
}

impl Refusals {
    /// A fork was refused; says in how long the next is tried.
    pub(super) fn note(&mut self, mold: Option<WorkerId>, reason: &str, now: Moment) -> Duration {
        let delay = match &self.0 {
            Some(refusal) if refusal.is_tried => (refusal.delay * 2).min(LONGEST),
            // It was asked for together with one that was refused before.
            Some(refusal) => return refusal.again.saturating_sub(now),
            None => FIRST,
        };
        let times = self.0.as_ref().map_or(1, |refusal| refusal.times + 1);
        let (again, reason) = (now.saturating_add(delay), reason.to_owned());
        self.0 = Some(Refusal { again, delay, times, is_tried: false, mold, reason });
        delay
    }

    /// A fork is tried: while the system refuses them, the next has to wait for its outcome.
    pub(super) fn note_tried(&mut self, now: Moment) {
        if let Some(refusal) = &mut self.0 {
            refusal.again = now.saturating_add(refusal.delay);
            refusal.is_tried = true;
        }
    }

    /// A fork has worked, or the next is as good as any.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// A mold has ended: another one forks the workers that it did not.
    pub(super) fn mold_ended(&mut self, mold: WorkerId) {
        self.0.take_if(|refusal| refusal.mold == Some(mold));
    }

    /// Whether a fork may be tried.
    pub(super) fn may_fork(&self, now: Moment) -> bool {
        self.0.as_ref().is_none_or(|refusal| refusal.again <= now)
    }

    /// Whether the system refuses forks, as far as the last one shows.
    pub(super) fn is_refused(&self) -> bool {
        self.0.is_some()
    }

    /// When the next fork is tried, while the system refuses them.
    pub(super) fn again(&self) -> Option<Moment> {
        self.0.as_ref().map(|refusal| refusal.again)
    }

    /// Why the system refuses forks.
    pub(super) fn reason(&self) -> Option<&str> {
        self.0.as_ref().map(|refusal| refusal.reason.as_str())
    }

    /// A mold that could not fork again and again: another one may have the means.
    pub(super) fn barren_mold(&self) -> Option<WorkerId> {
        self.0.as_ref().filter(|refusal| refusal.times >= BARREN)?.mold
    }
}
