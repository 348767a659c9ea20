//! What joins a supervisor and one worker: a channel for the few things that they say to each other, whose end of
//! file is the lifeline, and a cell of shared memory for what is said often.
//!
//! - [`message`]: what is said, and its bytes.
//! - [`channel`]: the supervisor's and the worker's end of a socketpair.
//! - [`lifeline`]: the worker's thread that listens, also while the worker is busy, and sees its supervisor die.
//! - [`scoreboard`]: a cache line or two for each worker: beat, requests, connections.
//! - [`fork_order`]: what a mold is told to fork, with descriptors.
//! - [`handover`]: the queue through which workers hand connections to one another.

pub(crate) mod channel;
mod datagram;
pub(crate) mod fork_order;
pub(crate) mod handover;
pub(crate) mod lifeline;
pub(crate) mod message;
pub(crate) mod scoreboard;
