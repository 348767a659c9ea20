//! An allocator that counts what the threads of an engine ask of it.

#![allow(
    unsafe_code,
    reason = "an allocator has no safe interface; this one adds a number to that of the system"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static YOUNGER: AtomicBool = AtomicBool::new(false);
static COUNTS: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FIRST: Mutex<Option<Backtrace>> = Mutex::new(None);

/// Whether a thread has allocated before the engine was there: it is the client's, or the test harness's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Unknown,
    Older,
    Younger,
    /// Is looking where it is.
    Looking,
}

thread_local! {
    static AGE: Cell<Age> = const { Cell::new(Age::Unknown) };
}

/// What was counted.
pub(crate) struct Counted {
    pub count: usize,
    /// Where the first of them was asked for.
    pub first: String,
}

/// A thread that allocates for the first time from now on is counted.
pub(crate) fn threads_from_now_on_are_younger() {
    YOUNGER.store(true, Ordering::SeqCst);
}

/// Counts the allocations of those threads while `act` goes on.
pub(crate) fn of_younger_threads(act: impl FnOnce()) -> Counted {
    COUNT.store(0, Ordering::SeqCst);
    COUNTS.store(true, Ordering::SeqCst);
    act();
    COUNTS.store(false, Ordering::SeqCst);
    let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
    Counted { count: COUNT.load(Ordering::SeqCst), first: first.map(|at| at.to_string()).unwrap_or_default() }
}

struct Counting;

impl Counting {
    fn note(&self) {
        // A thread that is ending has no such value any more.
        let Ok(age) = AGE.try_with(Cell::get) else { return };
        if age == Age::Unknown {
            let age = if YOUNGER.load(Ordering::SeqCst) { Age::Younger } else { Age::Older };
            AGE.set(age);
        }
        if AGE.get() == Age::Younger
            && COUNTS.load(Ordering::SeqCst)
            && COUNT.fetch_add(1, Ordering::SeqCst) == 0
        {
            AGE.set(Age::Looking);
            *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Backtrace::force_capture());
            AGE.set(Age::Younger);
        }
    }
}

// SAFETY: it is the system's allocator; `note` neither unwinds nor allocates without an end.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: the caller keeps the system's contract, which is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
