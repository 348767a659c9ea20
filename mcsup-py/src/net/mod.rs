//! Sockets and time for the engine: readiness, bytes, deadlines. Knows nothing of HTTP.
//!
//! - [`poller`]: epoll or kqueue behind one name.
//! - [`stream`]: a non-blocking connection: receive, send, send a file, abort.
//! - [`session`]: TLS on such a connection.
//! - [`records`]: the ends of its records, and how many may be without content.
//! - [`buffer`]: bytes on their way in and out.
//! - [`memory`]: memory for large messages, used again.
//! - [`timers`]: deadlines that cost nothing while they only move on.

pub(crate) mod buffer;
pub(crate) mod memory;
pub(crate) mod poller;
mod records;
mod session;
pub(crate) mod stream;
pub(crate) mod timers;
