//! The interpreter, and how an application gets into it. Knows nothing of requests.
//!
//! - [`interpreter`]: started in the binary, there already in the wheel.
//! - `loading`: `module:attr` and factories, with the whole traceback where they fail; `paste`: applications of
//!   PasteDeploy; `asgi`: applications of ASGI,
//!   which it refuses; `directories`: where modules are looked for first.
//! - [`customisation`]: whether code of the user's has run before mcsup; [`site`]: such code, run where the application
//!   runs.
//! - [`standard`]: what of the standard library all workers share.
//! - [`logging`]: Python's `logging` for the server's own records.
//! - `traceback`: exceptions and stacks as text.
//! - `imported`: the files that were loaded; `command_name`: those that look for gunicorn in `sys.argv`.
//! - [`fork`]: CPython's hooks around a fork of the mold; `application_forks`: no other thread around one of the
//!   application.
//! - `ending`: what a Python process does before it ends.
#![allow(unsafe_code, reason = "the interpreter's life and fork hooks have no safe interface in pyo3")]

pub(crate) mod application_forks;
mod asgi;
pub(crate) mod command_name;
pub mod customisation;
pub(crate) mod directories;
pub(crate) mod ending;
pub mod fork;
pub(crate) mod imported;
pub mod interpreter;
pub(crate) mod loading;
pub mod logging;
pub(crate) mod paste;
pub(crate) mod signals;
pub mod site;
pub mod standard;
pub(crate) mod traceback;
