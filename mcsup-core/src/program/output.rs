//! The standard output and error of a program, line by line in the log, and the messages about it.
//!
//! One thread reads the pipes and never logs; another one logs. So a slow log delays neither the program nor the
//! control of it: lines beyond [`MOST_QUEUED`] bytes are dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::sys::descriptor;
use crate::sys::signal::SignalsBlocked;

/// The target of the records of output, for filters.
const TARGET: &str = "mcsup_core::program::output";

/// The target of the messages about the program.
const MESSAGES: &str = "mcsup_core::program";

/// The most bytes that wait for the log.
const MOST_QUEUED: usize = 1 << 20;

/// The most bytes of a line. A longer one is split.
const LONGEST: usize = 8192;

/// The most bytes that are read at once, so that other events are handled between.
const TURN: usize = 1 << 18;

/// The last lines, for the report of a failed start.
const MOST_RECENT: usize = 20;

/// The longest wait for the log at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A pipe from the program.
#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    pipe: OwnedFd,
    partial: Vec<u8>,
}

impl Stream {
    /// A pipe, and the program's end of it.
    pub(super) fn open(name: &'static str) -> io::Result<(Self, OwnedFd)> {
        let (pipe, end) = descriptor::pipe(false)?;
        // Only this end: the program expects a blocking one.
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((Self { name, pipe, partial: Vec::new() }, end))
    }

    /// Reads what is there; `false`: all processes have closed it.
    pub(super) fn read(&mut self, lines: &mut Lines) -> bool {
        let mut buffer = [0; 16 * 1024];
        let mut total = 0;
        while total < TURN {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    self.end(lines);
                    return false;
                }
                Ok(count) => {
                    total += count;
                    self.split(&buffer[..count], lines);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Ends the last line, which has no newline.
    pub(super) fn end(&mut self, lines: &mut Lines) {
        if !self.partial.is_empty() {
            lines.push(self.name, &self.partial);
            self.partial.clear();
        }
    }

    fn split(&mut self, bytes: &[u8], lines: &mut Lines) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_end = part.ends_with(b"\n");
            self.partial.extend_from_slice(part.strip_suffix(b"\n").unwrap_or(part));
            while self.partial.len() > LONGEST {
                let end = end_of_piece(&self.partial);
                lines.push(self.name, &self.partial[..end]);
                self.partial.drain(..end);
            }
            if is_end {
                lines.push(self.name, &self.partial);
                self.partial.clear();
            }
        }
    }
}

/// The length of the first piece of a line that is longer than [`LONGEST`]: it does not end within a character.
fn end_of_piece(line: &[u8]) -> usize {
    let continues = |at: &usize| line[*at] & 0b1100_0000 == 0b1000_0000;
    // A character has at most four bytes; other bytes are no text.
    (LONGEST - 3..=LONGEST).rev().find(|at| !continues(at)).unwrap_or(LONGEST)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// The lines on their way to the log.
#[derive(Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
    recent: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug)]
struct Record {
    level: Level,
    target: &'static str,
    text: String,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
    dropped: u64,
    is_closed: bool,
    is_done: bool,
}

