//! Signals that this process handles itself: one handler for all, which uses only statics.
//!
//! A static table has an entry for each signal: the action, the count, and the latest sender. The handler
//! also writes to pipes, so that a poll(2) wakes: to one for each [`Caught`]. It is async-signal-safe: atomics, getpid(2), write(2) to a
//! non-blocking descriptor, and `errno` is preserved.
//!
//! A process forked by a worker's own code inherits the handlers until [`release_in_child`] has run there. A
//! signal before that is not lost: the handler finds that its process is not the owner and triggers the
//! default action.

mod claims;

pub(crate) use claims::{Caught, leave_in_child};

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use super::registry;
use super::signal::{Disposition, dispose, disposition};

/// The handler's action at a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Act {
    /// None. Unlike SIG_IGN, programs that the process starts do not inherit it, unless the terminal itself
    /// sends the signal ([`is_the_terminals`]).
    Nothing,
    /// Count it, note the sender and write to the pipe.
    Count,
    /// End the process at once, with code 0.
    End,
}

/// The sender of a signal, by kill(2) or sigqueue(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) pid: i32,
}

/// The handler's state for one signal.
struct Entry {
    act: AtomicU8,
    /// Whether the handler was installed by [`install`].
    is_ours: AtomicBool,
    count: AtomicU32,
    /// 0: the kernel or a terminal.
    pid: AtomicI32,
    /// A handler to call afterwards; 0: none. See [`registry`].
    next: AtomicUsize,
}

impl Entry {
    const fn new() -> Self {
        Self {
            act: AtomicU8::new(Act::Nothing as u8),
            is_ours: AtomicBool::new(false),
            count: AtomicU32::new(0),
            pid: AtomicI32::new(0),
            next: AtomicUsize::new(0),
        }
    }

    fn set(&self, act: Act) {
        self.count.store(0, Ordering::Release);
        self.act.store(act as u8, Ordering::Release);
    }

    fn origin(&self) -> Option<Origin> {
        let pid = self.pid.load(Ordering::Relaxed);
        (pid != 0).then_some(Origin { pid })
    }
}

/// The number of standard signals, with 0, which is none.
const SIGNALS: usize = 32;
/// One entry for each standard signal, by number.
static TABLE: [Entry; SIGNALS] = [const { Entry::new() }; SIGNALS];
/// The most [`Caught`]s at once, and one lifeline.
const MOST: usize = 17;
/// The descriptors that the handler writes to; -1: none.
static WAKES: [AtomicI32; MOST] = [const { AtomicI32::new(-1) }; MOST];
/// The process that handles these signals; 0: any, [`NO_PROCESS`]: none. A forked process has copies of all
/// statics, and the same pipe.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// A value of [`OWNER`]: this process handles no signal.
const NO_PROCESS: i32 = -1;
/// The number of threads in the handler.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
fn entry(number: i32) -> Option<&'static Entry> {
    TABLE.get(usize::try_from(number).ok()?)
}

extern "C" fn arrived(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(entry) = entry(number) else { return };
    let errno = errno();
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let is_owner = is_owner();
    if !is_owner && entry.is_ours.load(Ordering::Acquire) {
        act_by_default(number);
    }
    if is_owner {
        let act = entry.act.load(Ordering::Acquire);
        if act == Act::End as u8 {
            super::exit::exit_now(0);
        }
        // SAFETY: the handler is installed with SA_SIGINFO, so this is null or what the kernel has filled in.
        let info = unsafe { info.as_ref() };
        if is_the_terminals(number, info) {
            let is_unused = act == Act::Nothing as u8 && entry.is_ours.load(Ordering::Acquire);
            if is_unused {
                // sigaction(2) is async-signal-safe. The interrupted call restarts, and then succeeds.
                let _ = dispose(number, &Disposition::ignored());
            }
        } else if act == Act::Count as u8 {
            let origin = info.and_then(origin_of);
            entry.pid.store(origin.map_or(0, |origin| origin.pid), Ordering::Relaxed);
            entry.count.fetch_add(1, Ordering::AcqRel);
            wake();
        }
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    set_errno(errno);
    let next = entry.next.load(Ordering::Acquire);
    if is_owner && next != 0 {
        // SAFETY: `next` is 0 or the address of the registry's handler, which has this signature
        // (`registry`).
        let next: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(next as *const ()) };
        next(number, info, context);
    }
}

fn is_owner() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    // SAFETY: getpid(2) has no preconditions.
    owner == 0 || owner == unsafe { libc::getpid() }
}

/// Triggers the default action from the handler. It follows when the handler returns, as the signal is
/// blocked until then.
///
/// A child of vfork(2) shares this memory with the worker, so only the disposition changes.
fn act_by_default(number: i32) {
    if dispose(number, &Disposition::default_action()).is_ok() {
        // SAFETY: neither has preconditions. Unlike raise(3) they name this process also in a child of
        // vfork(2).
        unsafe { libc::kill(libc::getpid(), number) };
    }
}

