//! Settings of reload, recycling, draining, the mold and the control socket.
//!
//! Each group checks the relations between its settings. The supervisor applies them.

use std::path::PathBuf;
use std::time::Duration;

use mcsup_core::MoldThreads;
use mcsup_core::policy::Surge;
use mcsup_py::ReloadEngine;

use super::sources::{Sourced, Sources, refused};
use crate::args::UsageError;
use crate::values;

/// Largest number of failed workers in a reload.
const MOST_RETRIES: usize = 100;

/// Settings of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Extra workers at once.
    pub surge: Sourced<Surge>,
    /// Time that the first new worker must live after it is ready.
    pub soak: Sourced<Duration>,
    /// New workers that may fail before the reload is rolled back, 0 to 100.
    pub retries: Sourced<usize>,
}

/// Limits after which a healthy worker is replaced. A jitter without its limit has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recycling {
    /// Requests; `None`: no limit.
    pub requests: Sourced<Option<u64>>,
    /// Largest random addition to `requests`, drawn for each worker.
    pub requests_jitter: Sourced<u64>,
    /// Time; `None`: no limit.
    pub lifetime: Sourced<Option<Duration>>,
    /// Largest random addition to `lifetime`, drawn for each worker.
    pub lifetime_jitter: Sourced<Duration>,
    /// Bytes of resident memory; `None`: no limit.
    pub rss: Sourced<Option<u64>>,
    /// Largest random addition to `rss`, drawn for each worker.
    pub rss_jitter: Sourced<u64>,
}

/// Announcement of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draining {
    /// Time in which connections are still accepted while the health check answers 503.
    pub delay: Sourced<Duration>,
    /// Path of the health check; begins with `/`, without a query.
    pub health_path: Option<Sourced<String>>,
}

/// Settings of the mold, which loads the application once and forks the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mold {
    /// Whether there is a mold.
    pub preload: Sourced<bool>,
    /// Reaction to threads that run in it.
    pub threads: Sourced<MoldThreads>,
}

/// Settings for development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Development {
    /// Whether to reload when a file has changed.
    pub reload: Sourced<bool>,
    /// Method that detects changes.
    pub engine: Sourced<ReloadEngine>,
    /// Additional files to watch.
    pub extra_files: Sourced<Vec<PathBuf>>,
}

/// Settings of the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    /// Its place.
    pub socket: Sourced<ControlSocket>,
}

/// The place of the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ControlSocket {
    /// Beside the pid file, if there is one.
    Beside,
    /// At this path.
    At(PathBuf),
    /// No control socket.
    Off,
}

impl Rollout {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            surge: sources.one("surge", values::surge)?,
            soak: sources.one("soak", values::seconds)?,
            retries: sources.one("reload_retries", |text| values::whole(text, 0..=MOST_RETRIES))?,
        })
    }
}

impl Recycling {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            requests: sources.one("max_requests", values::count_or_off)?,
            requests_jitter: sources.one("max_requests_jitter", values::count)?,
            lifetime: sources.one("max_lifetime", values::seconds_or_off)?,
            lifetime_jitter: sources.one("max_lifetime_jitter", values::seconds)?,
            rss: sources.one("max_rss", values::bytes_or_off)?,
            rss_jitter: sources.one("max_rss_jitter", values::bytes)?,
        })
    }
}

impl Draining {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            delay: sources.one("drain_delay", values::seconds)?,
            health_path: sources.optional("health_path", values::request_path)?,
        })
    }
}

impl Mold {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            preload: sources.flag("preload")?,
            threads: sources.one("preload_threads", values::preload_threads)?,
        })
    }
}

impl Development {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            reload: sources.flag("reload")?,
            engine: sources.one("reload_engine", values::reload_engine)?,
            extra_files: sources.many("reload_extra_file", values::path)?,
        })
    }
}

impl Control {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        let path = sources.optional("control_socket", values::path)?;
        let off = sources.flag("no_control_socket")?;
        let socket = match (path, *off) {
            (Some(path), true) => {
                let reason = format!("no_control_socket is given too (from {})", off.origin);
                return Err(refused("control_socket", &path.to_string_lossy(), &path.origin, &reason));
            }
            (Some(path), false) => Sourced { value: ControlSocket::At(path.value), origin: path.origin },
            (None, true) => Sourced { value: ControlSocket::Off, origin: off.origin },
            (None, false) => Sourced { value: ControlSocket::Beside, origin: off.origin },
        };
        Ok(Self { socket })
    }
}
