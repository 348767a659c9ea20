//! What leaves together. Where several requests are ready and the application is quick, a small answer waits for the next
//! ones, half a millisecond at most: whoever reads them on this machine, a proxy as a rule, is woken once and not for each,
//! and a wake-up costs more than a request. In the same way small pieces of one body that come in quick succession leave
//! together. PEP 3333 allows that where "a different thread" goes on sending while the application is busy: here it is
//! whoever leads, some milliseconds later at most.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::kick::Kick;
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

/// What a permit holds back while the application goes on: an answer that is complete but not closed yet, or pieces of a
/// body that come in quick succession. Nobody knows how long the application will be: whoever leads looks after it.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Looked at without the lock, since there is nothing nearly always.
    is_any: AtomicBool,
    bytes: Mutex<Option<(Arc<Stream>, Outgoing)>>,
}

/// Makes sure that somebody looks: whoever leads does not wait for long while anything is held, and is woken if it does.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How many permits hold something.
    holding: AtomicUsize,
    /// Whoever leads waits for longer than something may be held.
    sleeps: AtomicBool,
}

/// While something may be held, whoever leads looks as often as this.
const LOOK: Duration = Duration::from_millis(2);

impl Watch {
    /// Whoever leads is about to wait for `timeout`; returns for how long it may. `alert`: something was held lately.
    pub(super) fn wait(&self, timeout: Duration, alert: bool) -> Duration {
        if timeout <= LOOK {
            return timeout;
        }
        self.sleeps.store(!alert, Ordering::SeqCst);
        if alert || self.holding.load(Ordering::SeqCst) > 0 { LOOK } else { timeout }
    }

    /// It waits no more.
    pub(super) fn woke(&self) {
        self.sleeps.store(false, Ordering::SeqCst);
    }
}

/// One permit's, for the time of a request.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    pub(super) held: &'a Held,
    pub(super) watch: &'a Watch,
    /// Wakes whoever leads.
    pub(super) kick: &'a Kick,
}

impl Holding<'_> {
    /// Takes all of `outgoing`, to be taken back or sent.
    pub(super) fn put(self, stream: &Arc<Stream>, outgoing: &mut Outgoing) {
        if outgoing.is_empty() {
            return;
        }
        let bytes = (Arc::clone(stream), std::mem::take(outgoing));
        *self.held.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        self.held.is_any.store(true, Ordering::Release);
        self.watch.holding.fetch_add(1, Ordering::SeqCst);
        if self.watch.sleeps.load(Ordering::SeqCst) && self.watch.sleeps.swap(false, Ordering::SeqCst) {
            self.kick.give();
        }
    }

    /// Puts back what has not been sent, and the memory of what has.
    pub(super) fn take_back(self, outgoing: &mut Outgoing) {
        if self.held.is_any.swap(false, Ordering::AcqRel) {
            if let Some((_, bytes)) = self.held.bytes.lock().unwrap_or_else(PoisonError::into_inner).take() {
                if !bytes.is_empty() {
                    self.watch.holding.fetch_sub(1, Ordering::SeqCst);
                }
                *outgoing = bytes;
            }
        }
    }
}

impl Held {
    /// Sends what is held; `false`: nothing is.
    pub(super) fn send(&self, watch: &Watch) -> bool {
        if !self.is_any.load(Ordering::Acquire) {
            return false;
        }
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((stream, bytes)) = &mut *held else { return false };
        if bytes.is_empty() {
            return false;
        }
        // A client that is gone is noticed by the next attempt of whoever holds it.
        let _ = stream.send(bytes);
        if bytes.is_empty() {
            watch.holding.fetch_sub(1, Ordering::SeqCst);
        }
        true
    }
}
