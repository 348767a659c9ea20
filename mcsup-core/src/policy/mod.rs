//! Every decision of the supervisor, as a value: events in, effects out.
//!
//! Nothing in this folder reads a clock, makes a system call, or writes a log line. Each event comes with its time, a
//! `Moment`; the caller applies the returned `Effect`s. So tests run whole lives of a pool (repeated crashes, a reload
//! during a reload, a stop during a boot, a suspended laptop) as scripts with a simulated clock.
//!
//! Values:
//! - `event`: events; `effect`: effects; `notice`: messages to the operator; `exit`: ends of processes.
//! - `rules`: the settings; `jitter`: random numbers.
//!
//! Facts:
//! - `state`: the state of one worker; `table`: all workers; `rollout`: the booting generation; `status`: the phase of
//!   the pool; `pool`: all of these in one.
//!
//! Parts, each with its own state. A part reads the facts, returns its decisions, and uses no other part:
//! - `starts`: when an empty slot gets a worker, by the losses and the cost of boots in `restart`.
//! - `refusals`: forks that the system refuses; `molds`: processes that load the application once and fork workers.
//! - `reloads`: reloads that wait; `recycle`: the replacement of healthy workers.
//! - `scale`: a change of the number of workers; `upgrades`: another image; `stops`: orders to stop.
//!
//! The machine:
//! - `machine`: hands each event to the parts, carries out their decisions, and handles deadlines after each.

mod effect;
mod event;
mod exit;
mod jitter;
mod machine;
mod molds;
mod notice;
mod pool;
mod recycle;
mod refusals;
mod reloads;
mod restart;
mod rollout;
mod rules;
mod scale;
mod starts;
mod state;
mod status;
mod step;
mod stops;
mod table;
mod upgrades;

pub(crate) use effect::{Answer, Drain, Effect};
pub(crate) use event::{Ask, Event, Moment, Place, StopMode, Ticket, WorkerId};
pub use exit::Outcome;
pub(crate) use exit::{BootFailure, Evidence, Exit, ExitStatus, KillReason, LastError, OutOfMemory, Sender};
pub(crate) use machine::{Machine, MachineRecord};
pub(crate) use notice::{
    MoldNotice, Notice, PoolNotice, RecycleNotice, ReloadNotice, ScaleNotice, UpgradeNotice, WorkerNotice,
};
pub use rules::{Limit, Plan, Policy, Recycling, RestartPolicy, Surge};
pub(crate) use state::State;
pub(crate) use status::PoolPhase;
pub(crate) use table::Entry;

#[cfg(test)]
pub(crate) use starts::{Vacancy, Wait};

#[cfg(test)]
mod tests;
