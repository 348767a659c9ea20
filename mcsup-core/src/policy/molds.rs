//! Which molds there are, and which generations want one. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment, WorkerId};
use super::status::State;

/// One mold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mold {
    /// Its version.
    pub generation: Generation,
    /// Its process, once forked.
    pub pid: i32,
    /// Where it is in its life.
    pub state: State,
    /// How long its boot took; zero until it is ready.
    pub boot: Duration,
}

/// All molds, and which generations have one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Molds {
    pub(super) molds: BTreeMap<WorkerId, Mold>,
    /// The generations whose workers are forked by a mold.
    pub(super) wanted_by: BTreeSet<Generation>,
    /// When the next may be booted.
    pub(super) again: Option<Moment>,
}

impl Molds {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Mold)> {
        self.molds.iter().map(|(id, mold)| (*id, mold))
    }

    /// Whether workers of `generation` can be forked now.
    pub fn can_fork(&self, generation: Generation) -> bool {
        !self.wanted_by.contains(&generation) || self.ready(generation).is_some()
    }

    /// The mold that forks workers of `generation`.
    pub fn ready(&self, generation: Generation) -> Option<WorkerId> {
        let ready = |(_, mold): &(WorkerId, &Mold)| mold.generation == generation && mold.state.is_ready();
        self.iter().find(ready).map(|(id, _)| id)
    }

    /// Whether there is one, or one boots.
    pub(super) fn has(&self, generation: Generation) -> bool {
        self.molds.values().any(|mold| mold.generation == generation && !mold.state.is_leaving())
    }

    /// Those that can be told something.
    pub(super) fn living(&self) -> impl Iterator<Item = WorkerId> {
        self.iter()
            .filter(|(_, mold)| mold.pid != 0)
            .filter(|(_, mold)| !matches!(mold.state, State::Killed { .. } | State::Unkillable { .. }))
            .map(|(id, _)| id)
    }

    /// Whether some fork has neither succeeded nor failed yet.
    pub(super) fn awaits_forks(&self) -> bool {
        self.molds.values().any(|mold| mold.pid == 0)
    }

    /// Whether one boots.
    pub(super) fn boots(&self) -> bool {
        self.molds.values().any(|mold| matches!(mold.state, State::Booting { .. }))
    }
}
