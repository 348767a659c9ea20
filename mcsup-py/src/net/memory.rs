//! Memory for large messages that is used again while it is warm. Memory that is new to the process is filled with zeros
//! by the kernel page by page, which costs more than to receive what belongs there.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Bytes that own their memory. On drop a large one goes back to where it came from.
#[derive(Default)]
pub struct Memory {
    bytes: Vec<u8>,
    origin: Option<Arc<MemoryPool>>,
}

impl Memory {
    /// The bytes, to append to.
    pub(crate) fn append(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, origin: None }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            origin.put(std::mem::take(&mut self.bytes), Instant::now());
        }
    }
}

/// Large pieces of memory that are not in use.
#[derive(Debug, Default)]
pub(crate) struct MemoryPool(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    /// The one that was used last is the last.
    pieces: VecDeque<Vec<u8>>,
    used: Option<Instant>,
}

/// No more pieces are kept: they shall be warm.
const MOST: usize = 8;
/// A piece may be larger than needed by no more than this.
const EXCESS: usize = 64 * 1024;
/// Memory that was not used for this long is given back.
const WARM: Duration = Duration::from_secs(1);

impl MemoryPool {
    /// Memory for `length` bytes, and little more; empty.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Memory {
        let fits = |piece: &Vec<u8>| (length..=length.saturating_add(EXCESS)).contains(&piece.capacity());
        let mut pool = self.lock();
        let found = pool.pieces.iter().rposition(fits).and_then(|at| pool.pieces.remove(at));
        drop(pool);
        let bytes = found.unwrap_or_else(|| Vec::with_capacity(length));
        Memory { bytes, origin: Some(Arc::clone(self)) }
    }

    fn put(&self, mut piece: Vec<u8>, now: Instant) {
        piece.clear();
        // A process that the application forks may have a copy of a lock that another thread held.
        let mut pool = match self.0.try_lock() {
            Ok(pool) => pool,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        pool.used = Some(now);
        pool.pieces.push_back(piece);
        let excess = if pool.pieces.len() > MOST { pool.pieces.pop_front() } else { None };
        drop(pool);
        drop(excess);
    }

    /// Gives back what was not used for a while.
    pub(crate) fn tidy(&self, now: Instant) {
        let mut pool = self.lock();
        if pool.used.is_some_and(|used| now.saturating_duration_since(used) > WARM) {
            let pieces = std::mem::take(&mut *pool);
            drop(pool);
            drop(pieces);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacities(pool: &MemoryPool) -> Vec<usize> {
        pool.lock().pieces.iter().map(Vec::capacity).collect()
    }

    #[test]
    fn memory_is_used_again_where_it_fits() {
        let pool = Arc::new(MemoryPool::default());
        let mut memory = pool.take(1 << 20);
        memory.append().extend_from_slice(b"abc");
        let place = memory.as_ptr();
        drop(memory);
        for other in [2 << 20, 1 << 19] {
            assert_ne!(pool.take(other).as_ptr(), place);
        }
        let again = pool.take((1 << 20) - 1000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn no_more_is_kept_than_is_warm_and_nothing_for_long() {
        let pool = Arc::new(MemoryPool::default());
        drop((1..=20).map(|count| pool.take(count << 20)).collect::<Vec<_>>());
        assert_eq!(capacities(&pool), (13..=20).map(|count| count << 20).collect::<Vec<_>>());
        let now = Instant::now();
        pool.tidy(now);
        assert_eq!(capacities(&pool).len(), MOST);
        pool.tidy(now + WARM * 2);
        assert_eq!(capacities(&pool).len(), 0);
    }
}
