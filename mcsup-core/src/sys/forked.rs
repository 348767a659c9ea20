//! Processes forked by a worker's own code. None of this crate runs in them, and they share none of its
//! descriptors or memory.
//!
//! pthread_atfork(3) calls the functions below at each fork(3) of the process, from any language. A child may
//! lack the thread that holds a lock, so they use only atomics and system calls. They ignore
//! [`fork`](super::fork), because it creates workers and molds. vfork(2) and posix_spawn(3) need no
//! treatment: their children execute another program, without close-on-exec descriptors and handlers.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{caught, descriptor, duplicates, shared_memory, unshared};

/// Whether the functions are registered. Forked processes inherit them.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);
/// The thread that forks for this crate; 0: none.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// Whether a worker's own code has forked this process.
static IS_FORKED_OFF: AtomicBool = AtomicBool::new(false);

/// Whether a worker's or mold's own code has forked this process. It is neither then. Costs a load.
pub fn is_forked_off() -> bool {
    IS_FORKED_OFF.load(Ordering::Relaxed)
}

/// Makes processes forked by this process's own code release everything that this crate has marked.
///
/// Due in each worker and mold before its code runs.
///
/// # Errors
/// No memory is left for the registration.
pub(crate) fn watch() -> io::Result<()> {
    if IS_WATCHED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    // SAFETY: the three are functions of this program, which stays loaded: a worker's process ends without
    // unloading.
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        error => {
            IS_WATCHED.store(false, Ordering::Release);
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// Runs `fork` as a fork of this crate.
pub(super) fn as_our_own<T>(fork: impl FnOnce() -> T) -> T {
    FORKING.store(this_thread(), Ordering::SeqCst);
    let made = fork();
    FORKING.store(0, Ordering::SeqCst);
    made
}

/// Resets the state in a new process of this crate.
pub(super) fn reset() {
    IS_FORKED_OFF.store(false, Ordering::Relaxed);
    unshared::forget_all();
    duplicates::forget_all();
    shared_memory::forget();
}

/// The calling thread. A fork does not change it.
fn this_thread() -> usize {
    // SAFETY: pthread_self has no preconditions.
    (unsafe { libc::pthread_self() }) as usize
}

fn is_ours() -> bool {
    FORKING.load(Ordering::SeqCst) == this_thread()
}

extern "C" fn before() {
    if !is_ours() {
        unshared::hold();
    }
}

extern "C" fn in_parent() {
    if !is_ours() {
        unshared::go_on();
    }
}

extern "C" fn in_child() {
    if is_ours() {
        return;
    }
    IS_FORKED_OFF.store(true, Ordering::Relaxed);
    caught::release_in_child();
    duplicates::release_in_child(descriptor::null());
    unshared::release_in_child();
    shared_memory::release_in_child();
}
