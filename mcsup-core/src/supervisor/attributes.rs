//! Attributes of the process that a supervisor changes, and restores at its end.
//!
//! `signals` restores the signals.

use crate::host::descriptors::{self, Limit};
use crate::sys::ancestry;

/// The attributes that a supervisor changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessAttributes {
    /// The limit of open descriptors.
    pub(super) descriptors: Limit,
    /// Whether it adopts orphans.
    pub(super) is_subreaper: bool,
}

impl ProcessAttributes {
    /// The current attributes of the process.
    pub(super) fn current() -> Self {
        Self { descriptors: descriptors::limit(), is_subreaper: ancestry::is_subreaper() }
    }
}

/// Restores the attributes when dropped.
#[derive(Debug)]
pub(super) struct RestoreAttributes(pub(super) ProcessAttributes);

impl Drop for RestoreAttributes {
    fn drop(&mut self) {
        let ProcessAttributes { descriptors, is_subreaper } = self.0;
        descriptors.restore();
        if !is_subreaper && ancestry::is_subreaper() {
            if let Err(error) = ancestry::stop_adopting() {
                log::debug!("cannot stop adopting orphans: {error}");
            }
        }
    }
}
