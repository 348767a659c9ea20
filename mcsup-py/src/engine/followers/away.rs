//! How the spare is woken, and sent away while the application forks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

use super::{Leader, Shared};

/// The thread without a permit. It may be another one after each fork of the application.
#[derive(Debug, Default)]
pub(super) struct Spare {
    thread: Mutex<Option<Thread>>,
    is_away: AtomicBool,
}

impl Spare {
    /// This thread is the spare from now on.
    pub(super) fn begin(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
    }

    pub(super) fn unpark(&self) {
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    /// Whether its thread is to end for now.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }
}

impl Shared<'_> {
    /// Has the spare's thread end soon, holding nothing, or lets it be again.
    pub(super) fn send_spare(&self, away: bool) {
        self.spare.is_away.store(away, Ordering::Release);
        if !away {
            return;
        }
        // Only one that leads acknowledges the waker.
        let state = self.lock();
        if state.leader == Leader::Spare {
            self.spare_waker.wake();
        }
        drop(state);
        self.spare.unpark();
    }
}
