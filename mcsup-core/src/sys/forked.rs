//! Processes that a worker's own code forks. Such a process is no worker: nothing of this crate runs in it, and it shares
//! nothing of this crate's with the worker.
//!
//! pthread_atfork(3) calls the functions below at each fork(3) of the process, in whichever language it is called. A child may
//! lack the thread that holds a lock, so they use atomics and system calls only. [`fork`](super::fork) is passed over: what
//! it makes are workers and molds. vfork(2) and posix_spawn(3) are no concern: their children execute another program, which
//! gets no descriptor that is close-on-exec and no handler.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{caught, shared_memory, unshared};

/// Whether the functions are registered. A forked process has them too.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);
/// The thread that forks on behalf of this crate; 0: none does.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// Whether this process was forked by a worker's own code.
static IS_FORKED_OFF: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked by a worker's or a mold's own code, so that it is neither. Costs a load.
pub fn is_forked_off() -> bool {
    IS_FORKED_OFF.load(Ordering::Relaxed)
}

/// From now on a process that this process's code forks lets go of everything that this crate has marked. Due in each
/// worker and mold before its code runs.
///
/// # Errors
/// There is no memory to note it in.
pub(crate) fn watch() -> io::Result<()> {
    if IS_WATCHED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    // SAFETY: the three are functions of this program, which stays loaded: a worker's process ends without unloading.
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        error => {
            IS_WATCHED.store(false, Ordering::Release);
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// The fork that `fork` makes is this crate's own.
pub(super) fn as_our_own<T>(fork: impl FnOnce() -> T) -> T {
    FORKING.store(this_thread(), Ordering::SeqCst);
    let made = fork();
    FORKING.store(0, Ordering::SeqCst);
    made
}

/// In a new process of this crate's own: nothing is marked yet, and its code has forked nothing.
pub(super) fn reset() {
    IS_FORKED_OFF.store(false, Ordering::Relaxed);
    unshared::forget_all();
    shared_memory::forget();
}

/// A fork does not change it.
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
    caught::let_go_in_child();
    unshared::let_go_in_child();
    shared_memory::let_go_in_child();
}
