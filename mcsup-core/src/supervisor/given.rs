//! Attributes of the process that a supervisor changes, and restores at its end.
//!
//! `signals` restores the signals.

use crate::host::descriptors::{self, Limit};
use crate::sys::ancestry;

/// The attributes that a supervisor changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// The limit of open descriptors.
    pub(super) descriptors: Limit,
    /// Whether it adopts orphans.
    pub(super) is_subreaper: bool,
}

impl Given {
    /// The current attributes of the process.
    pub(super) fn look() -> Self {
        Self { descriptors: descriptors::limit(), is_subreaper: ancestry::is_subreaper() }
    }
}

/// Restores the attributes when dropped.
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
