//! The WSGI side over a real interpreter: applications in Python, a reply that notes what it is given. The rules are
//! PEP 3333's, one test each.
//!
//! - `fixture`: the interpreter, the applications, the reply.
//! - `processes`: what needs a process of its own; it starts this binary again.
//! - the other files: one part of the interface each.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod conf;
mod environ;
mod errors;
mod file_wrapper;
mod fixture;
mod hooks;
mod input;
mod loading;
mod logging;
mod processes;
mod reload;
mod remains;
mod response;
mod start_response;
mod switching;
mod trust;
mod validator;
