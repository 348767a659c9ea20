//! Replacing this program by another one before it has begun.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::sys::exec;

/// Executes `program` with the process's original environment and `added`. Returns only on an error.
///
/// A program calls this when its process does not suit a supervisor, for example because it has other
/// threads. It must not have taken a [`Resumption`](super::Resumption): descriptors and blocked signals pass
/// on unchanged. If the system does not report the original environment, the current one is used.
pub fn execute(program: &Path, arguments: &[OsString], added: &(OsString, OsString)) -> io::Error {
    let environment = exec::original_environment().unwrap_or_else(|_| std::env::vars_os().collect());
    let others = environment.into_iter().filter(|(name, _)| *name != added.0);
    let environment = others.chain([added.clone()]);
    exec::stop_profiling_timers();
    exec::execute(program, arguments, environment)
}
