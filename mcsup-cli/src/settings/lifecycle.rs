//! The settings of what happens to workers between start and stop: reload, recycling, draining, the mold.
//!
//! Each group is settled here, and with it what its settings owe each other. Doing any of it is the supervisor's part.

use std::path::PathBuf;
use std::time::Duration;

use super::choices::{ControlSocket, PreloadThreads, ReloadEngine, Surge};
use super::sources::{Sourced, Sources, refused};
use super::values;
use crate::args::UsageError;

/// How often a reload may try in vain.
const MOST_RETRIES: usize = 100;

/// How a reload goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// How many workers more than asked for there may be.
    pub surge: Sourced<Surge>,
    /// How long the first new worker must stay alive after it is ready; zero: it need not.
    pub soak: Sourced<Duration>,
    /// New workers that may fail before the reload is given up, 0 to 100.
    pub retries: Sourced<usize>,
}

/// When a worker is replaced though nothing is wrong with it. A jitter without its limit means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recycling {
    /// After so many requests; `None`: never for that.
    pub requests: Sourced<Option<u64>>,
    /// Up to so many more, drawn for each worker.
    pub requests_jitter: Sourced<u64>,
    /// After so long; `None`: never for that.
    pub lifetime: Sourced<Option<Duration>>,
    /// Up to so much longer, drawn for each worker.
    pub lifetime_jitter: Sourced<Duration>,
    /// Beyond so many bytes of resident memory; `None`: never for that.
    pub rss: Sourced<Option<u64>>,
    /// Up to so many bytes more, drawn for each worker.
    pub rss_jitter: Sourced<u64>,
}

/// How a stop is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    /// How long connections are still accepted while the health path already says no.
    pub delay: Sourced<Duration>,
    /// The path at which mcsup itself answers; begins with `/`, without a query.
    pub health_path: Option<Sourced<String>>,
}

/// The process that loads the application once, and that workers are forked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mold {
    /// Whether there is one.
    pub preload: Sourced<bool>,
    /// What to do about threads that run in it.
    pub threads: Sourced<PreloadThreads>,
}

/// What makes development easier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Development {
    /// Whether to reload when a file has changed.
    pub reload: Sourced<bool>,
    /// How that is noticed.
    pub engine: Sourced<ReloadEngine>,
    /// Files to watch beside those that the application loaded.
    pub extra_files: Sourced<Vec<PathBuf>>,
}

/// How operators reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// By which socket.
    pub socket: Sourced<ControlSocket>,
}

impl Rollout {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            surge: sources.one("surge", |args| &args.surge, values::surge)?,
            soak: sources.one("soak", |args| &args.soak, values::seconds)?,
            retries: sources.one(
                "reload_retries",
                |args| &args.reload_retries,
                |text| values::whole(text, 0..=MOST_RETRIES),
            )?,
        })
    }
}

impl Recycling {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            requests: sources.one("max_requests", |args| &args.max_requests, values::count_or_off)?,
            requests_jitter: sources.one(
                "max_requests_jitter",
                |args| &args.max_requests_jitter,
                values::count,
            )?,
            lifetime: sources.one("max_lifetime", |args| &args.max_lifetime, values::seconds_or_off)?,
            lifetime_jitter: sources.one(
                "max_lifetime_jitter",
                |args| &args.max_lifetime_jitter,
                values::seconds,
            )?,
            rss: sources.one("max_rss", |args| &args.max_rss, values::bytes_or_off)?,
            rss_jitter: sources.one("max_rss_jitter", |args| &args.max_rss_jitter, values::bytes)?,
        })
    }
}

impl Draining {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            delay: sources.one("drain_delay", |args| &args.drain_delay, values::seconds)?,
            health_path: sources.optional("health_path", |args| &args.health_path, values::request_path)?,
        })
    }
}

impl Mold {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            preload: sources.flag(|args| args.preload),
            threads: sources.one("preload_threads", |args| &args.preload_threads, values::preload_threads)?,
        })
    }
}

impl Development {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            reload: sources.flag(|args| args.reload),
            engine: sources.one("reload_engine", |args| &args.reload_engine, values::reload_engine)?,
            extra_files: sources.many("reload_extra_file", |args| &args.reload_extra_file, values::path)?,
        })
    }
}

impl Control {
    pub(super) fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        let path = sources.optional("control_socket", |args| &args.control_socket, values::path)?;
        let off = sources.flag(|args| args.no_control_socket);
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
