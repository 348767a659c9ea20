//! Configuration files in Python: `gunicorn.conf.py`.
//!
//! The supervisor never executes one. A child of it does at the start and at each reload, and reports the settings. Each
//! worker or mold does before it loads its application: the file's own variables and hooks of workers live there.
//!
//! - `source`: the words that name a file or a module.
//! - `executing`: executes it, as gunicorn does.
//! - `worker_hooks`: the hooks of workers, and their calls; `objects`: the Python objects that they get.

mod executing;
mod objects;
mod source;
mod worker_hooks;

pub(crate) use executing::execute;
pub use executing::remember_directory;
pub use source::Source;
pub(crate) use worker_hooks::{DefinedHooks, Facts, WorkerHooks};
