//! What the workers of each generation are made of: settings and listeners. The serving generation has an edition, and
//! one that is on its way has another; they share the listeners that both want.

use std::collections::BTreeMap;

use super::config::Config;
use crate::error::Result;
use crate::listener::Connection;
use crate::listener::open::OpenSet;

/// A generation's settings and listeners.
#[derive(Debug, Clone)]
pub(crate) struct Edition {
    pub(crate) config: Config,
    pub(crate) listeners: OpenSet,
}

/// All editions that workers may still be forked from.
#[derive(Debug, Default)]
pub(crate) struct Editions {
    by_generation: BTreeMap<u64, Edition>,
    current: u64,
}

impl Editions {
    /// The first one.
    pub(crate) fn new(generation: u64, edition: Edition) -> Self {
        Self { by_generation: BTreeMap::from([(generation, edition)]), current: generation }
    }

    pub(crate) fn get(&self, generation: u64) -> Option<&Edition> {
        self.by_generation.get(&generation)
    }

    /// The one that serves.
    pub(crate) fn current(&self) -> Option<&Edition> {
        self.get(self.current)
    }

    /// Makes one for `generation` by new settings (`None`: they are what they were), with every listener open that they
    /// want. Returns whether some listener is not wanted any more.
    pub(crate) fn prepare(&mut self, generation: u64, config: Option<Config>, slots: usize) -> Result<bool> {
        let Some(current) = self.current() else { return Ok(false) };
        let config = config.unwrap_or_else(|| current.config.clone());
        let listeners = current.listeners.changed_to(&config.addresses, &config.listener, slots)?;
        let closes = listeners.lacks_any_of(&current.listeners);
        self.by_generation.insert(generation, Edition { config, listeners });
        Ok(closes)
    }

    /// `generation` serves from now on, and what it has kept of older ones is as its settings say. What only older ones
    /// listened on is closed, and their paths are taken away. Returns the generations that are no more.
    pub(crate) fn commit(&mut self, generation: u64) -> Vec<u64> {
        let Some(new) = self.by_generation.get_mut(&generation) else { return Vec::new() };
        new.listeners.apply(&new.config.listener);
        let new = new.clone();
        if let Some(old) = self.current() {
            old.listeners.refuse_new_where_lacking(&new.listeners);
        }
        self.current = generation;
        self.forget(|other| other < generation, &new.listeners)
    }

    /// `generation` will never serve.
    pub(crate) fn discard(&mut self, generation: u64) -> Vec<u64> {
        let Some(kept) = self.current().map(|edition| edition.listeners.clone()) else { return Vec::new() };
        self.forget(|other| other == generation, &kept)
    }

    /// Has listeners for this number of slots. Further ones get connections when [`aim`](Self::aim) says so; those of slots that
    /// are no more get none from now on.
    pub(crate) fn resize(&mut self, slots: usize) -> Result<()> {
        let Some(current) = self.current() else { return Ok(()) };
        let resized = current.listeners.resized(slots)?;
        for edition in self.by_generation.values_mut() {
            edition.listeners = edition.listeners.resized_beside(&resized, slots)?;
        }
        Ok(())
    }

    /// Every slot has a ready worker: each gets its share of new connections.
    pub(crate) fn aim(&self, slots: usize) {
        let Some(Err(error)) = self.current().map(|edition| edition.listeners.aim(slots)) else { return };
        log::error!("{error}");
    }

    /// Whether sockets of slots that are no more are still open.
    pub(crate) fn is_leaving(&self) -> bool {
        self.current().is_some_and(|edition| edition.listeners.is_leaving())
    }

    /// Closes those of them to which nothing is coming any more; returns the connections that were not accepted.
    pub(crate) fn end_leaving(&mut self) -> Vec<Connection> {
        let Some(edition) = self.by_generation.get_mut(&self.current) else { return Vec::new() };
        if edition.listeners.is_settled() { edition.listeners.end_leaving() } else { Vec::new() }
    }

    /// Keeps new clients out of the queue, so that those in it can be served before the listeners close.
    pub(crate) fn refuse_new(&self) {
        if let Some(current) = self.current() {
            current.listeners.refuse_new_where_lacking(&OpenSet::default());
        }
    }

    /// Closes everything, and takes all paths away so that no new client comes.
    pub(crate) fn close(&mut self) {
        for edition in std::mem::take(&mut self.by_generation).into_values() {
            edition.listeners.withdraw();
        }
    }

    fn forget(&mut self, which: impl Fn(u64) -> bool, kept: &OpenSet) -> Vec<u64> {
        let gone: Vec<u64> =
            self.by_generation.keys().copied().filter(|generation| which(*generation)).collect();
        for edition in gone.iter().filter_map(|generation| self.by_generation.remove(generation)) {
            edition.listeners.withdraw_unless_in(kept);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::listener::{Address, Options};

    #[test]
    fn a_kept_listener_has_its_new_options_when_the_new_generation_serves_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let config = |unix_mode| Config {
            addresses: vec![Address::Unix(path.clone())],
            listener: Options { unix_mode, ..Options::default() },
            ..Config::default()
        };
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let first = config(0o600);
        let listeners = OpenSet::open(&first.addresses, &first.listener, 1).unwrap();
        let mut editions = Editions::new(1, Edition { config: first, listeners });
        editions.prepare(2, Some(config(0o666)), 1).unwrap();
        assert_eq!(mode(), 0o600);
        editions.discard(2);
        assert_eq!(mode(), 0o600);
        editions.prepare(3, Some(config(0o660)), 1).unwrap();
        assert_eq!(editions.commit(3), [1]);
        assert_eq!(mode(), 0o660);
        editions.close();
    }
}
