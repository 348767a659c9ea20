//! Every decision of the supervisor, as a value: events in, effects out.
//!
//! Nothing in this folder reads a clock, makes a system call, or writes a log line. Time arrives with each event as
//! a `Moment`; what should happen leaves as an `Effect`. So whole lives (a crash storm, a reload during a
//! reload, a stop during a boot, a suspended laptop) are tested as scripts with a hand-turned clock.
//!
//! Values:
//! - `event`: what can happen; `effect`: what can be done about it; `notice`: what an operator reads of it;
//!   `exit`: how processes end.
//! - `rules`: the settings that are decided by; `jitter`: what is left to chance.
//!
//! Facts:
//! - `state`: where one worker is in its life; `table`: which workers there are; `rollout`: a generation on its way;
//!   `status`: the phase of the pool; `pool`: all of these in one.
//!
//! Parts, each with a state of its own. A part reads the facts and returns what it decides; it knows no other part:
//! - `restart`: what slots have lost, and what a boot costs; `starts`: when an empty slot gets a worker.
//! - `refusals`: forks that the system refuses; `molds`: processes that fork workers which share what is loaded once.
//! - `reloads`: reloads that wait; `recycle`: workers that are replaced before anything is wrong with them.
//! - `scale`: a change of the number of workers; `upgrades`: another image; `stops`: orders to stop.
//!
//! The machine:
//! - `machine`: hands each event to the parts, carries out what they decide, and does what is due after each.

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
pub(crate) use event::{Ask, Event, Moment, Place, Ticket, WorkerId};
pub use exit::Outcome;
pub(crate) use exit::{BootFailure, Evidence, Exit, ExitStatus, KillReason, OutOfMemory, Sender};
pub(crate) use machine::{Machine, Record};
pub(crate) use notice::{
    MoldNotice, Notice, PoolNotice, RecycleNotice, ReloadNotice, ScaleNotice, UpgradeNotice, WorkerNotice,
};
pub use rules::{Limit, Plan, Policy, Recycling, RestartPolicy, Surge};
#[cfg(test)]
pub(crate) use starts::Vacancy;
pub(crate) use state::State;
pub(crate) use status::Phase;
pub(crate) use table::Entry;

#[cfg(test)]
mod tests;
