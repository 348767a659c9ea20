//! CLOCK_MONOTONIC: all processes of a machine share it, and no user can set it.

use std::time::Duration;

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// The current time.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The current time in whole milliseconds, for use in an atomic.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}

/// The longest wait in one call. Some systems refuse more than 24 days.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The timeout for poll(2). Callers with a longer wait poll again after [`LONGEST_WAIT`].
pub(crate) fn wait_of(duration: Duration) -> Timespec {
    let duration = duration.min(LONGEST_WAIT);
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
