//! Small answers that leave together. Where several requests are ready and the application is quick, an answer waits for
//! the next ones, half a millisecond at most: whoever reads them on this machine, a proxy as a rule, is woken once and not
//! for each, and a wake-up costs more than a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::net::buffer::Outgoing;
use crate::net::stream::Stream;

/// For so long an answer may wait for others.
const LONGEST: Duration = Duration::from_micros(500);

/// The answers that wait, by the tokens of their connections.
#[derive(Debug, Default)]
pub(super) struct Together {
    answers: Vec<u64>,
    /// When the first was given; `None`: there is none.
    since: Option<Instant>,
}

impl Together {
    pub(super) fn add(&mut self, token: u64, now: Instant) {
        self.answers.push(token);
        self.since.get_or_insert(now);
    }

    /// Whether a further one may wait.
    pub(super) fn has_time(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) < LONGEST)
    }

    /// All that wait, to be sent; give the vector back empty.
    pub(super) fn take(&mut self) -> Vec<u64> {
        self.since = None;
        std::mem::take(&mut self.answers)
    }

    pub(super) fn keep_room(&mut self, answers: Vec<u64>) {
        self.answers = answers;
    }
}

/// An answer that is complete and waits while the application closes it. That may take long: then whoever leads sends
/// it meanwhile.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Looked at without the lock, since there is none nearly always.
    is_one: AtomicBool,
    answer: Mutex<Option<(Arc<Stream>, Outgoing)>>,
}

impl Held {
    /// Takes the answer out of `outgoing`.
    pub(super) fn put(&self, stream: &Arc<Stream>, outgoing: &mut Outgoing) {
        let held = (Arc::clone(stream), std::mem::take(outgoing));
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        self.is_one.store(true, Ordering::Release);
    }

    /// Puts back what has not been sent.
    pub(super) fn take_back(&self, outgoing: &mut Outgoing) {
        if self.is_one.swap(false, Ordering::AcqRel) {
            if let Some((_, held)) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                *outgoing = held;
            }
        }
    }

    /// Sends it, if there is one.
    pub(super) fn send(&self) {
        if !self.is_one.load(Ordering::Acquire) {
            return;
        }
        if let Some((stream, outgoing)) = &mut *self.answer.lock().unwrap_or_else(PoisonError::into_inner) {
            // A client that is gone is noticed by the next attempt.
            let _ = stream.send(outgoing);
        }
    }
}
