//! Targets of the logs other than files: syslog, statsd, and a queue for another thread.
//!
//! No target makes its writer wait. What a target does not take at once is kept, up to a bound, or dropped and counted.
//!
//! - [`address`]: the text of a setting becomes an address.
//! - [`link`]: a socket that never blocks, and the count of what was lost.
//! - [`syslog`], [`statsd`]: the two protocols.
//! - [`queue`]: records for Python's `logging`.

pub mod address;
pub mod link;
pub mod queue;
pub mod statsd;
pub mod syslog;

pub use address::Address;
pub use link::Report;
pub use queue::Queue;
pub use statsd::Statsd;
pub use syslog::{Facility, Severity, Syslog};

/// The longest wait of a process for a target at its end.
pub const LAST_MESSAGES: std::time::Duration = std::time::Duration::from_millis(100);
