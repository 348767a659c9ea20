//! The health check: whether clients should be sent to this worker, answered by the engine itself, without the application
//! and without a permit (`checks` does it).
//!
//! It says `ok` while the pool goes on, also in a worker that retires beside siblings that do not, and `draining` from the
//! lame duck on.

use super::connection::Connection;
use super::{EngineConfig, Phase};
use crate::http::response::ResponseHead;

/// Largest number of pipelined health checks of a connection: they occupy the leading thread.
pub(super) const MOST_IN_A_ROW: u32 = 16;

/// Whether this is what the request asks for that has just become whole.
pub(super) fn is_asked_for(config: &EngineConfig, connection: &Connection) -> bool {
    let Some(path) = &config.health_path else { return false };
    connection
        .asked()
        .is_some_and(|head| head.path() == path.as_bytes() && matches!(head.method(), "GET" | "HEAD"))
}

/// The answer to a health check. `siblings`: the number of other workers that accept.
pub(super) fn report(phase: Phase, siblings: usize) -> (ResponseHead, &'static [u8]) {
    let (status, text) = match phase {
        Phase::Serving => (200, &b"ok\n"[..]),
        // The check is about the pool: a load balancer must not take a reload for its end.
        Phase::Retiring if siblings > 0 => (200, &b"ok\n"[..]),
        _ => (503, &b"draining\n"[..]),
    };
    let mut head = ResponseHead::of_text(status);
    // A constant that is in order.
    let _ = head.push(b"Cache-Control", b"no-store");
    (head, text)
}
