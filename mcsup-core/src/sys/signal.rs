//! Signal masks, dispositions, and handlers that do nothing but write to a pipe.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use signal_hook_registry::SigId;

/// Every signal is blocked while this lives; the mask before it comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct AllBlocked {
    before: libc::sigset_t,
}

impl AllBlocked {
    /// Blocks every signal that can be blocked, in the calling thread.
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for writes; `sigfillset` initialises the first before it is read, and
        // `pthread_sigmask`, which cannot fail with a valid `how`, the second.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by `pthread_sigmask`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// Unblocks every signal, whatever the mask was: a worker must not inherit what its supervisor's parent blocked.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is valid for writes and initialised by `sigemptyset` before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Sets `signal` back to its default disposition.
pub(crate) fn reset(signal: i32) {
    set(signal, libc::SIG_DFL);
}

/// Ignores `signal`.
pub(crate) fn ignore(signal: i32) {
    set(signal, libc::SIG_IGN);
}

fn set(signal: i32, disposition: libc::sighandler_t) {
    // SAFETY: an all-zero `sigaction` is valid (no flags, empty mask); the disposition is SIG_DFL or SIG_IGN, so no
    // code of ours is entered by it. An invalid number is refused by the kernel and changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = disposition;
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

/// Runs `action` at each `signal`, with the sender's pid and user id where the kernel names them.
///
/// `action` must be async-signal-safe: atomics and `write` to a non-blocking descriptor, nothing else.
pub(crate) fn on_signal(
    signal: i32,
    action: impl Fn(i32, Option<(i32, u32)>) + Send + Sync + 'static,
) -> io::Result<SigId> {
    // SAFETY: the contract above is the registry's own; every caller is in this crate and only stores to atomics
    // and writes to a pipe.
    unsafe { signal_hook_registry::register_sigaction(signal, move |info| action(signal, sender_of(info))) }
}

#[cfg(not(target_vendor = "apple"))]
use libc::{SI_QUEUE, SI_USER};
/// From <sys/signal.h>, which libc leaves out.
#[cfg(target_vendor = "apple")]
const SI_USER: i32 = 0x10001;
#[cfg(target_vendor = "apple")]
const SI_QUEUE: i32 = 0x10002;

/// Whoever sent it by kill(2) or sigqueue(3); `None` for what the kernel or a terminal raised itself.
fn sender_of(info: &libc::siginfo_t) -> Option<(i32, u32)> {
    match info.si_code {
        // SAFETY: for these two codes the kernel fills in `si_pid` and `si_uid` (sigaction(2)).
        SI_USER | SI_QUEUE => Some(unsafe { (info.si_pid(), info.si_uid()) }),
        _ => None,
    }
}
