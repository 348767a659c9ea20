//! What a worker says often: memory that it shares with its supervisor, so that a sign of life costs no system call.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::policy::Sender;
use crate::sys::descriptor;
use crate::sys::shared_memory::{Line, SharedLines};

/// The version of what follows: which words there are, what they mean, how lines are laid out. A supervisor's next image
/// reads what workers of the last one write, and workers of both read each other's: whoever changes any of it counts
/// this up, and an upgrade between the two is refused.
pub(crate) const LAYOUT: u32 = 1;

/// Which word of a worker's line holds what. Times are milliseconds on the monotonic clock.
#[derive(Clone, Copy)]
enum Word {
    Beat,
    /// When the current request began; 0: none.
    RequestSince,
    Requests,
    Connections,
    /// How many requests it does at once; 0: it accepts nothing.
    Permits,
    /// How many it is doing.
    Running,
    /// When it began the last one.
    Began,
    /// The last signal that somebody sent to the worker, and who.
    Signal,
    SenderPid,
    SenderUid,
    /// How many requests wait for a permit.
    Waiting,
    /// When the oldest of the requests that it is doing began, as far as it has told; 0: it has not.
    Oldest,
}

/// The words of the board's own line, the first.
const LINES_IN_USE: usize = 0;

/// A worker that has given no sign for so long is not counted on by its siblings: an idle one beats every half second.
const LIVELY: u64 = 1_500;

/// A request that began so many milliseconds ago may soon be over.
const QUICK: u64 = 2;

/// Another worker that accepts from the same listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sibling {
    /// How many connections it has.
    pub connections: usize,
    /// How many requests it could begin at once.
    pub free: usize,
    /// Whether it could begin one soon: at once, or after one that has only just begun.
    pub is_able: bool,
}

/// What a worker is doing, as it says itself: all of it lags a little.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// How many requests it has done.
    pub(crate) requests: u64,
    /// How many it is doing.
    pub(crate) running: u64,
    /// How many it does at once; 0: it accepts nothing.
    pub(crate) permits: u64,
    /// How many wait for a permit.
    pub(crate) waiting: u64,
    /// How many connections it has.
    pub(crate) connections: u64,
    /// For how long the oldest of those that it is doing has been running. With several at once up to half a second
    /// behind, and at least as long as the last one where nothing better is known.
    pub(crate) oldest: Option<Duration>,
}

/// One worker's line, in the supervisor and in the worker. Written by the worker alone, by any of its threads.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    lines: Arc<SharedLines>,
    index: usize,
}

impl Seat {
    /// Its place on the board.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// A process that the worker's own code forks has a board of its own, which is empty.
    pub(crate) fn is_not_for_children(&self) {
        self.lines.is_not_for_children();
    }

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

    /// The line belongs to nobody, or to somebody new.
    fn clear(&self) {
        for word in &self.lines[self.index].0 {
            word.store(0, Relaxed);
        }
    }

    pub(crate) fn beat(&self) {
        self.set(Word::Beat, clock::now_ms());
    }

    /// From now on connections are accepted, and so many requests are done at once; 0: accepted no more.
    pub(crate) fn accepting(&self, permits: usize) {
        self.set(Word::Permits, permits as u64);
    }

    pub(crate) fn request_began(&self) {
        let now = clock::now_ms();
        self.set(Word::Beat, now);
        self.set(Word::Began, now);
        self.word(Word::Running).fetch_add(1, Relaxed);
        // With several at once none of them is the worker's one request.
        if self.get(Word::Permits) <= 1 {
            self.set(Word::RequestSince, now);
        }
    }

    /// Returns how many have ended with this one: no two threads hear the same number.
    pub(crate) fn request_ended(&self) -> u64 {
        self.word(Word::Running).fetch_sub(1, Relaxed);
        self.set(Word::RequestSince, 0);
        self.word(Word::Requests).fetch_add(1, Relaxed) + 1
    }

    /// So many requests wait for a permit.
    pub(crate) fn waiting(&self, count: usize) {
        self.set(Word::Waiting, count as u64);
    }

    /// For how long the oldest of several requests has been running; `None`: there is none.
    pub(crate) fn oldest(&self, age: Option<Duration>) {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.set(Word::Oldest, age.map_or(0, |age| clock::now_ms().saturating_sub(millis(age)).max(1)));
    }

