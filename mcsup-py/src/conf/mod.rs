//! Configuration files in Python: `gunicorn.conf.py`.
//!
//! The supervisor never executes one. A child of it does at the start and at each reload, and reports the settings. Each
//! worker or mold does before it loads its application: the file's own variables and hooks of workers live there. All of
//! a generation execute the text that the child has read.
//!
//! - `source`: the words that name a file or a module, and its text.
//! - `executing`: executes it, as gunicorn does.
//! - `reading`: its variables, for a process that does not execute it.
//! - `master_hooks`: the process of the hooks of gunicorn's master; `master_events`: the events that call them.
//! - `worker_hooks`: the hooks of workers, and their calls; `objects`: the Python objects that all hooks get.

mod executing;
mod master_events;
mod master_hooks;
mod objects;
mod reading;
mod source;
mod worker_hooks;

pub use crate::python::directories::remember_directory;
pub(crate) use executing::execute_in_worker;
pub use master_events::{MASTER_HOOKS, MasterEvent, MasterFacts};
pub use master_hooks::MasterHooks;
pub use reading::{HOOKS, Report, Value, Variable, report};
pub use source::{Script, Source, Text};
pub(crate) use worker_hooks::{DefinedHooks, Facts, SLOW, WorkerHooks};
