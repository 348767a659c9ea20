//! The WSGI worker of mcsup: its own HTTP/1.1 engine, and Python through pyo3.
//!
//! # What it is
//! A [`WsgiWorker`] for `mcsup-core` that loads a WSGI application and serves it. The engine reads requests whole, under
//! deadlines and limits, before Python sees them: an idle, slow or hostile client costs a place in a table.
//!
//! # The flow of a request
//! | step | where |
//! |---|---|
//! | accept, receive | [`engine`] on `net` |
//! | read the head, find the body's end | `http/head`, `http/framing`, `http/chunked` |
//! | believe what a trusted proxy says | `trust` |
//! | refuse what is ambiguous or too large | `http/reject` |
//! | call the application | [`app`], the seam; `wsgi` behind it |
//! | frame the answer | `http/response`, `engine/exchange` |
//! | note it | `access` |
//!
//! # Guarantees
//! - The application is called with a whole request, never with half a one; what it returns is always closed.
//! - A response that breaks off is aborted, never ended as if it were whole.
//! - Nothing from the network becomes a panic.
//!
//! # Not here
//! Processes, signals and listeners are `mcsup-core`'s; settings are the command's. `worker` is the only place where
//! engine, WSGI and core meet.

pub mod access;
pub mod app;
pub mod conf;
pub mod engine;
mod files;
mod http;
mod net;
pub mod python;
pub mod regular_file;
pub mod targets;
pub mod tls;
mod trust;
mod watch;
mod worker;
mod wsgi;

#[cfg(any(test, feature = "laws"))]
#[doc(hidden)]
pub use http::laws;
pub use python::loading::{Application, Target};
pub use python::paste::Paste;
pub use watch::{ReloadEngine, ReloadSettings};
pub use worker::{RedirectErrors, WorkerSettings, WsgiWorker, check};
pub use wsgi::{EXCEPTION, WsgiSettings};

#[cfg(test)]
#[path = "../tests/wsgi/main.rs"]
mod tests;
