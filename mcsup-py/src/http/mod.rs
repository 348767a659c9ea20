//! HTTP/1 as pure code: bytes in, values out. No I/O, no clock, no log.
//!
//! - [`head`]: request line and fields, parsed and checked.
//! - [`target`]: path and query in a request's target, and its escapes.
//! - [`framing`]: where a message's body ends (RFC 9112 §6).
//! - [`chunked`]: the chunked coding, decoded as the bytes come.
//! - [`response`]: a response's head, and its bytes.
//! - [`version`]: 1.0 and 1.1.
//! - [`reject`]: every refusal, with its status and the paragraph that asks for it.
//! - `laws`: what holds for whatever bytes; for tests and fuzzing alone.

pub mod chunked;
pub mod framing;
pub mod head;
#[doc(hidden)]
#[cfg(any(test, feature = "laws"))]
pub mod laws;
pub mod reject;
pub mod response;
pub mod target;
pub mod version;
