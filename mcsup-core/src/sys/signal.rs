//! Signal masks, dispositions, and handlers that do nothing but write to a pipe.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

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

/// What a forked process begins with: the dispositions that mean something to its supervisor alone go back to their
/// defaults, and a client that goes away is an error of one write, never the end of a process.
pub(crate) fn reset_all() {
    for number in [libc::SIGCHLD, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT] {
        reset(number);
    }
    ignore(libc::SIGPIPE);
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

/// Where [`ChildWake`] writes to; -1: nowhere.
static CHILD_WAKE: AtomicI32 = AtomicI32::new(-1);

/// While this lives a byte is written to a pipe whenever a child ends. For a process whose handler of SIGCHLD was taken
/// away by [`reset`], which the registry does not notice. One at a time.
#[derive(Debug)]
pub(crate) struct ChildWake {
    read: OwnedFd,
    _write: OwnedFd,
    before: libc::sigaction,
}

impl ChildWake {
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = super::descriptor::pipe(true)?;
        CHILD_WAKE.store(write.as_raw_fd(), Ordering::Release);
        // SAFETY: all-zero `sigaction`s are valid; the handler only reads an atomic and calls write(2), and keeps errno.
        let before = unsafe {
            let (mut action, mut before): (libc::sigaction, libc::sigaction) = std::mem::zeroed();
            action.sa_sigaction = child_ended as extern "C" fn(i32) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            libc::sigaction(libc::SIGCHLD, &action, &mut before);
            before
        };
        Ok(Self { read, _write: write, before })
    }

    /// Makes it unreadable until the next child ends. To be called before looking.
    pub(crate) fn acknowledge(&self) {
        let mut bytes = [0; 64];
        while let Ok(1..) = rustix::io::read(&self.read, &mut bytes) {}
    }
}

impl AsFd for ChildWake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for ChildWake {
    fn drop(&mut self) {
        // SAFETY: what `sigaction` returned is valid.
        unsafe { libc::sigaction(libc::SIGCHLD, &self.before, ptr::null_mut()) };
        CHILD_WAKE.store(-1, Ordering::Release);
    }
}

extern "C" fn child_ended(_: i32) {
    let fd = CHILD_WAKE.load(Ordering::Acquire);
    let before = io::Error::last_os_error().raw_os_error();
    if fd >= 0 {
        // SAFETY: one byte of a constant; a descriptor that is closed is refused.
        unsafe { libc::write(fd, [0_u8].as_ptr().cast(), 1) };
    }
    set_errno(before.unwrap_or_default());
}

fn set_errno(number: i32) {
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: the C library's own place for this thread's number.
    unsafe {
        *libc::__errno_location() = number;
    }
    #[cfg(target_vendor = "apple")]
    // SAFETY: as above.
    unsafe {
        *libc::__error() = number;
    }
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
