//! Every decision of the supervisor, as a value: events in, effects out.
//!
//! Nothing in this folder reads a clock, makes a system call, or writes a log line. Time arrives with each event as
//! a [`Moment`]; what should happen leaves as an [`Effect`]. So whole lives (a crash storm, a reload during a
//! reload, a stop during a boot, a suspended laptop) are tested as scripts with a hand-turned clock.
//!
//! Facts:
//! - [`event`]: what can happen; [`effect`]: what can be done about it; [`notice`]: what an operator reads of it;
//!   [`exit`]: how processes end.
//! - [`rules`]: what is decided by.
//! - [`status`]: the state of one worker and of the pool; [`under_way`]: what is not done yet.
//! - [`table`], [`molds`]: which workers and molds exist, which slot and generation each belongs to.
//! - [`restart`]: what slots have lost, and what a boot costs; [`jitter`]: what is left to chance.
//!
//! Decisions:
//! - [`machine`]: one function for each event, and what is due after each.
//! - `fill`: when an empty slot gets a worker.
//! - `rollout`: when a new generation takes over, and when it is given up.
//! - `recycle`: when a worker is replaced before anything is wrong with it.
//! - `mold`: who forks workers that share what is loaded once.
//! - `scale`: how many workers there should be.
//! - `upgrade`: when another image of the supervisor takes over; [`record`]: what it is told.
//! - `drain`: how a pool ends.

mod drain;
pub mod effect;
pub mod event;
pub mod exit;
mod fill;
pub mod jitter;
pub mod machine;
mod mold;
pub mod molds;
pub mod notice;
pub mod record;
mod recycle;
pub mod restart;
mod rollout;
pub mod rules;
mod scale;
pub mod status;
mod step;
pub mod table;
pub mod under_way;
mod upgrade;

pub use effect::{Answer, Drain, Effect, Outcome};
pub use event::{Ask, Event, Moment, Ticket, WorkerId};
pub use exit::{BootFailure, Evidence, Exit, ExitStatus, KillReason, OutOfMemory, Sender};
pub use fill::Vacancy;
pub use machine::Machine;
pub use notice::{
    MoldNotice, Notice, PoolNotice, RecycleNotice, ReloadNotice, ScaleNotice, UpgradeNotice, WorkerNotice,
};
pub use record::Record;
pub use rules::{Plan, Policy, Recycling, RestartPolicy, Surge};
pub use status::{Phase, State};

#[cfg(test)]
mod tests;
