//! The limit of open descriptors.
//!
//! The supervisor raises its own, as it has some for each worker. Its workers keep the original limit: some
//! programs use select(2), or close every possible descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// A soft limit; `None`: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit(Option<u64>);

/// This process's limit.
pub(crate) fn limit() -> Limit {
    Limit(getrlimit(Resource::Nofile).current)
}

/// Raises this process's limit to its maximum.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        set(limit.maximum);
    }
}

impl Limit {
    /// The number of descriptors.
    pub(crate) fn count(self) -> usize {
        self.0.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Restores the limit in this process. Descriptors above it stay open.
    pub(crate) fn restore(self) {
        if getrlimit(Resource::Nofile).current != self.0 {
            set(self.0);
        }
    }
}

fn set(current: Option<u64>) {
    let limit = Rlimit { current, ..getrlimit(Resource::Nofile) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("cannot change the limit of open descriptors: {error}");
    }
}