    /// The other workers that accept and move.
    pub(crate) fn siblings(&self) -> impl Iterator<Item = Sibling> + '_ {
        let in_use = usize::try_from(self.lines[0].0[LINES_IN_USE].load(Relaxed)).unwrap_or(usize::MAX);
        let now = clock::now_ms();
        let others = (1..self.lines.len().min(in_use)).filter(|index| *index != self.index);
        others.filter_map(move |index| {
            let Line(words) = &self.lines[index];
            let get = |word: Word| words[word as usize].load(Relaxed);
            let permits = get(Word::Permits);
            let lively = permits > 0 && now.saturating_sub(get(Word::Beat)) < LIVELY;
            let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
            let free = number(permits.saturating_sub(get(Word::Running)));
            lively.then(|| Sibling {
                connections: number(get(Word::Connections)),
                free,
                is_able: free > 0 || now.saturating_sub(get(Word::Began)) <= QUICK,
            })
        })
    }

    pub(crate) fn connections(&self, open: usize) {
        self.set(Word::Connections, open as u64);
    }

    /// Notes the sender of a signal.
    pub(crate) fn signalled(&self, signal: i32, (pid, uid): (i32, u32)) {
        self.set(Word::SenderPid, u64::from(pid.unsigned_abs()));
        self.set(Word::SenderUid, u64::from(uid));
        self.set(Word::Signal, u64::from(signal.unsigned_abs()));
    }

    pub(crate) fn last_beat(&self) -> Duration {
        Duration::from_millis(self.get(Word::Beat))
    }

    /// For how long the current request has been running, or the oldest of several.
    pub(crate) fn request_age(&self) -> Option<Duration> {
        if self.get(Word::Running) == 0 {
            return None;
        }
        let told = [Word::RequestSince, Word::Oldest].map(|word| self.get(word));
        let since = told.into_iter().filter(|since| *since != 0).min();
        // Of several that have all just begun nothing was told yet.
        let since = since.unwrap_or_else(|| self.get(Word::Began));
        Some(Duration::from_millis(clock::now_ms().saturating_sub(since)))
    }

    /// All that the worker says of what it is doing.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            requests: self.get(Word::Requests),
            running: self.get(Word::Running),
            permits: self.get(Word::Permits),
            waiting: self.get(Word::Waiting),
            connections: self.get(Word::Connections),
            oldest: self.request_age(),
        }
    }

    pub(crate) fn last_sender(&self) -> Option<Sender> {
        let number = |word| i32::try_from(self.get(word)).ok();
        let signal = number(Word::Signal).filter(|signal| *signal != 0)?;
        let uid = u32::try_from(self.get(Word::SenderUid)).ok()?;
        Some(Sender { signal, pid: number(Word::SenderPid)?, uid })
    }
}

/// All lines, for a mold, whose workers are told which one is theirs.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<SharedLines>);

impl Board {
    /// As [`Seat::is_not_for_children`].
    pub(crate) fn is_not_for_children(&self) {
        self.0.is_not_for_children();
    }

    /// A worker's line; `None`: there is no such line.
    pub(crate) fn seat(&self, index: usize) -> Option<Seat> {
        (1..self.0.len()).contains(&index).then(|| Seat { lines: Arc::clone(&self.0), index })
    }
}

/// All lines, and which of them are free.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    lines: Arc<SharedLines>,
    free: Vec<usize>,
    /// The memory as a file, for the supervisor's next image. A worker has none.
    file: Option<File>,
}

/// A board that outlives its supervisor's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoardRecord {
    pub(crate) fd: RawFd,
    workers: usize,
}

