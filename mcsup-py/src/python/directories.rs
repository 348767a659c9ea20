//! The directories in which Python looks for modules first.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The directory in which the command was started.
static START: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Notes the directory of the start, in which configurations are executed and modules are found, also after a change to
/// another one.
pub fn remember_directory(directory: PathBuf) {
    *START.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
}

/// The directory of the start, if it was noted.
pub(crate) fn of_start() -> Option<PathBuf> {
    START.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// `python_path` and the current directory, and behind these that of the start, where it is another one.
pub(super) fn first(python_path: &[String]) -> (Vec<PathBuf>, Option<PathBuf>) {
    // Where it cannot be named, the empty string stands for it.
    let current = std::env::current_dir().unwrap_or_default();
    let start = of_start().filter(|start| *start != current);
    let first = python_path.iter().map(|entry| current.join(entry)).chain([current.clone()]);
    (first.collect(), start)
}
