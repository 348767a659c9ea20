//! Attributes of the process that a supervisor changes. The last one in a process restores them at its end.
//!
//! `signals` restores the signals.

use std::sync::{Mutex, MutexGuard, PoisonError};

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

    fn restore(self) {
        self.descriptors.restore();
        if !self.is_subreaper && ancestry::is_subreaper() {
            if let Err(error) = ancestry::stop_adopting() {
                log::debug!("cannot stop adopting orphans: {error}");
            }
        }
    }
}

/// The number of pools in this process, and its attributes before the first.
static HELD: Mutex<(usize, Option<ProcessAttributes>)> = Mutex::new((0, None));

fn held() -> MutexGuard<'static, (usize, Option<ProcessAttributes>)> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The drop of the last one in a process restores the attributes from before the first.
#[derive(Debug)]
pub(super) struct RestoreAttributes(());

impl RestoreAttributes {
    /// Keeps the attributes for a pool that begins; returns those from before the first pool.
    pub(super) fn hold() -> (Self, ProcessAttributes) {
        let mut held = held();
        held.0 += 1;
        (Self(()), *held.1.get_or_insert_with(ProcessAttributes::current))
    }

    /// Sets the attributes from before the first pool, as an earlier image has recorded them.
    pub(super) fn set(&self, attributes: ProcessAttributes) {
        held().1 = Some(attributes);
    }
}

impl Drop for RestoreAttributes {
    fn drop(&mut self) {
        let mut held = held();
        held.0 = held.0.saturating_sub(1);
        if held.0 == 0 {
            held.1.take().into_iter().for_each(ProcessAttributes::restore);
        }
    }
}