/// Restores default actions in a process forked by a worker's own code. Handlers installed by that code stay.
pub(super) fn release_in_child() {
    OWNER.store(NO_PROCESS, Ordering::Release);
    WAKES.iter().for_each(|wake| wake.store(-1, Ordering::SeqCst));
    RUNNING.store(0, Ordering::SeqCst);
    for (number, entry) in (0..).zip(&TABLE) {
        if !entry.is_ours.load(Ordering::Acquire) {
            continue;
        }
        // While the handler is installed it must find the entry in use: otherwise it would swallow a signal
        // that arrives now.
        if disposition(number).is_ok_and(|now| now.handler() == ours(number).handler()) {
            let _ = dispose(number, &Disposition::default_action());
        }
        entry.is_ours.store(false, Ordering::Release);
        entry.set(Act::Nothing);
        entry.next.store(0, Ordering::Release);
    }
}

fn wake() {
    for wake in &WAKES {
        let fd = wake.load(Ordering::SeqCst);
        if fd >= 0 {
            // SAFETY: one byte of a constant. The descriptor is open: it is closed after `stop_waking` only. A
            // full pipe means that a wake-up is on its way already.
            unsafe { libc::write(fd, [0_u8].as_ptr().cast(), 1) };
        }
    }
}

/// Writes to the non-blocking `fd` at each counted signal. It must stay open until [`stop_waking`].
///
/// # Errors
/// The process has too many of them.
pub(crate) fn wake_by(fd: BorrowedFd<'_>) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    let is_free =
        |wake: &&AtomicI32| wake.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    match WAKES.iter().find(is_free) {
        Some(_) => Ok(()),
        None => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "this process has as many pools as it can have"))
        }
    }
}

/// Stops the writes to `fd`. None is in progress when this returns.
pub(crate) fn stop_waking(fd: BorrowedFd<'_>) {
    for wake in &WAKES {
        let _ = wake.compare_exchange(fd.as_raw_fd(), -1, Ordering::SeqCst, Ordering::SeqCst);
    }
    while RUNNING.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
}

/// Resets the count of threads in the handler, in a new process with one thread.
pub(super) fn has_forked() {
    RUNNING.store(0, Ordering::SeqCst);
}

/// The number of arrivals of `number` since counting began.
pub(crate) fn count(number: i32) -> u32 {
    entry(number).map_or(0, |entry| entry.count.load(Ordering::Acquire))
}

/// The latest process that sent `number`, if a process did.
pub(crate) fn origin(number: i32) -> Option<Origin> {
    entry(number).and_then(Entry::origin)
}

fn ours(number: i32) -> Disposition {
    let handler = arrived as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as libc::sighandler_t;
    let flags = libc::SA_RESTART | libc::SA_SIGINFO;
    Disposition::of(handler, if number == libc::SIGCHLD { flags | libc::SA_NOCLDSTOP } else { flags })
}

/// Installs `acts` in a forked process, for the rest of its life. Called with these signals blocked.
///
/// A second call changes only the actions: a handler that replaced this one since then stays.
pub(crate) fn install(acts: &[(i32, Act)]) -> io::Result<()> {
    OWNER.store(i32::try_from(std::process::id()).unwrap_or_default(), Ordering::Release);
    let mut replaced = Vec::new();
    for (number, act) in acts {
        let Some(entry) = entry(*number) else { continue };
        entry.set(*act);
        if !entry.is_ours.swap(true, Ordering::AcqRel) {
            replaced.push((*number, dispose(*number, &ours(*number))?));
        }
    }
    if !replaced.is_empty() {
        let known = registry::clear(&replaced);
        for (number, next) in known.taken {
            if let Some(entry) = entry(number) {
                entry.next.store(next, Ordering::Release);
            }
        }
        reset_other_signals(known.handler)?;
    }
    Ok(())
}

/// Restores the default actions of the signals that workers do not use, and ignores SIGPIPE.
///
/// A signal with the registry's handler keeps it: the registry installs its handler once, and must call the
/// application's actions. A client that disconnects is an error of one write, and never ends the process.
fn reset_other_signals(registrys_handler: Option<usize>) -> io::Result<()> {
    for number in registry::OTHERS {
        let now = super::signal::disposition(number)?.handler();
        if now.is_none() || now != registrys_handler {
            dispose(number, &Disposition::default_action())?;
        }
    }
    dispose(libc::SIGPIPE, &Disposition::ignored())?;
    Ok(())
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
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

/// Whether a terminal sends the signal to a background process that reads or writes.
///
/// The signal is no order to the process, and recurs: the call restarts until the terminal permits it.
fn is_the_terminals(number: i32, info: Option<&libc::siginfo_t>) -> bool {
    matches!(number, libc::SIGTTIN | libc::SIGTTOU) && info.is_some_and(is_the_kernels)
}

#[cfg(target_os = "linux")]
fn is_the_kernels(info: &libc::siginfo_t) -> bool {
    info.si_code == libc::SI_KERNEL
}

#[cfg(not(target_os = "linux"))]
fn is_the_kernels(info: &libc::siginfo_t) -> bool {
    origin_of(info).is_none()
}

/// The sender; `None`: the kernel or a terminal raised the signal.
fn origin_of(info: &libc::siginfo_t) -> Option<Origin> {
    match info.si_code {
        // SAFETY: for these two codes the kernel fills in `si_pid` (sigaction(2)).
        SI_USER | SI_QUEUE => Some(unsafe { Origin { pid: info.si_pid() } }),
        _ => None,
    }
}
