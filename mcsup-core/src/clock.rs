//! The one clock: CLOCK_MONOTONIC, which all processes of a machine share and no user can set.

use std::time::Duration;

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Now, in whole milliseconds: what fits into an atomic.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}

/// The longest wait in one call: some systems refuse more than 24 days.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How long poll(2) is to wait. A day at most; a longer wait looks once a day.
pub(crate) fn wait_of(duration: Duration) -> Timespec {
    let duration = duration.min(LONGEST_WAIT);
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
