//! Every decision of the supervisor, as a value: events in, effects out.
//!
//! Nothing in this folder reads a clock, makes a system call, or writes a log line. Time arrives with each event as
//! a [`Moment`]; what should happen leaves as an [`Effect`]. So whole lives (a crash storm, a reload during a
//! reload, a stop during a boot, a suspended laptop) are tested as scripts with a hand-turned clock.
//!
//! - [`event`]: what can happen and what can be done, two enums.
//! - [`status`]: the state of one worker and of the pool.
//! - [`table`]: the facts: which workers exist, which slot and generation each belongs to.
//! - [`restart`]: when a dead worker's slot is filled again; [`jitter`]: what is left to chance.
//! - [`rollout`]: when a new generation takes over, and when it is given up.
//! - [`recycle`]: when a worker is replaced before anything is wrong with it.
//! - [`mold`]: who forks workers that share what is loaded once.
//! - [`scale`]: how many workers there should be.
//! - `upgrade`: when another image of the supervisor takes over; [`record`]: what it is told.
//! - [`drain`]: how a pool ends.
//! - [`machine`]: puts them together, one function for each event.

pub mod drain;
pub mod event;
pub mod jitter;
pub mod machine;
pub mod mold;
pub mod record;
pub mod recycle;
pub mod restart;
pub mod rollout;
pub mod scale;
pub mod status;
pub mod table;
mod upgrade;

pub use event::{
    Answer, Ask, BootFailure, Drain, Effect, Event, Evidence, Exit, ExitStatus, KillReason, Load, Moment,
    Notice, Outcome, Sender, Ticket, WorkerId,
};
pub use machine::{Machine, Policy};
pub use record::Record;
pub use recycle::Recycling;
pub use rollout::{Plan, Surge};
pub use scale::Autoscale;
pub use status::{Phase, State};

#[cfg(test)]
mod tests;
