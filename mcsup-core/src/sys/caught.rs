//! Signals that this process handles itself: one handler for all of them, which uses nothing but statics.
//!
//! A static table has an entry for each signal: what the handler does, how often it ran, and which process sent the
//! signal last. A pipe can be written to as well, so that a poll(2) wakes. The handler is async-signal-safe: atomics, getpid(2),
//! write(2) to a non-blocking descriptor, and `errno` as it was.
//!
//! A process that a worker's own code forks has the handlers too, until [`let_go_in_child`] has run there. A signal that
//! comes before is not swallowed: the handler compares the process with its owner, and has the default action done.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use super::signal::{Disposition, dispose, disposition};
use super::{descriptor, registry};

/// What the handler does at a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Act {
    /// Nothing. Unlike SIG_IGN this is not inherited by programs that the process starts, until the terminal itself
    /// sends the signal ([`is_the_terminals`]).
    Nothing,
    /// Counts it, notes the sender and writes to the pipe.
    Count,
    /// Ends the process at once, with code 0.
    End,
}

/// A process that has sent a signal, by kill(2) or sigqueue(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// One signal: what the handler does at it, and what it has seen.
struct Entry {
    act: AtomicU8,
    /// Whether the handler was installed by [`take_over`].
    is_ours: AtomicBool,
    count: AtomicU32,
    /// 0: the kernel itself, or a terminal.
    pid: AtomicI32,
    uid: AtomicU32,
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
            uid: AtomicU32::new(0),
            next: AtomicUsize::new(0),
        }
    }

    fn set(&self, act: Act) {
        self.count.store(0, Ordering::Release);
        self.act.store(act as u8, Ordering::Release);
    }

    fn origin(&self) -> Option<Origin> {
        let pid = self.pid.load(Ordering::Relaxed);
        (pid != 0).then(|| Origin { pid, uid: self.uid.load(Ordering::Relaxed) })
    }
}

