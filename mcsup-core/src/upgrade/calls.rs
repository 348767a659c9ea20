//! The calls of a program that begin a pool, by their numbers: the new image takes over in the call that began the pool
//! in the old one.
//!
//! The new image runs the program from its beginning, and so makes the earlier calls again. They begin nothing there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Resumption;
use crate::error::Result;

/// The number of the first call.
pub(crate) const FIRST: u32 = 1;

/// The number of calls in this process.
static CALLS: AtomicU32 = AtomicU32::new(0);
/// The number of [`Resumption`]s that have not taken over.
static PENDING: AtomicUsize = AtomicUsize::new(0);
/// Whether this process was a dry run, whose work is over.
static WAS_DRY_RUN: AtomicBool = AtomicBool::new(false);
/// A resumption for a later call.
static PASSED_OVER: Mutex<Option<Resumption>> = Mutex::new(None);

/// The task of one call.
#[derive(Debug)]
pub(crate) enum Task {
    /// It begins a new pool.
    Begin,
    /// It takes over the pool of the old image.
    TakeOver(Box<Resumption>),
    /// It begins nothing: another call takes over, or this process was a dry run.
    PassOver,
}

/// The number of a new call.
pub(crate) fn next() -> u32 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The task of the call `number`, which has the resumption `given` by its program.
///
/// # Errors
/// The state of the old image cannot be read.
pub(crate) fn task(number: u32, given: Option<Resumption>) -> Result<Task> {
    if let Some(given) = given {
        return Ok(Task::TakeOver(Box::new(given)));
    }
    let Some(resumption) = Resumption::from_environment()? else {
        let is_other = PENDING.load(Ordering::Relaxed) > 0 || WAS_DRY_RUN.load(Ordering::Relaxed);
        return Ok(if is_other { Task::PassOver } else { Task::Begin });
    };
    // A call that cannot read the number takes over, and fails with the reason.
    if resumption.call().is_none_or(|call| call == number) {
        return Ok(Task::TakeOver(Box::new(resumption)));
    }
    *PASSED_OVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(resumption);
    Ok(Task::PassOver)
}

/// The resumption that an earlier call has passed over.
pub(super) fn take_passed_over() -> Option<Resumption> {
    PASSED_OVER.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Notes a resumption that has begun.
pub(super) fn note_begin() {
    PENDING.fetch_add(1, Ordering::Relaxed);
}

/// Notes a resumption that is over.
pub(super) fn note_end(is_dry_run: bool) {
    PENDING.fetch_sub(1, Ordering::Relaxed);
    WAS_DRY_RUN.fetch_or(is_dry_run, Ordering::Relaxed);
}
