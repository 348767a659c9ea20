//! Descriptors that a worker or mold does not share with processes forked by its own code. They are marked,
//! and the child releases each marked number at the fork ([`forked`](super::forked)).
//!
//! A fork beside a thread that has just opened such a descriptor, or is closing one, would find it open and
//! unmarked. So [`between_forks`] surrounds both operations: a fork waits for the threads inside.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::descriptor;

/// Numbers from here on are never marked. Linux grants no more unless `fs.nr_open` was raised (proc(5)).
const MOST: usize = 1 << 20;

/// One mark for each number. The kernel provides a page of it at the first write.
static MARKS: [AtomicBool; MOST] = [const { AtomicBool::new(false) }; MOST];
/// The end of the numbers that were ever marked.
static END: AtomicUsize = AtomicUsize::new(0);
/// The number of threads inside of [`between_forks`].
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The number of forks in progress.
static FORKS: AtomicUsize = AtomicUsize::new(0);

fn set(fd: RawFd, is_marked: bool) {
    let Some((number, mark)) = usize::try_from(fd).ok().and_then(|at| Some((at, MARKS.get(at)?))) else {
        return;
    };
    mark.store(is_marked, Ordering::Release);
    if is_marked && END.load(Ordering::Relaxed) <= number {
        END.fetch_max(number + 1, Ordering::AcqRel);
    }
}

/// Marks on descriptors that stay open and owned by others while this lives.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<RawFd>);

impl Marks {
    /// Marks all of `descriptors`.
    pub(crate) fn on<'a>(descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        let numbers: Vec<RawFd> = descriptors.into_iter().map(|fd| fd.as_raw_fd()).collect();
        for number in &numbers {
            set(*number, true);
        }
        Self(numbers)
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for number in &self.0 {
            set(*number, false);
        }
    }
}

/// A descriptor that a worker does not share with processes forked by its code.
///
/// In such a process its number refers to /dev/null. So a connection ends when the worker closes it or dies,
/// even if children of the worker live.
#[derive(Debug)]
pub struct Unshared(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for Unshared {
    /// Wraps a descriptor that was opened or received inside of the same [`between_forks`].
    fn from(fd: OwnedFd) -> Self {
        set(fd.as_raw_fd(), true);
        Self(ManuallyDrop::new(fd))
    }
}

impl AsFd for Unshared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        between_forks(|| {
            set(self.0.as_raw_fd(), false);
            // SAFETY: dropped here alone, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        });
    }
}

/// The longest wait of a fork, as a number of checks. A thread that is inside for longer has been stopped;
/// the child may then share one descriptor.
const MOST_LOOKS: u32 = 1000;
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// Runs `act` while this process's own code cannot fork. It must not block, fork, or nest.
pub fn between_forks<T>(act: impl FnOnce() -> T) -> T {
    /// Counts one thread as inside while it lives.
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    loop {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let inside = Inside;
        if FORKS.load(Ordering::SeqCst) == 0 {
            let done = act();
            drop(inside);
            return done;
        }
        drop(inside);
        while FORKS.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Waits before a fork until no thread is inside, and admits none.
pub(super) fn hold() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    for _ in 0..MOST_LOOKS {
        if INSIDE.load(Ordering::SeqCst) == 0 {
            return;
        }
        // This is a system call only (nanosleep(2)).
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Ends a fork in the process that forked.
pub(super) fn go_on() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

/// Redirects every marked number to /dev/null in a child with one thread, close-on-exec.
///
/// The numbers stay in use, so that code that still has one finds no file of the application behind it.
pub(super) fn release_in_child() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
    let null = descriptor::null();
    for (fd, mark) in (0..).zip(&MARKS[..END.load(Ordering::Acquire)]) {
        if mark.swap(false, Ordering::AcqRel) {
            release(fd, null);
        }
    }
    END.store(0, Ordering::Release);
}

fn release(fd: RawFd, null: RawFd) {
    // SAFETY: nothing in this process uses the number but this crate's own code, which does not run in it.
    // dup2 replaces it in one step; where that fails (no /dev/null, or a number above a limit that was
    // lowered) it is closed. Both are async-signal-safe (signal-safety(7)).
    unsafe {
        if null < 0 || libc::dup2(null, fd) == -1 {
            libc::close(fd);
        } else {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Forgets the marks of the parent, in a new worker or mold: their descriptors are closed or foreign there.
pub(super) fn forget_all() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
    for mark in &MARKS[..END.swap(0, Ordering::AcqRel)] {
        mark.store(false, Ordering::Release);
    }
}
