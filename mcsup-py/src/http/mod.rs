//! HTTP/1 as pure code: bytes in, values out. No I/O, no clock, no log.
//!
//! - [`head`]: request line and fields, parsed and checked.
//! - [`target`]: authority, path and query in a request's target, and its escapes.
//! - [`authority`]: host and port in a target or a Host field.
//! - [`framing`]: where a message's body ends (RFC 9112 §6).
//! - [`chunked`]: the chunked coding, decoded as the bytes come; `extension`: the extensions of its chunks.
//! - [`response`]: a response's head, and its bytes.
//! - [`version`]: 1.0 and 1.1.
//! - [`reject`]: every refusal, with its status and the paragraph that asks for it.
//! - `request_line`: a request line checked by itself, and its forms that httparse does not know.
//! - `foreign`: other protocols that clients speak by mistake.
//! - `laws`: what holds for whatever bytes; for tests and fuzzing alone.

pub(crate) mod authority;
pub(crate) mod chunked;
mod extension;
pub(crate) mod foreign;
pub(crate) mod framing;
pub(crate) mod head;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
pub(crate) mod reject;
mod request_line;
pub(crate) mod response;
pub(crate) mod target;
pub(crate) mod version;