/// One for each signal that is no real-time signal, by its number.
static TABLE: [Entry; 32] = [const { Entry::new() }; 32];
/// Where the handler writes to; -1: nowhere.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// The process that these signals are handled in; 0: any, [`NOBODY`]: none. A forked process has copies of everything here,
/// and the same pipe.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// As [`OWNER`]: in this process no signal is handled.
const NOBODY: i32 = -1;
/// How many threads are in the handler.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Whether there is a [`Caught`].
static IS_CLAIMED: AtomicBool = AtomicBool::new(false);

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
                // sigaction(2) is async-signal-safe. The call that was interrupted begins again and now gets through.
                let _ = dispose(number, &Disposition::ignored());
            }
        } else if act == Act::Count as u8 {
            let origin = info.and_then(origin_of);
            entry.pid.store(origin.map_or(0, |origin| origin.pid), Ordering::Relaxed);
            entry.uid.store(origin.map_or(0, |origin| origin.uid), Ordering::Relaxed);
            entry.count.fetch_add(1, Ordering::AcqRel);
            wake();
        }
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    set_errno(errno);
    let next = entry.next.load(Ordering::Acquire);
    if is_owner && next != 0 {
        // SAFETY: `next` is 0 or the address of the registry's handler, which has this signature (`registry`).
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

/// In the handler: the default action follows when it returns, since the signal is blocked until then.
///
/// A child of vfork(2) shares this memory with the worker, so nothing but the disposition is changed.
fn act_by_default(number: i32) {
    if dispose(number, &Disposition::default_action()).is_ok() {
        // SAFETY: neither has preconditions. Unlike raise(3) they name this process also in a child of vfork(2).
        unsafe { libc::kill(libc::getpid(), number) };
    }
}

/// In a process that a worker's own code has forked: the default action for each signal that is still ours. What that code
/// has installed stays.
pub(super) fn let_go_in_child() {
    OWNER.store(NOBODY, Ordering::Release);
    WAKE.store(-1, Ordering::SeqCst);
    RUNNING.store(0, Ordering::SeqCst);
    for (number, entry) in (0..).zip(&TABLE) {
        if !entry.is_ours.load(Ordering::Acquire) {
            continue;
        }
        // As long as the handler is installed it must find that the signal is ours: else it would swallow one that comes now.
        if disposition(number).is_ok_and(|now| now.handler() == ours(number).handler()) {
            let _ = dispose(number, &Disposition::default_action());
        }
        entry.is_ours.store(false, Ordering::Release);
        entry.set(Act::Nothing);
        entry.next.store(0, Ordering::Release);
    }
}

fn wake() {
    let fd = WAKE.load(Ordering::SeqCst);
    if fd >= 0 {
        // SAFETY: one byte of a constant. The descriptor is open: it is closed after `stop_waking` only. A full pipe
        // means that a wake-up is on its way already.
        unsafe { libc::write(fd, [0_u8].as_ptr().cast(), 1) };
    }
}

/// Writes to `fd`, which must not block, at each signal that is counted. Until [`stop_waking`] it must stay open.
pub(crate) fn wake_by(fd: BorrowedFd<'_>) {
    WAKE.store(fd.as_raw_fd(), Ordering::SeqCst);
}

/// No descriptor is written to any more when this returns.
pub(crate) fn stop_waking() {
    WAKE.store(-1, Ordering::SeqCst);
    while RUNNING.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
}

/// In a new process: no thread is in the handler, because this one is the only thread.
pub(super) fn has_forked() {
    RUNNING.store(0, Ordering::SeqCst);
}

/// How often `number` has arrived since it is counted.
pub(crate) fn count(number: i32) -> u32 {
    entry(number).map_or(0, |entry| entry.count.load(Ordering::Acquire))
}

/// The process that has sent `number` last, where a process did.
pub(crate) fn origin(number: i32) -> Option<Origin> {
    entry(number).and_then(Entry::origin)
}

fn ours(number: i32) -> Disposition {
    let handler = arrived as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as libc::sighandler_t;
    let flags = libc::SA_RESTART | libc::SA_SIGINFO;
    Disposition::of(handler, if number == libc::SIGCHLD { flags | libc::SA_NOCLDSTOP } else { flags })
}

/// Signals of this process that are counted, from [`Caught::new`] until it is dropped: then each disposition is what it
/// was before. One at a time.
#[derive(Debug)]
pub(crate) struct Caught {
    before: Vec<(i32, Disposition)>,
    wake: OwnedFd,
    _write: OwnedFd,
}

impl Caught {
    /// Counts each of `numbers`.
    ///
    /// # Errors
    /// No descriptor is left; `AlreadyExists` where this process has another one.
    pub(crate) fn new(numbers: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let (wake, write) = descriptor::pipe(true)?;
        if IS_CLAIMED.swap(true, Ordering::AcqRel) {
            let why = "another pool of this process has its signals";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let mut this = Self { before: Vec::new(), wake, _write: write };
        OWNER.store(i32::try_from(std::process::id()).unwrap_or_default(), Ordering::Release);
        wake_by(this._write.as_fd());
        for number in numbers {
            if let Some(entry) = entry(number) {
                entry.set(Act::Count);
                this.before.push((number, dispose(number, &ours(number))?));
            }
        }
        Ok(this)
    }

    /// Ignores `number` as long.
    pub(crate) fn ignore(&mut self, number: i32) -> io::Result<()> {
        self.before.push((number, dispose(number, &Disposition::ignored())?));
        Ok(())
    }

    /// Whether `number` has arrived since the last call, and from where.
    pub(crate) fn take(&self, number: i32) -> Option<Option<Origin>> {
        let entry = entry(number)?;
        (entry.count.swap(0, Ordering::AcqRel) > 0).then(|| entry.origin())
    }

    /// Sends `number` to this process again. While it is blocked the kernel keeps it, over an exec too.
    pub(crate) fn give_back(&self, number: i32) {
        // SAFETY: kill(2) has no preconditions.
        unsafe { libc::kill(libc::getpid(), number) };
    }

    /// Makes it unreadable until the next signal. To be called before looking.
    pub(crate) fn acknowledge(&self) {
        let mut bytes = [0; 256];
        while let Ok(1..) = rustix::io::read(&self.wake, &mut bytes) {}
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (number, before) in self.before.drain(..).rev() {
            // It was valid before.
            let _ = dispose(number, &before);
            if let Some(entry) = entry(number) {
                entry.set(Act::Nothing);
            }
        }
        stop_waking();
        OWNER.store(0, Ordering::Release);
        IS_CLAIMED.store(false, Ordering::Release);
    }
}

/// In a process that was forked, for the rest of its life: does `act` at each signal. Called again it changes only what
/// is done: who has replaced the handler since then keeps the signal. To be called with these signals blocked.
pub(crate) fn take_over(acts: &[(i32, Act)]) -> io::Result<()> {
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

/// Signals that a worker does nothing at go back to their defaults, and SIGPIPE is ignored.
///
/// A signal whose handler is the registry's keeps it: the registry installs its handler once, and must call what the
/// application registers. A client that goes away is an error of one write, never the end of a process.
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

/// Whether a terminal sends this because a process of the group reads or writes in its background.
///
/// It is no order to anyone, and comes again at each attempt: the call begins again until it is allowed.
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

/// `None` for what the kernel or a terminal raised itself.
fn origin_of(info: &libc::siginfo_t) -> Option<Origin> {
    match info.si_code {
        // SAFETY: for these two codes the kernel fills in `si_pid` and `si_uid` (sigaction(2)).
        SI_USER | SI_QUEUE => Some(unsafe { Origin { pid: info.si_pid(), uid: info.si_uid() } }),
        _ => None,
    }
}
