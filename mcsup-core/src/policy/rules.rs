//! The settings of a pool that its decisions depend on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings that the decisions depend on. `None`: the limit is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The intended number of workers.
    pub workers: usize,
    /// The largest number of workers; 65 536 at most.
    pub max_workers: usize,
    /// The longest boot.
    pub boot_timeout: Duration,
    /// The longest time of a ready worker without a beat.
    pub timeout: Option<Duration>,
    /// The longest drain of a worker.
    pub graceful_timeout: Duration,
    /// The time from a quick stop to SIGKILL.
    pub quick_timeout: Duration,
    /// The time from SIGABRT, at which a worker writes its stacks, to SIGKILL.
    pub abort_patience: Duration,
    /// How long a pool serves after a request to stop, with a failing health check.
    pub drain_delay: Duration,
    /// The shortest time between two reloads.
    pub reload_interval: Duration,
    /// The plan of a rollout.
    pub plan: Plan,
    /// The limits at which healthy workers are replaced.
    pub recycling: Recycling,
    /// Whether a mold loads the application and forks the workers.
    pub preload: bool,
    /// The longest dry run of a new image.
    pub upgrade_timeout: Duration,
    /// Whether workers receive the reason of a failed reload.
    pub development: bool,
    /// The back-off of dead workers.
    pub restart: RestartPolicy,
    /// The seed of the jitter.
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
    /// The permitted number of workers nearest to `workers`.
    pub(super) fn allowed(&self, workers: usize) -> usize {
        workers.clamp(1, self.max_workers.max(1))
    }
}

/// The plan of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The number of extra workers.
    pub surge: Surge,
    /// The time that the first new workers must live after they were ready.
    pub soak: Duration,
    /// The number of new workers that may fail; one more ends the rollout.
    pub retries: usize,
}

/// The number of extra workers of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    /// This number; 0 counts as 1.
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
    /// The number of new workers that may boot at once, of `workers`.
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
    /// The time since it was ready.
    pub lifetime: Option<Limit<Duration>>,
    /// Bytes of memory.
    pub rss: Option<Limit<u64>>,
}

/// A limit, drawn once for each worker from `base` to `base + jitter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit<T> {
    /// The smallest limit; below a unit (one, a millisecond, a byte): no limit.
    pub base: T,
    /// The largest random addition.
    pub jitter: T,
}

/// The parameters of the back-off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// The delay after a failed boot, doubled by each further one. Also the shortest rest of a pool between boots.
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
