//! A bounded queue between the threads that log and the one that passes records to Python's `logging`.
//!
//! A handler may wait for a disk or a network, and it needs the interpreter. A thread of the engine that logs may hold
//! the engine's lock, so it must wait for neither.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use super::syslog::Severity;

/// The records that wait at most.
const LONGEST: usize = 4096;

/// An entry of the queue.
#[derive(Debug)]
pub enum Entry {
    /// A record of the error log.
    Error {
        /// Its importance.
        severity: Severity,
        /// Its text.
        text: String,
        /// When it was logged.
        time: SystemTime,
    },
    /// A record of the access log.
    Access {
        /// The line, if the format is JSON.
        line: Option<String>,
        /// The value of each atom, by its name.
        atoms: Vec<(String, Value)>,
        /// When it was logged.
        time: SystemTime,
    },
    /// Log files are to be opened again.
    Reopen,
    /// No further entry follows.
    End,
}

/// The value of an atom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes, as they came.
    Text(Vec<u8>),
    /// A number.
    Number(u64),
}

/// The writing end.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Queue {
    /// An empty queue, and its reading end.
    pub fn new() -> (Self, Reader) {
        let (sender, receiver) = sync_channel(LONGEST);
        let lost = Arc::new(AtomicU64::new(0));
        (Self { sender, lost: Arc::clone(&lost) }, Reader { receiver, lost })
    }

    /// Adds an entry, unless the queue is full: then it is lost, and counted.
    pub fn push(&self, entry: Entry) {
        if self.sender.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Reader {
    receiver: Receiver<Entry>,
    lost: Arc<AtomicU64>,
}

impl Reader {
    /// Waits for an entry, and takes up to `most` that are there; none if no writer is left.
    pub fn take(&self, most: usize) -> Vec<Entry> {
        let Ok(first) = self.receiver.recv() else { return Vec::new() };
        let mut entries = vec![first];
        entries.extend(self.receiver.try_iter().take(most.saturating_sub(1)));
        entries
    }

    /// The number of entries that were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_entries_and_counts_them() {
        let (queue, reader) = Queue::new();
        (0..LONGEST + 7).for_each(|_| queue.push(Entry::Reopen));
        assert_eq!((reader.take_lost(), reader.take_lost()), (7, 0));
        assert_eq!(reader.take(100).len(), 100);
        drop(queue);
        assert_eq!(reader.take(LONGEST).len(), LONGEST - 100);
        assert!(reader.take(1).is_empty());
    }
}
