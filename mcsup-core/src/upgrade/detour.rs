//! Another program in the place of this one, before this one has begun.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::sys::exec;

/// Becomes `program`, with the environment that this process was started with and `added`. Returns only where that
/// failed.
///
/// A program calls this where it finds that its process is not fit for a supervisor, because threads run in it for
/// example. It must not have taken a [`Succession`](super::Succession): descriptors and blocked signals go over as
/// they came. Where the system does not tell the original environment it is the one that the process has now.
pub fn execute(program: &Path, arguments: &[OsString], added: &(OsString, OsString)) -> io::Error {
    let environment = exec::original_environment().unwrap_or_else(|_| std::env::vars_os().collect());
    let others = environment.into_iter().filter(|(name, _)| *name != added.0);
    let environment = others.chain([added.clone()]);
    exec::stop_profiling_timers();
    exec::execute(program, arguments, environment)
}
