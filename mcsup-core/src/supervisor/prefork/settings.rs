//! The methods of the builder: one for each setting.

use std::path::PathBuf;
use std::time::Duration;

use super::Prefork;
use crate::error::Result;
use crate::host::privileges::RunAs;
use crate::host::service_manager::ServiceManager;
use crate::listener::Options;
use crate::policy::{Plan, Policy, Recycling, RestartPolicy};
use crate::spawn::spec::MoldThreads;
use crate::supervisor::Supervisor;
use crate::supervisor::config::{Children, Config};
use crate::upgrade::Image;

/// The value of a setting, or with `some` or `into` converted to it.
macro_rules! convert {
    ($value:ident) => {
        $value
    };
    ($value:ident some) => {
        Some($value.into())
    };
    ($value:ident into) => {
        $value.into()
    };
}

/// A method for each setting, which has the name of the method.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $($field:ident).+ $($into:ident)?;)*) => {
        impl<S: Supervisor> Prefork<S> {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.config.$($field).+ = convert!($name $($into)?);
                    self
                }
            )*
        }
    };
}

settings! {
    /// How to listen, in place of all options that are set before.
    listener_options: Options, listener;
    /// The length of the kernel's queue of each listener (listen(2)).
    backlog: i32, listener.backlog;
    /// The mode of Unix sockets.
    unix_mode: u32, listener.unix_mode;
    /// User and group id that own Unix sockets; `None`: those of this process.
    unix_owner: (Option<u32>, Option<u32>), listener.unix_owner;
    /// One socket for each slot and TCP address (Linux): see [`Options::reuse_port`].
    reuse_port: bool, listener.reuse_port;
    /// All settings of the decisions, in place of those that are set before.
    policy: Policy, policy;
    /// The largest number of workers; 65 536 at most.
    max_workers: usize, policy.max_workers;
    /// The longest boot.
    boot_timeout: Duration, policy.boot_timeout;
    /// The longest time of a ready worker without a [beat](crate::WorkerContext::beat); `None`: no limit.
    timeout: impl Into<Option<Duration>>, policy.timeout into;
    /// The longest drain of a worker.
    graceful_timeout: Duration, policy.graceful_timeout;
    /// The time from a quick stop to SIGKILL.
    quick_timeout: Duration, policy.quick_timeout;
    /// The time from SIGABRT to SIGKILL, for a worker without beats.
    abort_patience: Duration, policy.abort_patience;
    /// How long the pool serves after a request to stop, so that a load balancer can detect the stop.
    drain_delay: Duration, policy.drain_delay;
    /// The shortest time between two reloads.
    reload_interval: Duration, policy.reload_interval;
    /// The plan of a rollout: extra workers, soak, retries.
    plan: Plan, policy.plan;
    /// The limits at which healthy workers are replaced.
    recycling: Recycling, policy.recycling;
    /// Whether a mold loads the code once and forks the workers.
    preload: bool, policy.preload;
    /// The longest dry run of a new image.
    upgrade_timeout: Duration, policy.upgrade_timeout;
    /// Whether workers receive the reason of a failed reload ([`broken`](crate::WorkerContext::broken)).
    development: bool, policy.development;
    /// The back-off of dead workers.
    restart: RestartPolicy, policy.restart;
    /// The seed of the random additions to limits and delays.
    seed: u64, policy.seed;
    /// The pid file, whose lock refuses a second supervisor. Without it there is none.
    pid_file: impl Into<PathBuf>, pid_file some;
    /// The path of the control socket. Without it there is none.
    control_socket: impl Into<PathBuf>, control_socket some;
    /// The user and groups of the workers ([`RunAs::look_up`]); `None`: those of the supervisor.
    run_as: impl Into<Option<RunAs>>, run_as into;
    /// The treatment of threads that run in a mold before its first fork.
    mold_threads: MoldThreads, mold_threads;
    /// The treatment of processes that the application starts and that outlive their worker.
    children: Children, children;
    /// The name of workers and molds in process listings; the kernel keeps 15 bytes.
    name: impl Into<String>, name some;
    /// The command line in process listings (Linux), in which `{}` stands for `worker`, `mold` or `supervisor`.
    title: impl Into<String>, title some;
    /// The image that an upgrade executes; `None`: upgrades are refused.
    image: impl Into<Option<Image>>, image into;
    /// The service manager that has started this process: [`ServiceManager::from_environment`] finds it.
    service_manager: ServiceManager, service_manager;
}

impl<S: Supervisor> Prefork<S> {
    /// The settings as they are now.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings, for [`Prefork::with_config`] or [`Supervisor::reload`].
    ///
    /// # Errors
    /// [`ErrorKind::Setting`](crate::ErrorKind::Setting): the first mistake, which [`run`](Self::run) would end with.
    pub fn into_config(self) -> Result<Config> {
        match self.mistake.or_else(|| self.config.mistake()) {
            Some(mistake) => Err(mistake),
            None => Ok(self.config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::prefork::tests::Idle;

    #[test]
    fn the_builder_sets_and_yields_each_setting() {
        let path = || PathBuf::from("/run/a.pid");
        let pool = Prefork::new(|| Idle)
            .bind("127.0.0.1:0")
            .workers(3)
            .backlog(7)
            .preload(true)
            .timeout(Duration::from_secs(9))
            .children(Children::End)
            .pid_file(path())
            .control_socket(path())
            .name("idle");
        let config = pool.config().clone();
        assert_eq!((config.policy.workers, config.listener.backlog, config.policy.preload), (3, 7, true));
        assert_eq!((config.policy.timeout, config.children), (Some(Duration::from_secs(9)), Children::End));
        assert_eq!((config.pid_file, config.control_socket), (Some(path()), Some(path())));
        assert_eq!(config.name.as_deref(), Some("idle"));
        assert_eq!(pool.into_config().unwrap().addresses.len(), 1);
    }

    #[test]
    fn settings_with_a_mistake_are_not_yielded_for_a_reload() {
        let pool = || Prefork::new(|| Idle);
        for (pool, reason) in [
            (pool(), "there is no address to listen on"),
            (pool().bind("127.0.0.1:0").workers(0), "0 workers: expected 1 to 512"),
            (pool().bind("127.0.0.1:0").workers(9).max_workers(8), "9 workers: expected 1 to 8"),
            (pool().bind("127.0.0.1:0").max_workers(usize::MAX), "at most 18446744073709551615 workers: "),
            (pool().bind("127.0.0.1:0").max_workers(200_000_000), "at most 200000000 workers: "),
            (pool().bind("127.0.0.1:0").bind("nowhere:x"), "nowhere:x"),
        ] {
            let mistake = pool.into_config().unwrap_err().to_string();
            assert!(mistake.contains(reason), "{mistake}");
        }
    }
}
