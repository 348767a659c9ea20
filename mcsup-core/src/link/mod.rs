//! The connection between a supervisor and one worker.
//!
//! A channel carries the rare messages; its end of file is the lifeline. A row of shared memory holds the
//! frequent ones.
//!
//! - [`message`]: the messages and their bytes.
//! - [`channel`]: the supervisor's and the worker's end of a socketpair.
//! - [`lifeline`]: the worker's thread that reads orders and sees its supervisor die.
//! - `stop_request`: the request to end that thread.
//! - [`scoreboard`]: one row for each worker: beat, requests, connections.
//! - [`fork_order`]: orders to a mold, with descriptors.
//! - [`handover`]: the queue of connections between workers.
//! - [`datagram`]: messages with descriptors, for the last two and for the handles of the program.

pub(crate) mod channel;
pub(crate) mod datagram;
pub(crate) mod fork_order;
pub(crate) mod handover;
pub(crate) mod lifeline;
pub(crate) mod message;
pub(crate) mod scoreboard;
mod stop_request;