impl Scoreboard {
    /// Room for `workers` workers at once.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        let (lines, file) = SharedLines::new(workers + 1)?;
        Ok(Self { lines: Arc::new(lines), free: (1..=workers).rev().collect(), file: Some(file) })
    }

    /// What the next image needs; `None` in a worker.
    pub(crate) fn describe(&self) -> Option<BoardRecord> {
        let file = self.file.as_ref()?;
        Some(BoardRecord { fd: file.as_raw_fd(), workers: self.lines.len() - 1 })
    }

    /// The board that was described, in the process that has inherited its descriptor. Every line is free until it is
    /// [taken again](Self::take_again).
    pub(crate) fn adopt(record: &BoardRecord) -> io::Result<Self> {
        let file = File::from(descriptor::take_recorded(record.fd)?);
        let workers = record.workers;
        match SharedLines::map(&file, workers.saturating_add(1)) {
            Ok(lines) => {
                Ok(Self { lines: Arc::new(lines), free: (1..=workers).rev().collect(), file: Some(file) })
            }
            Err(error) => {
                // It stays open, so that there is a way back.
                std::mem::forget(file);
                Err(error)
            }
        }
    }

    /// A line that somebody has: as it is. `None`: there is no such line, or it is taken.
    pub(crate) fn take_again(&mut self, index: usize) -> Option<Seat> {
        let place = self.free.iter().position(|free| *free == index)?;
        self.free.remove(place);
        Some(Seat { lines: Arc::clone(&self.lines), index })
    }

    /// In a forked child: the file is the supervisor's.
    pub(crate) fn let_go(&mut self) {
        self.file = None;
    }

    /// A cleared line; `None` where all are taken.
    pub(crate) fn take(&mut self) -> Option<Seat> {
        let seat = Seat { lines: Arc::clone(&self.lines), index: self.free.pop()? };
        self.lines[0].0[LINES_IN_USE].fetch_max(seat.index as u64 + 1, Relaxed);
        seat.beat();
        Some(seat)
    }

    pub(crate) fn board(&self) -> Board {
        Board(Arc::clone(&self.lines))
    }

    /// A reaped worker's line comes back: its siblings do not count on it any more.
    pub(crate) fn give_back(&mut self, seat: &Seat) {
        seat.clear();
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

    #[test]
    fn the_supervisor_sees_what_a_worker_is_doing() {
        let mut board = Scoreboard::new(1).unwrap();
        let seat = board.take().unwrap();
        seat.accepting(2);
        seat.connections(5);
        seat.waiting(3);
        assert_eq!(seat.gauges(), Gauges { permits: 2, connections: 5, waiting: 3, ..Gauges::default() });
        seat.request_began();
        seat.request_began();
        // Nobody has told yet since when: they have just begun.
        assert!(seat.request_age().unwrap() < Duration::from_secs(60));
        seat.oldest(Some(Duration::from_secs(60)));
        assert!(seat.request_age().unwrap() >= Duration::from_secs(60));
        assert_eq!(seat.request_ended(), 1);
        assert!(seat.gauges().oldest.unwrap() >= Duration::from_secs(60));
        assert_eq!(seat.request_ended(), 2);
        let gauges = seat.gauges();
        assert_eq!((gauges.requests, gauges.running, gauges.oldest), (2, 0, None));
        seat.request_began();
        seat.oldest(None);
        assert!(seat.request_age().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn a_board_is_adopted_as_it_is() {
        use std::os::fd::IntoRawFd;
        let mut board = Scoreboard::new(3).unwrap();
        let (_one, two) = (board.take().unwrap(), board.take().unwrap());
        two.connections(7);
        let fd = board.file.as_ref().unwrap().try_clone().unwrap().into_raw_fd();
        let record = BoardRecord { fd, ..board.describe().unwrap() };
        let mut adopted = Scoreboard::adopt(&record).unwrap();
        let again = adopted.take_again(two.index()).unwrap();
        assert_eq!(again.gauges().connections, 7);
        assert!(adopted.take_again(two.index()).is_none() && adopted.take_again(4).is_none());
        again.connections(8);
        assert_eq!(two.gauges().connections, 8);
        let new = adopted.take().unwrap();
        assert_eq!(new.index(), 1);
    }

    #[test]
    fn workers_see_what_their_siblings_could_take() {
        let mut board = Scoreboard::new(3).unwrap();
        let (one, other, booting) = (board.take().unwrap(), board.take().unwrap(), board.take().unwrap());
        one.accepting(2);
        other.accepting(1);
        other.connections(7);
        let seen = |seat: &Seat| seat.siblings().collect::<Vec<_>>();
        assert_eq!(seen(&one), [Sibling { connections: 7, free: 1, is_able: true }]);
        other.request_began();
        assert_eq!(seen(&one)[0].free, 0);
        other.set(Word::Began, 0);
        assert_eq!(seen(&one), [Sibling { connections: 7, free: 0, is_able: false }]);
        assert_eq!(seen(&other), [Sibling { connections: 0, free: 2, is_able: true }]);
        assert_eq!(seen(&booting).len(), 2);
        board.give_back(&other);
        assert_eq!(seen(&one), []);
    }
}
