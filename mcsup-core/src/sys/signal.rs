//! Signal masks and dispositions of this process.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// The largest number of a signal on any system.
const MOST: i32 = 64;

/// Blocks every signal while it lives; its drop restores the previous mask.
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

/// While it lives, new threads start with the process's signals blocked.
///
/// The kernel then sends these signals to the thread whose system calls they should interrupt. A thread
/// inherits the mask of its creator. Signals about a thread itself, or about all threads, stay unblocked:
/// faults, SIGABRT, and SIGURG, the signal that logs stacks.
#[derive(Debug)]
pub struct SignalsBlocked {
    _blocked: AllBlocked,
}

impl SignalsBlocked {
    const UNBLOCKED: [i32; 8] = [
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGURG,
    ];

    /// Blocks them in the calling thread.
    pub fn for_new_threads() -> Self {
        let all = AllBlocked::new();
        let unblocked = Unblocked::new(Self::UNBLOCKED);
        // The other guard restores the mask from before both.
        std::mem::forget(unblocked);
        Self { _blocked: all }
    }
}

/// Unblocks every signal: a worker must not inherit the mask of its supervisor's parent.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is valid for writes and initialised by `sigemptyset` before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Sets every signal to its default action. Uses system calls only, for a process that executes a program: an
/// exec keeps signals ignored.
pub(super) fn reset_dispositions() {
    // SAFETY: a `sigaction` is integers and a handler's address; zero is the default action, no flags and an
    // empty mask.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for number in 1..=MOST {
        // SAFETY: the new action is valid, and a null pointer means that the old one is not asked for. A
        // number that is no signal, or whose action is fixed, is refused.
        unsafe { libc::sigaction(number, &raw const default, ptr::null_mut()) };
    }
}

/// Gives a signal that this process ignores its default action: an exec keeps signals ignored.
pub(crate) fn stop_ignoring(number: i32) {
    if disposition(number).is_ok_and(|now| now.0.sa_sigaction == libc::SIG_IGN) {
        let _ = dispose(number, &Disposition::default_action());
    }
}

/// Unblocks some signals while it lives; its drop blocks those that were blocked before. Others stay as they are then.
#[derive(Debug)]
pub(crate) struct Unblocked {
    blocked: libc::sigset_t,
}

impl Unblocked {
    /// Unblocks `numbers` in the calling thread: a parent may have left any of them blocked.
    pub(crate) fn new(numbers: impl IntoIterator<Item = i32>) -> Self {
        let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let mut blocked = MaybeUninit::uninit();
        let numbers: Vec<i32> = numbers.into_iter().collect();
        // SAFETY: all sets are valid for writes; `sigemptyset` initialises the first and the last before they
        // are changed and read (a number that is no signal is refused), and `pthread_sigmask`, which cannot
        // fail with a valid `how`, the second.
        let blocked = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigemptyset(blocked.as_mut_ptr());
            for number in &numbers {
                libc::sigaddset(set.as_mut_ptr(), *number);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), before.as_mut_ptr());
            for number in numbers {
                if libc::sigismember(before.as_ptr(), number) == 1 {
                    libc::sigaddset(blocked.as_mut_ptr(), number);
                }
            }
            blocked.assume_init()
        };
        Self { blocked }
    }

    /// Blocks the signals of `other` too in the drop, and not in that of `other`.
    fn take_over(&mut self, other: Self) {
        for number in 1..=MOST {
            // SAFETY: both sets are initialised; a number that is no signal is refused.
            unsafe {
                if libc::sigismember(&other.blocked, number) == 1 {
                    libc::sigaddset(&mut self.blocked, number);
                }
            }
        }
        std::mem::forget(other);
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        // SAFETY: `blocked` is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &self.blocked, ptr::null_mut()) };
    }
}

/// Unblocks signals in the calling thread like [`Unblocked`]. The last drop restores the mask from before the first.
#[derive(Debug)]
pub(crate) struct SharedUnblocked(());

/// The number of [`SharedUnblocked`]s, and the guard of the first.
static SHARED: Mutex<(usize, Option<Unblocked>)> = Mutex::new((0, None));

impl SharedUnblocked {
    /// Unblocks `numbers`.
    pub(crate) fn new(numbers: impl IntoIterator<Item = i32>) -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0 += 1;
        let guard = Unblocked::new(numbers);
        match &mut shared.1 {
            Some(first) => first.take_over(guard),
            None => shared.1 = Some(guard),
        }
        Self(())
    }
}

impl Drop for SharedUnblocked {
    fn drop(&mut self) {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0 = shared.0.saturating_sub(1);
        if shared.0 == 0 {
            shared.1 = None;
        }
    }
}

/// Blocks SIGTTOU while it lives: the kernel then lets a background process write to its terminal (`stty
/// tostop`).
///
/// Otherwise each write(2) raises the signal and, with a handler, restarts forever.
#[derive(Debug)]
pub(crate) struct TerminalOutput {
    before: libc::sigset_t,
}

