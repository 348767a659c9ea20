//! The status of a server, as part of a reply.

use serde::{Deserialize, Serialize};

/// The status of a server. A field is `None` if the server does not know it, or is older than the field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The version of the running mcsup.
    pub mcsup: Option<String>,
    /// The supervisor's process id.
    pub pid: Option<i32>,
    /// `starting`, `serving`, `reloading`, `rolling back`, `upgrading`, `lame duck`, `stopping`, `failing` or
    /// `ended`.
    pub phase: Option<String>,
    /// Seconds since the start. An upgrade does not reset it.
    pub uptime_seconds: Option<f64>,
    /// The serving generation.
    pub generation: Option<u64>,
    /// The booting generation.
    pub new_generation: Option<u64>,
    /// The intended number of workers.
    pub target: Option<usize>,
    /// The listening addresses.
    pub listeners: Vec<String>,
    /// The number of successful reloads.
    pub reloads: Option<u64>,
    /// The number of successful upgrades.
    pub upgrades: Option<u64>,
    /// The process that workers are forked from, if the application is loaded once for all.
    pub mold: Option<MoldStatus>,
    /// The workers, including retiring ones.
    pub workers: Vec<WorkerStatus>,
    /// The history of each slot.
    pub slots: Vec<SlotStatus>,
}

/// The status of a mold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MoldStatus {
    /// Its process id.
    pub pid: Option<i32>,
    /// Its generation.
    pub generation: Option<u64>,
    /// Its state.
    pub state: Option<String>,
    /// Seconds since it was forked.
    pub age_seconds: Option<f64>,
}

/// The status of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// Its slot.
    pub slot: usize,
    /// Its generation.
    pub generation: Option<u64>,
    /// Its process id.
    pub pid: Option<i32>,
    /// `booting`, `ready`, `recycling`, `leaving`, `draining`, `aborting`, `failed`, `killed` or
    /// `unkillable`.
    pub state: Option<String>,
    /// Seconds since it was forked.
    pub age_seconds: Option<f64>,
    /// The number of requests begun.
    pub requests: Option<u64>,
    /// The number of requests in progress.
    pub in_flight: Option<u64>,
    /// Seconds since the start of the oldest of these.
    pub oldest_request_seconds: Option<f64>,
    /// The number of requests that wait for a thread.
    pub waiting: Option<u64>,
    /// The number of open connections.
    pub connections: Option<u64>,
    /// Resident memory; shared pages count in full.
    pub rss_bytes: Option<u64>,
    /// Proportional set size; shared pages count in parts. A server omits it, and a client adds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_bytes: Option<u64>,
    /// Processor time used.
    pub cpu_seconds: Option<f64>,
    /// Current share of one processor, in percent. A server omits it, and a client computes it from two
    /// statuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
}

/// The history of a slot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotStatus {
    /// Its index.
    pub slot: usize,
    /// The number of replacements after a death.
    pub restarts: u64,
    /// The latest unexpected death of one of its workers.
    pub last_death: Option<Death>,
    /// Seconds until its next worker starts, if it is empty and the time is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_start_seconds: Option<f64>,
    /// The reason why it is empty and waits, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_because: Option<String>,
}

/// An unexpected death of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Death {
    /// Seconds since then.
    pub seconds_ago: f64,
    /// Its cause, as far as known.
    pub cause: String,
}
