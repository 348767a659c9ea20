//! Frequent reports of a worker: memory shared with its supervisor, so that a sign of life costs no system
//! call.

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

/// The version of the layout: the words, their meaning, and the layout of the rows.
///
/// After an upgrade the supervisor's next image reads the rows of workers of the previous one, and the
/// workers read each other's. Any change increments this number; an upgrade between different numbers is
/// refused.
pub(crate) const LAYOUT: u32 = 2;

/// The words of a worker's row. Times are milliseconds on the monotonic clock.
#[derive(Clone, Copy)]
enum Word {
    Beat,
    /// The start of the current request; 0: none.
    RequestSince,
    Requests,
    Connections,
    /// The number of requests that it can serve at once; 0: it does not accept.
    Permits,
    /// The number of requests in progress.
    Running,
    /// The start of the latest request.
    Began,
    /// The latest signal from another process, with its sender.
    Signal,
    SenderPid,
    /// The number of requests that wait for a permit.
    Waiting,
    /// The start of the oldest request in progress; 0: unknown.
    Oldest,
}

/// The word of row 0 that counts the rows in use.
const LINES_IN_USE: usize = 0;

/// The age of a beat, in milliseconds, from which siblings ignore a worker. An idle worker beats every half
/// second.
const LIVELY: u64 = 1_500;

/// A request this many milliseconds old may end soon.
const QUICK: u64 = 2;

/// Another worker that accepts from the same listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sibling {
    /// The number of its connections.
    pub connections: usize,
    /// The number of requests that it could start at once.
    pub free: usize,
    /// Whether it could start a request soon: at once, or after one that has just begun.
    pub is_able: bool,
}

/// A worker's own counters. They lag a little.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// The number of requests served.
    pub(crate) requests: u64,
    /// The number of requests in progress.
    pub(crate) running: u64,
    /// The number of requests that it can serve at once; 0: it does not accept.
    pub(crate) permits: u64,
    /// The number of requests that wait for a permit.
    pub(crate) waiting: u64,
    /// The number of open connections.
    pub(crate) connections: u64,
    /// The age of the oldest request in progress. With several at once it is up to half a second behind, and
    /// at least the age of the latest one.
    pub(crate) oldest: Option<Duration>,
}

/// One worker's row. Only the worker writes to it, from any of its threads.
#[derive(Debug, Clone)]
pub(crate) struct ScoreboardRow {
    lines: Arc<SharedLines>,
    index: usize,
}

impl ScoreboardRow {
    /// Its index on the scoreboard.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Gives processes forked by the worker's own code an empty scoreboard of their own.
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

    /// Clears the row for a new worker.
    fn clear(&self) {
        for word in &self.lines[self.index].0 {
            word.store(0, Relaxed);
        }
    }

    pub(crate) fn beat(&self) {
        self.set(Word::Beat, clock::now_ms());
    }

    /// Announces that the worker accepts and serves up to `permits` requests at once; 0: it stops accepting.
    pub(crate) fn accepting(&self, permits: usize) {
        self.set(Word::Permits, permits as u64);
    }

    pub(crate) fn request_began(&self) {
        let now = clock::now_ms();
        self.set(Word::Beat, now);
        self.set(Word::Began, now);
        self.word(Word::Running).fetch_add(1, Relaxed);
        // With several permits no single request is the current one.
        if self.get(Word::Permits) <= 1 {
            self.set(Word::RequestSince, now);
        }
    }

    /// Returns the number of ended requests. No two threads get the same number.
    pub(crate) fn request_ended(&self) -> u64 {
        self.word(Word::Running).fetch_sub(1, Relaxed);
        self.set(Word::RequestSince, 0);
        self.word(Word::Requests).fetch_add(1, Relaxed) + 1
    }

    /// The number of requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.get(Word::Requests) + self.get(Word::Running)
    }

    /// Sets the number of requests that wait for a permit.
    pub(crate) fn waiting(&self, count: usize) {
        self.set(Word::Waiting, count as u64);
    }

    /// Sets the age of the oldest of several requests; `None`: there is none.
    pub(crate) fn oldest(&self, age: Option<Duration>) {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.set(Word::Oldest, age.map_or(0, |age| clock::now_ms().saturating_sub(millis(age)).max(1)));
    }

    /// The other workers that accept and show signs of life.
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
    pub(crate) fn signalled(&self, signal: i32, pid: i32) {
        self.set(Word::SenderPid, u64::from(pid.unsigned_abs()));
        self.set(Word::Signal, u64::from(signal.unsigned_abs()));
    }

    pub(crate) fn last_beat(&self) -> Duration {
        Duration::from_millis(self.get(Word::Beat))
    }

    /// The age of the current request, or of the oldest of several.
    pub(crate) fn request_age(&self) -> Option<Duration> {
        if self.get(Word::Running) == 0 {
            return None;
        }
        let told = [Word::RequestSince, Word::Oldest].map(|word| self.get(word));
        let since = told.into_iter().filter(|since| *since != 0).min();
        // All of them have just begun, and the worker has reported no oldest one yet.
        let since = since.unwrap_or_else(|| self.get(Word::Began));
        Some(Duration::from_millis(clock::now_ms().saturating_sub(since)))
    }

    /// All counters of the worker.
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
        Some(Sender { signal, pid: number(Word::SenderPid)? })
    }
}

/// All rows, for a mold and its workers.
#[derive(Debug, Clone)]
pub(crate) struct ScoreboardRows(Arc<SharedLines>);

impl ScoreboardRows {
    /// As [`ScoreboardRow::is_not_for_children`].
    pub(crate) fn is_not_for_children(&self) {
        self.0.is_not_for_children();
    }

