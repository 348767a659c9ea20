//! Descriptors that a process does not share with processes that it forks. They are marked, and the child
//! releases each marked number at the fork ([`forked`](super::forked)).
//!
//! [`Unshared`] is for a worker or mold, and the forks of its own code. [`Withheld`] is for the program of a
//! supervisor, and the forks of workers and molds.
//!
//! A fork beside a thread that has just opened such a descriptor, or is closing one, would find it open and
//! unmarked. So [`between_forks`] surrounds both operations: a fork waits for the threads inside.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::descriptor;

/// Numbers from here on are never marked. Linux grants no more unless `fs.nr_open` was raised (proc(5)).
const MOST: usize = 1 << 20;

/// The marks of each number. The kernel provides a page of it at the first write.
static MARKS: [AtomicU8; MOST] = [const { AtomicU8::new(0) }; MOST];
/// A mark: not for processes that the application forks.
const UNSHARED: u8 = 1;
/// A mark: not for workers and molds.
const WITHHELD: u8 = 2;
/// The end of the numbers that were ever marked.
static END: AtomicUsize = AtomicUsize::new(0);
/// The number of threads inside of [`between_forks`].
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The number of forks in progress.
static FORKS: AtomicUsize = AtomicUsize::new(0);

fn set(fd: RawFd, mark: u8, is_marked: bool) {
    let Some((number, marks)) = usize::try_from(fd).ok().and_then(|at| Some((at, MARKS.get(at)?))) else {
        return;
    };
    if !is_marked {
        marks.fetch_and(!mark, Ordering::AcqRel);
        return;
    }
    marks.fetch_or(mark, Ordering::AcqRel);
    if END.load(Ordering::Relaxed) <= number {
        END.fetch_max(number + 1, Ordering::AcqRel);
    }
}

/// Marks on descriptors that stay open and owned by others while this lives.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    numbers: Vec<RawFd>,
    mark: u8,
}

impl Marks {
    /// Marks all of `descriptors`: processes that the application forks do not get them.
    pub(crate) fn on<'a>(descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        Self::with(UNSHARED, descriptors.into_iter().map(|fd| fd.as_raw_fd()).collect())
    }

    /// Marks all of `descriptors`: the next workers and molds do not get them.
    pub(crate) fn withholding(descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        Self::with(WITHHELD, descriptors.into_iter().collect())
    }

    fn with(mark: u8, numbers: Vec<RawFd>) -> Self {
        numbers.iter().for_each(|number| set(*number, mark, true));
        Self { numbers, mark }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for number in &self.numbers {
            set(*number, self.mark, false);
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
        set(fd.as_raw_fd(), UNSHARED, true);
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
            set(self.0.as_raw_fd(), UNSHARED, false);
            // SAFETY: dropped here alone, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        });
    }
}

/// A descriptor of a supervisor's program that no worker or mold gets.
///
/// In these its number refers to /dev/null, so the value can stay where it is.
#[derive(Debug)]
pub(crate) struct Withheld(OwnedFd);

impl From<OwnedFd> for Withheld {
    fn from(fd: OwnedFd) -> Self {
        set(fd.as_raw_fd(), WITHHELD, true);
        Self(fd)
    }
}

impl AsFd for Withheld {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        // Before the field is dropped, which closes it.
        set(self.0.as_raw_fd(), WITHHELD, false);
    }
}

/// The longest wait of a fork, as a number of checks. A thread that is inside for longer has been stopped;
/// the child may then share one descriptor.
const MOST_LOOKS: u32 = 1000;
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// The numbers that are tried where the open ones cannot be listed.
const MOST_NUMBERS: RawFd = 1 << 16;

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
        if mark.swap(0, Ordering::AcqRel) != 0 {
            release_number(fd, null);
        }
    }
    END.store(0, Ordering::Release);
}

/// Redirects a number to `null`, or closes it if that is negative. For a forked process.
pub(super) fn release_number(fd: RawFd, null: RawFd) {
    // SAFETY: nothing in this process uses the number but values of this crate, which need no certain file there.
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

/// Releases the withheld descriptors in a new worker or mold, and forgets the other marks of the parent: their
/// descriptors are closed or foreign there.
pub(super) fn forget_all() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
    let mut null = None;
    for (fd, marks) in (0..).zip(&MARKS[..END.swap(0, Ordering::AcqRel)]) {
        if marks.swap(0, Ordering::AcqRel) & WITHHELD != 0 {
            release_number(fd, *null.get_or_insert_with(prepared_null));
        }
    }
}

/// Redirects every open number but the standard streams and `kept` to /dev/null, in a new process with one thread. The
/// numbers stay in use, so that values of the parent's that have them name no file of this process.
pub(crate) fn keep_only(kept: &[RawFd]) {
    let null = prepared_null();
    for fd in open_numbers() {
        if fd > 2 && fd != null && !kept.contains(&fd) && descriptor::is_open(fd) {
            release_number(fd, null);
        }
    }
}

/// The open descriptors, and the closed one by which they were listed; where they cannot be listed, all possible ones.
fn open_numbers() -> Vec<RawFd> {
    let list = |folder: &str| -> std::io::Result<Vec<RawFd>> {
        let names = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    };
    list("/proc/self/fd").or_else(|_| list("/dev/fd")).unwrap_or_else(|_| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        (0..limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(MOST_NUMBERS).min(MOST_NUMBERS))
            .collect()
    })
}

/// /dev/null, open for the rest of this process's life.
fn prepared_null() -> RawFd {
    // Without a free descriptor the numbers are closed.
    descriptor::prepare_null().map_or(-1, |()| descriptor::null())
}
