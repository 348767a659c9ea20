//! Changes of the process that last as long as a supervisor runs.
//!
//! Signals are put back by `signals`.

use crate::host::descriptors::{self, Limit};
use crate::sys::ancestry;

/// What the process was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// How many descriptors it may have open.
    pub(super) descriptors: Limit,
    /// Whether it adopts orphans.
    pub(super) is_subreaper: bool,
}

impl Given {
    /// What the process has now.
    pub(super) fn look() -> Self {
        Self { descriptors: descriptors::limit(), is_subreaper: ancestry::is_subreaper() }
    }
}

/// Puts back what was given when it is dropped.
#[derive(Debug)]
pub(super) struct PutBack(pub(super) Given);

impl Drop for PutBack {
    fn drop(&mut self) {
        let Given { descriptors, is_subreaper } = self.0;
        descriptors.restore();
        if !is_subreaper && ancestry::is_subreaper() {
            if let Err(error) = ancestry::stop_adopting() {
                log::debug!("cannot stop adopting orphans: {error}");
            }
        }
    }
}