    /// A worker's row; `None`: there is no such row.
    pub(crate) fn row(&self, index: usize) -> Option<ScoreboardRow> {
        (1..self.0.len()).contains(&index).then(|| ScoreboardRow { lines: Arc::clone(&self.0), index })
    }
}

/// All rows, and the list of free ones.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    lines: Arc<SharedLines>,
    free: Vec<usize>,
    /// The memory as a file, for the supervisor's next image. A worker has none.
    file: Option<File>,
}

/// A [`Scoreboard`] as one image of the supervisor passes it to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScoreboardRecord {
    pub(crate) fd: RawFd,
    workers: usize,
}

impl Scoreboard {
    /// Creates a scoreboard for `workers` workers at once.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        let (lines, file) = SharedLines::new(workers + 1)?;
        Ok(Self { lines: Arc::new(lines), free: (1..=workers).rev().collect(), file: Some(file) })
    }

    /// Records the scoreboard for the next image; `None` in a worker.
    pub(crate) fn describe(&self) -> Option<ScoreboardRecord> {
        let file = self.file.as_ref()?;
        Some(ScoreboardRecord { fd: file.as_raw_fd(), workers: self.lines.len() - 1 })
    }

    /// The recorded scoreboard, in the process that has inherited its descriptor. Every row is free until it
    /// is [taken again](Self::take_existing).
    pub(crate) fn adopt(record: &ScoreboardRecord) -> io::Result<Self> {
        let file = File::from(descriptor::take_recorded(record.fd)?);
        let workers = record.workers;
        match SharedLines::map(&file, workers.saturating_add(1)) {
            Ok(lines) => {
                Ok(Self { lines: Arc::new(lines), free: (1..=workers).rev().collect(), file: Some(file) })
            }
            Err(error) => {
                // It stays open for the previous image, if that is executed again.
                std::mem::forget(file);
                Err(error)
            }
        }
    }

    /// Takes the row of a running worker, unchanged; `None`: there is no such row, or it is taken.
    pub(crate) fn take_existing(&mut self, index: usize) -> Option<ScoreboardRow> {
        let place = self.free.iter().position(|free| *free == index)?;
        self.free.remove(place);
        Some(ScoreboardRow { lines: Arc::clone(&self.lines), index })
    }

    /// Closes the file in a forked child: it is the supervisor's.
    pub(crate) fn close_in_child(&mut self) {
        self.file = None;
    }

    /// Takes a cleared row; `None`: all are taken.
    pub(crate) fn take(&mut self) -> Option<ScoreboardRow> {
        let row = ScoreboardRow { lines: Arc::clone(&self.lines), index: self.free.pop()? };
        self.lines[0].0[LINES_IN_USE].fetch_max(row.index as u64 + 1, Relaxed);
        row.beat();
        Some(row)
    }

    pub(crate) fn board(&self) -> ScoreboardRows {
        ScoreboardRows(Arc::clone(&self.lines))
    }

    /// Frees the row of a reaped worker: its siblings ignore it from now on.
    pub(crate) fn give_back(&mut self, row: &ScoreboardRow) {
        row.clear();
        self.free.push(row.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_cleared_before_it_is_used_again() {
        let mut board = Scoreboard::new(1).unwrap();
        let row = board.take().unwrap();
        row.request_began();
        row.signalled(15, 1);
        assert!(row.request_age().is_some());
        assert!(board.take().is_none());
        board.give_back(&row);
        let row = board.take().unwrap();
        assert_eq!((row.request_age(), row.last_sender()), (None, None));
    }

    #[test]
    fn the_supervisor_sees_the_counters_of_a_worker() {
        let mut board = Scoreboard::new(1).unwrap();
        let row = board.take().unwrap();
        row.accepting(2);
        row.connections(5);
        row.waiting(3);
        assert_eq!(row.gauges(), Gauges { permits: 2, connections: 5, waiting: 3, ..Gauges::default() });
        row.request_began();
        row.request_began();
        // No oldest request was reported yet: all have just begun.
        assert!(row.request_age().unwrap() < Duration::from_secs(60));
        row.oldest(Some(Duration::from_secs(60)));
        assert!(row.request_age().unwrap() >= Duration::from_secs(60));
        assert_eq!(row.request_ended(), 1);
        assert!(row.gauges().oldest.unwrap() >= Duration::from_secs(60));
        assert_eq!(row.request_ended(), 2);
        let gauges = row.gauges();
        assert_eq!((gauges.requests, gauges.running, gauges.oldest), (2, 0, None));
        row.request_began();
        row.oldest(None);
        assert!(row.request_age().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn a_board_is_adopted_as_it_is() {
        use std::os::fd::IntoRawFd;
        let mut board = Scoreboard::new(3).unwrap();
        let (_one, two) = (board.take().unwrap(), board.take().unwrap());
        two.connections(7);
        let fd = board.file.as_ref().unwrap().try_clone().unwrap().into_raw_fd();
        let record = ScoreboardRecord { fd, ..board.describe().unwrap() };
        let mut adopted = Scoreboard::adopt(&record).unwrap();
        let again = adopted.take_existing(two.index()).unwrap();
        assert_eq!(again.gauges().connections, 7);
        assert!(adopted.take_existing(two.index()).is_none() && adopted.take_existing(4).is_none());
        again.connections(8);
        assert_eq!(two.gauges().connections, 8);
        let new = adopted.take().unwrap();
        assert_eq!(new.index(), 1);
    }

    #[test]
    fn workers_see_the_free_permits_of_their_siblings() {
        let mut board = Scoreboard::new(3).unwrap();
        let (one, other, booting) = (board.take().unwrap(), board.take().unwrap(), board.take().unwrap());
        one.accepting(2);
        other.accepting(1);
        other.connections(7);
        let seen = |row: &ScoreboardRow| row.siblings().collect::<Vec<_>>();
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
