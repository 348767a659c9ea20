//! What a worker says often: memory that it shares with its supervisor, so that a sign of life costs no system call.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock;
use crate::policy::Sender;
use crate::sys::shared_memory::{Line, SharedLines};

/// Which word of a worker's line holds what. Times are milliseconds on the monotonic clock.
#[derive(Clone, Copy)]
enum Word {
    Beat,
    /// When the current request began; 0: none.
    RequestSince,
    Requests,
    Connections,
    /// The last signal that somebody sent to the worker, and who.
    Signal,
    SenderPid,
    SenderUid,
}

/// One worker's line, in the supervisor and in the worker. Written by the worker alone, by any of its threads.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    lines: Arc<SharedLines>,
    index: usize,
}

impl Seat {
    fn word(&self, word: Word) -> &AtomicU64 {
        let Line(words) = &self.lines[self.index];
        &words[word as usize]
    }

    fn get(&self, word: Word) -> u64 {
        self.word(word).load(Relaxed)
    }

    fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Relaxed);
    }

    /// A new worker takes the line over.
    fn clear(&self) {
        for word in &self.lines[self.index].0 {
            word.store(0, Relaxed);
        }
        self.beat();
    }

    pub(crate) fn beat(&self) {
        self.set(Word::Beat, clock::now_ms());
    }

    pub(crate) fn request_began(&self) {
        let now = clock::now_ms();
        self.set(Word::Beat, now);
        self.set(Word::RequestSince, now);
    }

    pub(crate) fn request_ended(&self) {
        self.set(Word::RequestSince, 0);
        self.word(Word::Requests).fetch_add(1, Relaxed);
    }

    pub(crate) fn connections(&self, open: usize) {
        self.set(Word::Connections, open as u64);
    }

    /// Called from a signal handler: atomic stores only.
    pub(crate) fn signalled(&self, signal: i32, (pid, uid): (i32, u32)) {
        self.set(Word::SenderPid, u64::from(pid.unsigned_abs()));
        self.set(Word::SenderUid, u64::from(uid));
        self.set(Word::Signal, u64::from(signal.unsigned_abs()));
    }

    pub(crate) fn last_beat(&self) -> Duration {
        Duration::from_millis(self.get(Word::Beat))
    }

    /// For how long the current request has been running.
    pub(crate) fn request_age(&self) -> Option<Duration> {
        let since = self.get(Word::RequestSince);
        (since != 0).then(|| Duration::from_millis(clock::now_ms().saturating_sub(since)))
    }

    pub(crate) fn last_sender(&self) -> Option<Sender> {
        let number = |word| i32::try_from(self.get(word)).ok();
        let signal = number(Word::Signal).filter(|signal| *signal != 0)?;
        let uid = u32::try_from(self.get(Word::SenderUid)).ok()?;
        Some(Sender { signal, pid: number(Word::SenderPid)?, uid })
    }
}

/// All lines, and which of them are free.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    lines: Arc<SharedLines>,
    free: Vec<usize>,
}

impl Scoreboard {
    /// Room for `workers` workers at once.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        Ok(Self { lines: Arc::new(SharedLines::new(workers)?), free: (0..workers).rev().collect() })
    }

    /// A cleared line; `None` where all are taken.
    pub(crate) fn take(&mut self) -> Option<Seat> {
        let seat = Seat { lines: Arc::clone(&self.lines), index: self.free.pop()? };
        seat.clear();
        Some(seat)
    }

    /// A reaped worker's line comes back.
    pub(crate) fn give_back(&mut self, seat: &Seat) {
        self.free.push(seat.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_and_is_cleared() {
        let mut board = Scoreboard::new(1).unwrap();
        let seat = board.take().unwrap();
        seat.request_began();
        seat.signalled(15, (1, 0));
        assert!(seat.request_age().is_some());
        assert!(board.take().is_none());
        board.give_back(&seat);
        let seat = board.take().unwrap();
        assert_eq!((seat.request_age(), seat.last_sender()), (None, None));
    }
}
