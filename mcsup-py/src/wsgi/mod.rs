//! PEP 3333: a request becomes an environ, the application is called, what it answers becomes a response.
//!
//! - `environ`: the dictionary.
//! - `input`, `errors`: `wsgi.input` and `wsgi.errors`.
//! - `draining`: `mcsup.draining`.
//! - `start_response`: the callable, and the `write` that it returns.
//! - `switching`: the socket of a connection whose client asks for another protocol.
//! - `file_wrapper`: the class behind `wsgi.file_wrapper`.
//! - `lease`: how Python objects get at the engine's reply, and lose it.
//! - `remains`: what the application has left in the environ, for the access log.
//! - `request_hooks`: `pre_request` and `post_request`.
//! - `call`: one request from call to close; [`WsgiApp`] is the engine's [`App`](crate::app::App).
#![allow(unsafe_code, reason = "a lease erases a lifetime; strings are made without a copy too many")]

mod call;
mod draining;
mod environ;
mod errors;
mod file_wrapper;
mod held_bytes;
mod input;
mod lease;
mod remains;
mod request_hooks;
mod settings;
mod start_response;
mod switching;

pub use call::EXCEPTION;
pub(crate) use call::WsgiApp;
pub(crate) use draining::IsDraining;
pub(crate) use request_hooks::{RequestHooks, RunningHook};
pub use settings::WsgiSettings;
