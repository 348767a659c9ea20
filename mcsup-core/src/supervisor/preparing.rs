//! The preparation of a reload: the settings of the new generation, and its listeners.
//!
//! The embedder may need time for its settings. The loop goes on meanwhile, and the descriptor that the embedder has
//! given, or the limit, ends that time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::Supervisor;
use super::config::Config;
use super::effects::{Executor, require_rows};
use super::generation_configs::GenerationConfig;
use crate::clock;
use crate::error::{Error, Result, one_line};
use crate::listener::activation;
use crate::policy::{Event, Machine, Moment, PoolPhase};

/// The time that an embedder needs for the settings of a reload, from
/// [`Supervisor::prepare_reload`](super::Supervisor::prepare_reload).
#[derive(Debug)]
#[non_exhaustive]
pub struct Preparation {
    ready: OwnedFd,
    limit: Duration,
}

impl Preparation {
    /// It ends when `ready` is readable or its other end is closed, and after `limit` in any case.
    pub fn new(ready: OwnedFd, limit: Duration) -> Self {
        Self { ready, limit }
    }
}

/// The preparation in progress, if any.
#[derive(Debug, Default)]
pub(super) struct Preparing(Option<Begun>);

#[derive(Debug)]
struct Begun {
    generation: u64,
    ready: OwnedFd,
    until: Moment,
}

impl Preparing {
    /// The descriptor to poll.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|begun| begun.ready.as_fd())
    }

    /// The number of that descriptor.
    pub(super) fn number(&self) -> Option<RawFd> {
        self.descriptor().map(|fd| fd.as_raw_fd())
    }

    /// The time of its limit.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.0.as_ref().map(|begun| begun.until)
    }

    /// Closes the descriptor in a forked child.
    pub(super) fn close_in_child(&mut self) {
        self.0 = None;
    }
}

impl Begun {
    fn is_over(&self, now: Moment) -> bool {
        let mut sources = [PollFd::new(&self.ready, PollFlags::IN)];
        let at_once = clock::wait_of(Duration::ZERO);
        now >= self.until || matches!(poll(&mut sources, Some(&at_once)), Ok(1..))
    }
}

impl<S: Supervisor> Executor<S> {
    /// Begins to read the settings of `generation`; `None`: the event comes later.
    pub(super) fn begin_to_prepare(&mut self, generation: u64) -> Option<Event> {
        self.preparing.0 = None;
        match self.supervisor.prepare_reload(generation) {
            Ok(None) => Some(self.prepare(generation)),
            Ok(Some(Preparation { ready, limit })) => {
                let until = clock::now().saturating_add(limit);
                self.preparing.0 = Some(Begun { generation, ready, until });
                None
            }
            Err(error) => Some(self.not_prepared(generation, &error)),
        }
    }

    /// The event of a preparation that is over. One whose reload has ended is given up.
    pub(super) fn poll_preparing(&mut self, machine: &Machine, now: Moment) -> Option<Event> {
        let begun = self.preparing.0.as_ref()?;
        let generation = begun.generation;
        let is_wanted = matches!(machine.phase(), PoolPhase::Reloading(now) if now.generation == generation);
        if !is_wanted {
            self.give_up_preparing(generation);
            return None;
        }
        if !begun.is_over(now) {
            return None;
        }
        self.preparing.0 = None;
        Some(self.prepare(generation))
    }

    /// Ends the preparation for `generation`, which will never serve.
    pub(super) fn give_up_preparing(&mut self, generation: u64) {
        if self.preparing.0.take_if(|begun| begun.generation == generation).is_some() {
            self.supervisor.forget(generation);
        }
    }

    /// Reads the settings again, and opens the listeners that they name beside the open ones.
    fn prepare(&mut self, generation: u64) -> Event {
        let prepared = self.supervisor.reload(generation).and_then(|config| {
            // A reload refuses the mistakes that a start refuses.
            if let Some(mistake) = config.as_ref().and_then(Config::mistake) {
                return Err(mistake);
            }
            let config = config.map(|config| self.resolved(config)).transpose()?;
            let policy = config.as_ref().map(|config| Box::new(config.policy.clone()));
            if let (Some(policy), Some(current)) = (&policy, self.generation_configs.current()) {
                require_rows(&self.crew.board(), &current.config.policy, policy)?;
            }
            let slots = self.slots.count();
            Ok((policy, self.generation_configs.prepare(generation, config, slots)?))
        });
        match prepared {
            Ok((policy, closes_listeners)) => {
                let new = self.generation_configs.get(generation);
                self.supervisor.opened(generation, &new.map(GenerationConfig::locals).unwrap_or_default());
                Event::Prepared { generation, policy, closes_listeners }
            }
            Err(error) => self.not_prepared(generation, &error),
        }
    }

    fn not_prepared(&mut self, generation: u64, error: &Error) -> Event {
        self.supervisor.forget(generation);
        let detail = error.detail().map(str::to_owned);
        Event::NotPrepared { generation, reason: one_line(&error.to_string()), detail }
    }

    /// `config` with the descriptors of passed sockets in its addresses.
    fn resolved(&self, mut config: Config) -> Result<Config> {
        if let Some(current) = self.generation_configs.current() {
            let manager = self.service.manager();
            config.addresses = activation::resolve_in(&config.addresses, manager, &current.listeners)?;
        }
        Ok(config)
    }
}