impl Lines {
    /// Starts the thread that logs.
    pub(super) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let _blocked = SignalsBlocked::for_new_threads();
        std::thread::Builder::new().name("output".to_owned()).spawn(move || of_thread.log())?;
        Ok(Self { shared, recent: VecDeque::new() })
    }

    /// Adds a line of a stream.
    fn push(&mut self, stream: &str, line: &[u8]) {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        if self.recent.len() >= MOST_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(text.clone().into_owned());
        self.queue(Record { level: Level::Info, target: TARGET, text: format!("{stream}: {text}") });
    }

    /// Adds a message about the program.
    pub(super) fn note(&self, level: Level, text: String) {
        self.queue(Record { level, target: MESSAGES, text });
    }

    fn queue(&self, record: Record) {
        let mut queue = self.shared.lock();
        if queue.bytes + record.text.len() > MOST_QUEUED {
            queue.dropped += 1;
        } else {
            queue.bytes += record.text.len();
            queue.records.push_back(record);
        }
        self.shared.changed.notify_all();
    }

    /// The last lines, one below the other.
    pub(super) fn recent(&self) -> Option<String> {
        let lines: Vec<&str> = self.recent.iter().map(String::as_str).collect();
        Some(lines.join("\n")).filter(|text| !text.is_empty())
    }

    /// Waits until all lines are logged, for a second at most.
    pub(super) fn finish(&self) {
        let end = Instant::now() + LAST_LINES;
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        self.shared.changed.notify_all();
        while !queue.is_done {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the lines until the queue is closed and empty.
    fn log(&self) {
        let mut queue = self.lock();
        loop {
            let dropped = std::mem::take(&mut queue.dropped);
            let records = std::mem::take(&mut queue.records);
            queue.bytes = 0;
            if dropped == 0 && records.is_empty() {
                if queue.is_closed {
                    queue.is_done = true;
                    self.changed.notify_all();
                    return;
                }
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(queue);
            for Record { level, target, text } in records {
                log::log!(target: target, level, "{text}");
            }
            if dropped > 0 {
                log::warn!(target: TARGET, "{dropped} more lines of the program were dropped: the log is slow");
            }
            // This thread may wait: a log may keep records, for a connection that is being made.
            log::logger().flush();
            queue = self.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that would be logged.
    fn queued() -> Lines {
        Lines { shared: Arc::default(), recent: VecDeque::new() }
    }

    fn texts(lines: &Lines) -> Vec<String> {
        lines.shared.lock().records.iter().map(|record| record.text.clone()).collect()
    }

    #[test]
    fn output_is_split_into_lines_however_it_arrives() {
        let (mut stream, end) = Stream::open("stdout").unwrap();
        let mut lines = queued();
        for piece in [&b"one\ntw"[..], b"o\r\n\n", b"\xffthree"] {
            rustix::io::write(&end, piece).unwrap();
            assert!(stream.read(&mut lines));
        }
        assert_eq!(texts(&lines), ["stdout: one", "stdout: two", "stdout: "]);
        drop(end);
        assert!(!stream.read(&mut lines));
        assert_eq!(texts(&lines).last().unwrap(), "stdout: \u{fffd}three");
        assert_eq!(lines.recent().unwrap(), "one\ntwo\n\n\u{fffd}three");
    }

    #[test]
    fn a_long_line_is_split_and_a_slow_log_loses_lines_instead_of_blocking() {
        let (mut stream, _end) = Stream::open("stderr").unwrap();
        let mut lines = queued();
        stream.split(&vec![b'x'; 2 * LONGEST + 1], &mut lines);
        assert_eq!(texts(&lines).iter().map(String::len).collect::<Vec<_>>(), [LONGEST + 8; 2]);
        for _ in 0..2 * MOST_QUEUED / LONGEST {
            stream.split(&vec![b'x'; LONGEST], &mut lines);
        }
        let queue = lines.shared.lock();
        assert!(queue.bytes <= MOST_QUEUED && queue.dropped > 0, "{} dropped", queue.dropped);
    }

    #[test]
    fn no_piece_of_a_line_is_too_long_or_ends_within_a_character() {
        let (mut stream, _end) = Stream::open("stdout").unwrap();
        let mut lines = queued();
        stream.split(&vec![b'x'; LONGEST - 1], &mut lines);
        stream.split("\u{fc}".as_bytes(), &mut lines);
        stream.split(&vec![b'y'; LONGEST - 2], &mut lines);
        stream.split(b"\n", &mut lines);
        stream.split(&[0b1000_0000; LONGEST + 1], &mut lines);
        let texts = texts(&lines);
        assert_eq!(texts[0], format!("stdout: {}", "x".repeat(LONGEST - 1)));
        assert_eq!(texts[1], format!("stdout: \u{fc}{}", "y".repeat(LONGEST - 2)));
        assert_eq!(texts[2].chars().count(), "stdout: ".len() + LONGEST);
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn all_lines_are_logged_before_the_end() {
        let mut lines = Lines::start().unwrap();
        (0..1000).for_each(|number| lines.push("stdout", format!("{number}").as_bytes()));
        lines.finish();
        let queue = lines.shared.lock();
        assert!(queue.is_done && queue.records.is_empty() && queue.dropped == 0);
    }
}
