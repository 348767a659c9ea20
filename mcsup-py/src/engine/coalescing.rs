//! Write coalescing. If several requests are ready and the application is quick, a small answer waits for the next ones,
//! half a millisecond at most. A client on the same machine, usually a proxy, is then woken once instead of for each
//! answer, and a wake-up costs more than a request. Successive small pieces of one body are sent together for the same
//! reason. PEP 3333 allows that if "a different thread" continues to send while the application is busy: here it is the
//! leading thread, some milliseconds later at most.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::waker::Waker;
use crate::net::buffer::Outgoing;
use crate::net::stream::Stream;

/// Longest wait of an answer for others.
const LONGEST: Duration = Duration::from_micros(500);

/// The answers that wait, by the tokens of their connections.
#[derive(Debug, Default)]
pub(super) struct Coalesced {
    answers: VecDeque<u64>,
    /// When the first was given; `None`: there is none.
    since: Option<Instant>,
}

impl Coalesced {
    pub(super) fn add(&mut self, token: u64, now: Instant) {
        self.answers.push_back(token);
        self.since.get_or_insert(now);
    }

    /// Whether a further one may wait.
    pub(super) fn has_time(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.saturating_duration_since(since) < LONGEST)
    }

    /// The next one to be sent, of which none is left.
    pub(super) fn next(&mut self) -> Option<u64> {
        self.since = None;
        self.answers.pop_front()
    }
}

/// The delayed bytes of a permit: a complete answer before its `close()`, or small pieces of a body.
///
/// The application may take any time: the leading thread sends them after a while.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Looked at without the lock, since there is nothing nearly always.
    is_any: AtomicBool,
    bytes: Mutex<Option<(Arc<Stream>, Outgoing)>>,
}

/// Shortens the wait of the leading thread while any permit has delayed bytes, and wakes it from a long one.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How many permits hold something.
    holding: AtomicUsize,
    /// Whether the leading thread waits for longer than bytes may be delayed.
    sleeps: AtomicBool,
}

/// Interval of the leading thread's checks while bytes may be delayed.
const LOOK: Duration = Duration::from_millis(2);

impl Watch {
    /// Shortens the `timeout` of the leading thread's next wait. `alert`: bytes were delayed lately.
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
    /// Wakes the leading thread.
    pub(super) waker: &'a Waker,
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
            self.waker.wake();
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
        // The next attempt of the owner detects a client that is gone.
        let _ = stream.send(bytes);
        if bytes.is_empty() {
            watch.holding.fetch_sub(1, Ordering::SeqCst);
        }
        true
    }
}
