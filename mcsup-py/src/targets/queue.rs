//! A bounded queue between the threads that log and the one that passes records to Python's `logging`.
//!
//! A handler may wait for a disk or a network, and it needs the interpreter. A thread of the engine that logs may hold
//! the engine's lock, so it must wait for neither.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::syslog::Severity;

/// The records that wait at most.
const LONGEST: usize = 4096;

/// The bytes of the records that wait at most. Clients choose the length of the fields of their requests.
const LARGEST: usize = 8 << 20;

/// No further record is taken together with others of this size.
const AT_ONCE: usize = 1 << 20;

/// The time after which a reader that is busy may never be done.
const STUCK: Duration = Duration::from_secs(5);

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

impl Entry {
    /// The memory that it takes, roughly.
    fn size(&self) -> usize {
        match self {
            Entry::Error { text, .. } => text.len(),
            Entry::Access { line, atoms, .. } => {
                let atom = |(name, value): &(String, Value)| {
                    let text = if let Value::Text(text) = value { text.len() } else { 0 };
                    size_of::<(String, Value)>() + name.len() + text
                };
                line.as_ref().map_or(0, String::len) + atoms.iter().map(atom).sum::<usize>()
            }
            Entry::Reopen | Entry::End => 0,
        }
    }
}

/// What both ends know.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    /// The size of the entries in the queue.
    bytes: AtomicUsize,
    /// Whether log files are to be opened again, where the queue has no room for an entry that says so.
    reopens: AtomicBool,
    /// Since when the reader is busy with entries that it has taken.
    busy: Mutex<Option<Instant>>,
}

impl Shared {
    fn set_busy(&self, since: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn busy_since(&self) -> Option<Instant> {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end.
#[derive(Debug, Clone)]
pub struct Queue {
    sender: SyncSender<Entry>,
    shared: Arc<Shared>,
}

impl Queue {
    /// An empty queue, and its reading end.
    pub fn new() -> (Self, Reader) {
        let (sender, receiver) = sync_channel(LONGEST);
        let shared = Arc::new(Shared::default());
        (Self { sender, shared: Arc::clone(&shared) }, Reader { receiver, shared })
    }

    /// Adds an entry, unless the queue is full: then it is lost, and counted. The first one of a loss is reported.
    ///
    /// `false`: it or earlier ones are lost.
    pub fn push(&self, entry: Entry) -> bool {
        let (size, bytes) = (entry.size(), &self.shared.bytes);
        // Others may add at the same time: whichever exceeds the bound takes its part back.
        let fits = bytes.fetch_add(size, Ordering::Relaxed) + size <= LARGEST;
        if !fits || self.sender.try_send(entry).is_err() {
            bytes.fetch_sub(size, Ordering::Relaxed);
            if self.shared.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                log::error!("Python's handlers are too slow: records of this process are lost");
            }
        }
        self.shared.lost.load(Ordering::Relaxed) == 0
    }

    /// Whether the reader has been busy with what it has taken for so long that it may never be done.
    pub fn is_stuck(&self) -> bool {
        self.shared.busy_since().is_some_and(|since| since.elapsed() > STUCK)
    }

    /// Whether the reader has passed all entries on.
    pub fn is_idle(&self) -> bool {
        self.shared.bytes.load(Ordering::Acquire) == 0 && self.shared.busy_since().is_none()
    }

    /// Has the reader open log files again: after the records in the queue, or before them if it is full.
    pub fn reopen(&self) {
        if self.sender.try_send(Entry::Reopen).is_err() {
            self.shared.reopens.store(true, Ordering::Release);
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Reader {
    receiver: Receiver<Entry>,
    shared: Arc<Shared>,
}

impl Reader {
    /// Waits for an entry, and takes up to `most` that are there; none if no writer is left.
    pub fn take(&self, most: usize) -> Vec<Entry> {
        self.shared.set_busy(None);
        let Ok(first) = self.receiver.recv() else { return Vec::new() };
        self.shared.set_busy(Some(Instant::now()));
        let mut bytes = first.size();
        let mut entries = vec![first];
        while entries.len() < most && bytes < AT_ONCE {
            let Ok(next) = self.receiver.try_recv() else { break };
            bytes += next.size();
            entries.push(next);
        }
        self.shared.bytes.fetch_sub(bytes, Ordering::Release);
        entries
    }

    /// Whether log files are to be opened again without an entry that says so, once.
    pub fn take_reopen(&self) -> bool {
        self.shared.reopens.swap(false, Ordering::Acquire)
    }

    /// The number of entries that were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_loses_entries_and_counts_them() {
        let (queue, reader) = Queue::new();
        let taken = (0..LONGEST + 7).filter(|_| queue.push(Entry::Reopen)).count();
        assert_eq!(taken, LONGEST);
        assert_eq!((reader.take_lost(), reader.take_lost()), (7, 0));
        assert_eq!(reader.take(100).len(), 100);
        drop(queue);
        assert_eq!(reader.take(LONGEST).len(), LONGEST - 100);
        assert!(reader.take(1).is_empty());
    }

    /// A request with a field of a length.
    fn request(length: usize) -> Entry {
        let atoms = vec![("{x-long}i".to_owned(), Value::Text(vec![b'x'; length]))];
        Entry::Access { line: None, atoms, time: SystemTime::now() }
    }

    #[test]
    fn large_records_fill_the_queue_by_their_bytes_and_leave_room_for_others_when_taken() {
        let (queue, reader) = Queue::new();
        (0..100).for_each(|_| {
            queue.push(request(800_000));
        });
        let lost = reader.take_lost();
        assert_eq!(lost, 90, "of 80 MB at most 8 MiB wait");
        assert!(reader.take(64).len() <= 2, "the reader takes as little at once");
        (0..100).for_each(|_| {
            queue.push(request(800_000));
        });
        assert_eq!(reader.take_lost(), 98);
        (0..1000).for_each(|_| {
            queue.push(request(100));
        });
        assert!(reader.take_lost() < 1000, "a small one fits beside them");
        while !reader.take(64).iter().any(|entry| entry.size() < 1000) {}
        (0..10).for_each(|_| {
            queue.push(request(700_000));
        });
        assert_eq!(reader.take_lost(), 0, "those that were taken do not count");
    }

    #[test]
    fn a_full_queue_loses_no_order_to_open_files_again() {
        let (queue, reader) = Queue::new();
        queue.reopen();
        assert!(matches!(reader.take(9)[..], [Entry::Reopen]) && !reader.take_reopen());
        (0..LONGEST).for_each(|_| {
            queue.push(request(1));
        });
        queue.reopen();
        assert_eq!((reader.take(1).len(), reader.take_lost()), (1, 0));
        assert!(reader.take_reopen() && !reader.take_reopen());
    }
}