impl TerminalOutput {
    /// Blocks the signal in the calling thread.
    pub(crate) fn allowed() -> Self {
        let (mut set, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are valid for writes; `sigemptyset` initialises the first before it is changed
        // and read, and `pthread_sigmask`, which cannot fail with a valid `how`, the second.
        let before = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTTOU);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for TerminalOutput {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by `pthread_sigmask`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// A process's disposition of a signal: handler, flags and mask, as in sigaction(2).
#[derive(Clone, Copy)]
pub(crate) struct Disposition(pub(super) libc::sigaction);

impl std::fmt::Debug for Disposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disposition({:#x}, flags {:#x})", self.0.sa_sigaction, self.0.sa_flags)
    }
}

impl Disposition {
    /// The default action of the signal.
    pub(crate) fn default_action() -> Self {
        Self::of(libc::SIG_DFL, 0)
    }

    /// The signal is ignored, also by programs that this process executes.
    pub(crate) fn ignored() -> Self {
        Self::of(libc::SIG_IGN, 0)
    }

    pub(super) fn of(action: libc::sighandler_t, flags: i32) -> Self {
        // SAFETY: an all-zero `sigaction` is valid: no flags, an empty mask.
        let mut this: libc::sigaction = unsafe { std::mem::zeroed() };
        this.sa_sigaction = action;
        this.sa_flags = flags;
        Self(this)
    }

    /// Whether both name the same action.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.0.sa_sigaction == other.0.sa_sigaction
    }

    /// For SIGCHLD: the disposition with which the kernel keeps ended children for wait(2), where it does not with this
    /// one (sigaction(2): SIG_IGN, SA_NOCLDWAIT).
    pub(super) fn keeping_children(&self) -> Option<Self> {
        match self.0.sa_sigaction == libc::SIG_IGN {
            true => Some(Self::default_action()),
            false if self.0.sa_flags & libc::SA_NOCLDWAIT == 0 => None,
            false => {
                let mut keeping = *self;
                keeping.0.sa_flags &= !libc::SA_NOCLDWAIT;
                Some(keeping)
            }
        }
    }

    /// The address of the handler, if there is one.
    pub(super) fn handler(&self) -> Option<libc::sighandler_t> {
        Some(self.0.sa_sigaction).filter(|action| ![libc::SIG_DFL, libc::SIG_IGN].contains(action))
    }
}

/// The current disposition of `number`.
pub(super) fn disposition(number: i32) -> io::Result<Disposition> {
    let mut now = Disposition::default_action();
    // SAFETY: nothing is changed, and `now` has room for the answer; an invalid number is refused.
    let result = unsafe { libc::sigaction(number, ptr::null(), &mut now.0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(now) }
}

/// Sets the disposition of `number`; returns the previous one.
pub(crate) fn dispose(number: i32, wanted: &Disposition) -> io::Result<Disposition> {
    let mut before = Disposition::default_action();
    // SAFETY: both are valid. The handler of a `Disposition` is SIG_DFL, SIG_IGN, `caught::arrived` or one
    // that sigaction(2) has returned, so a function of that signature which stays where it is.
    let result = unsafe { libc::sigaction(number, &wanted.0, &mut before.0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(before) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::caught::Caught;
    use crate::sys::fork::in_a_process;
    use rustix::process::{Signal, getpid, kill_process};

    #[test]
    fn signals_that_were_blocked_after_the_guard_was_made_stay_blocked() {
        in_a_process(|| {
            let guard = SharedUnblocked::new([libc::SIGTERM]);
            std::mem::forget(AllBlocked::new());
            drop(guard);
            // Their default action would end this process.
            kill_process(getpid(), Signal::USR2).unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
        });
    }

    #[test]
    fn signals_that_were_blocked_before_the_guard_was_made_are_blocked_again() {
        in_a_process(|| {
            std::mem::forget(AllBlocked::new());
            let (first, second) =
                (SharedUnblocked::new([libc::SIGTERM]), SharedUnblocked::new([libc::SIGTERM, libc::SIGHUP]));
            drop(first);
            drop(second);
            kill_process(getpid(), Signal::TERM).unwrap();
            kill_process(getpid(), Signal::HUP).unwrap();
        });
    }

    #[test]
    fn a_disposition_that_was_changed_since_the_signal_was_caught_stays() {
        in_a_process(|| {
            let caught = Caught::new([libc::SIGHUP, libc::SIGUSR1]).unwrap();
            dispose(libc::SIGHUP, &Disposition::ignored()).unwrap();
            drop(caught);
            // Its default action would end this process.
            kill_process(getpid(), Signal::HUP).unwrap();
            assert_eq!(disposition(libc::SIGUSR1).unwrap().0.sa_sigaction, libc::SIG_DFL);
        });
    }
}
