//! The settings of a pool that its decisions depend on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings that the machine decides by; `None` where a limit is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How many workers there should be.
    pub workers: usize,
    /// The most that scaling up reaches.
    pub max_workers: usize,
    /// How long a boot may take.
    pub boot_timeout: Duration,
    /// How long a ready worker may give no sign of life.
    pub timeout: Option<Duration>,
    /// How long a draining worker may take.
    pub graceful_timeout: Duration,
    /// How long a quick stop waits before it kills.
    pub quick_timeout: Duration,
    /// How long an aborted worker may take to show its stacks.
    pub abort_patience: Duration,
    /// How long a pool that is asked to stop still serves, with a health check that fails.
    pub drain_delay: Duration,
    /// The shortest time between two reloads: a storm of them is one.
    pub reload_interval: Duration,
    /// How a new generation takes over.
    pub plan: Plan,
    /// When workers are replaced before anything is wrong with them.
    pub recycling: Recycling,
    /// Whether a mold loads the code of the workers, and forks them.
    pub preload: bool,
    /// How long a new image may take to show that it can take over.
    pub upgrade_timeout: Duration,
    /// Whether workers learn why a reload failed.
    pub development: bool,
    /// When dead workers are replaced.
    pub restart: RestartPolicy,
    /// Starts the jitter.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            workers: 1,
            max_workers: 512,
            boot_timeout: Duration::from_secs(60),
            timeout: None,
            graceful_timeout: Duration::from_secs(30),
            quick_timeout: Duration::from_secs(1),
            abort_patience: Duration::from_secs(1),
            drain_delay: Duration::ZERO,
            reload_interval: Duration::from_secs(1),
            plan: Plan::default(),
            recycling: Recycling::default(),
            preload: false,
            upgrade_timeout: Duration::from_secs(30),
            development: false,
            restart: RestartPolicy::default(),
            seed: 0,
        }
    }
}

impl Policy {
    /// The number of workers nearest to `workers` that there may be.
    pub(super) fn allowed(&self, workers: usize) -> usize {
        workers.clamp(1, self.max_workers.max(1))
    }
}

/// How a new generation takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many workers more than asked for there may be.
    pub surge: Surge,
    /// For how long the first new workers must live after they were ready.
    pub soak: Duration,
    /// How many new workers may fail before the new generation is given up.
    pub retries: usize,
}

/// How many workers more than asked for a reload may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    /// This many; 0 is taken for 1.
    Extra(usize),
    /// A whole second pool: the old one retires at once, when all of the new one is ready.
    All,
}

impl Default for Plan {
    fn default() -> Self {
        Self { surge: Surge::Extra(1), soak: Duration::from_secs(2), retries: 0 }
    }
}

impl Surge {
    /// How many new workers may be on their way at once, of `workers`.
    pub(super) fn batch(self, workers: usize) -> usize {
        match self {
            Surge::Extra(extra) => extra.clamp(1, workers.max(1)),
            Surge::All => workers.max(1),
        }
    }
}

/// The limits at which a worker is replaced; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recycling {
    /// Requests.
    pub requests: Option<Limit<u64>>,
    /// Time since it was ready.
    pub lifetime: Option<Limit<Duration>>,
    /// Bytes of memory.
    pub rss: Option<Limit<u64>>,
}

/// A limit that is drawn for each worker, once: from `base` to `base + jitter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit<T> {
    /// The least that is drawn; below a unit (one, a millisecond, a byte): no limit.
    pub base: T,
    /// How much more it may be.
    pub jitter: T,
}

/// The shape of the back-off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// The delay after a failed boot; it doubles with each further one. Also the shortest rest of a pool between boots.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// The longest delay after the death of a worker that was ready.
    pub ready_cap: Duration,
    /// A slot that was served for this long forgets one death.
    pub stable: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            ready_cap: Duration::from_secs(5),
            stable: Duration::from_secs(10),
        }
    }
}
