//! The settings and listeners of each generation.
//!
//! The serving and the booting generation have one configuration each, and share the listeners that are in both.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};

use super::config::Config;
use crate::error::Result;
use crate::listener::open::OpenSet;
use crate::listener::own;
use crate::listener::{Connection, Local};

/// A generation's settings and listeners.
#[derive(Debug, Clone)]
pub(crate) struct GenerationConfig {
    pub(crate) config: Config,
    pub(crate) listeners: OpenSet,
}

impl GenerationConfig {
    /// The addresses of its listeners.
    pub(crate) fn locals(&self) -> Vec<&Local> {
        self.listeners.locals().collect()
    }
}

/// All configurations that workers may still be forked from.
#[derive(Debug, Default)]
pub(crate) struct GenerationConfigs {
    by_generation: BTreeMap<u64, GenerationConfig>,
    current: u64,
}

impl GenerationConfigs {
    /// The configuration of the first generation.
    pub(crate) fn new(generation: u64, generation_config: GenerationConfig) -> Self {
        Self { by_generation: BTreeMap::from([(generation, generation_config)]), current: generation }
    }

    pub(crate) fn get(&self, generation: u64) -> Option<&GenerationConfig> {
        self.by_generation.get(&generation)
    }

    /// The descriptors of the listeners of all generations.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let listeners = self.by_generation.values().flat_map(|one| one.listeners.iter());
        listeners.map(|listener| listener.as_fd().as_raw_fd())
    }

    /// The configuration of the serving generation.
    pub(crate) fn current(&self) -> Option<&GenerationConfig> {
        self.get(self.current)
    }

    /// Adds a configuration for `generation` and opens its listeners. `config`: the new settings; `None`: unchanged.
    ///
    /// Returns whether a listener of the serving generation is no longer configured.
    pub(crate) fn prepare(&mut self, generation: u64, config: Option<Config>, slots: usize) -> Result<bool> {
        let Some(current) = self.current() else { return Ok(false) };
        let config = config.unwrap_or_else(|| current.config.clone());
        own::prepare(&config.listeners)?;
        let listeners = current.listeners.changed_to(&config.addresses, &config.listener, slots)?;
        let listeners = listeners.with_own(&config.listeners);
        let closes = listeners.lacks_any_of(&current.listeners);
        self.by_generation.insert(generation, GenerationConfig { config, listeners });
        Ok(closes)
    }

    /// Makes `generation` the serving one, and applies its options to the kept listeners.
    ///
    /// Closes the listeners of older generations only, and removes their paths. Returns the dropped generations.
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

    /// Drops `generation`, which never served, and the listeners that only it has.
    pub(crate) fn discard(&mut self, generation: u64) -> Vec<u64> {
        let Some(kept) = self.current().map(|generation_config| generation_config.listeners.clone()) else {
            return Vec::new();
        };
        self.forget(|other| other == generation, &kept)
    }

    /// Opens listeners for `slots` slots. Further ones get no connections until [`aim`](Self::aim); those of ended slots
    /// get no new ones.
    pub(crate) fn resize(&mut self, slots: usize) -> Result<()> {
        let Some(current) = self.current() else { return Ok(()) };
        let resized = current.listeners.resized(slots)?;
        for generation_config in self.by_generation.values_mut() {
            generation_config.listeners = generation_config.listeners.resized_beside(&resized, slots)?;
        }
        Ok(())
    }

    /// Spreads new connections over `slots` slots, each of which has a ready worker.
    pub(crate) fn aim(&self, slots: usize) {
        let Some(Err(error)) = self.current().map(|generation_config| generation_config.listeners.aim(slots))
        else {
            return;
        };
        log::error!("{error}");
    }

    /// Whether sockets of ended slots are still open.
    pub(crate) fn is_leaving(&self) -> bool {
        self.current().is_some_and(|generation_config| generation_config.listeners.is_leaving())
    }

    /// Closes the sockets of ended slots once no handshake is in progress; returns the connections that were not accepted.
    pub(crate) fn end_leaving(&mut self) -> Vec<Connection> {
        let Some(generation_config) = self.by_generation.get_mut(&self.current) else { return Vec::new() };
        if generation_config.listeners.is_settled() {
            generation_config.listeners.end_leaving()
        } else {
            Vec::new()
        }
    }

    /// Refuses new connections, so that the queue can be emptied before the listeners close.
    pub(crate) fn refuse_new(&self) {
        if let Some(current) = self.current() {
            current.listeners.refuse_new_where_lacking(&OpenSet::default());
        }
    }

    /// Closes all listeners and removes their paths.
    pub(crate) fn close(&mut self) {
        for generation_config in std::mem::take(&mut self.by_generation).into_values() {
            generation_config.listeners.withdraw();
        }
    }

    fn forget(&mut self, which: impl Fn(u64) -> bool, kept: &OpenSet) -> Vec<u64> {
        let gone: Vec<u64> =
            self.by_generation.keys().copied().filter(|generation| which(*generation)).collect();
        for generation_config in gone.iter().filter_map(|generation| self.by_generation.remove(generation)) {
            generation_config.listeners.withdraw_unless_in(kept);
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
        let mut generation_configs = GenerationConfigs::new(1, GenerationConfig { config: first, listeners });
        generation_configs.prepare(2, Some(config(0o666)), 1).unwrap();
        assert_eq!(mode(), 0o600);
        generation_configs.discard(2);
        assert_eq!(mode(), 0o600);
        generation_configs.prepare(3, Some(config(0o660)), 1).unwrap();
        assert_eq!(generation_configs.commit(3), [1]);
        assert_eq!(mode(), 0o660);
        generation_configs.close();
    }
}
