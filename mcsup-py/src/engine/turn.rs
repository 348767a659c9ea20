//! One turn: what it may cost, and the work without the lock. The queues are in `turns`.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use super::EngineConfig;
use super::connection::{Connection, Step};

/// The cost limit of a turn, in bytes received or written to a file. About a tenth of a millisecond.
const TURN: usize = 256 * 1024;
/// How much may be sent in one turn: an answer of a mebibyte, which in four pieces costs a tenth more. About a fifth of a
/// millisecond.
pub(super) const MOST_SENT: usize = (1 << 20) + 64 * 1024;

/// The number of bytes of a file that are given back in one turn.
const GIVEN_BACK: u64 = 4 << 20;

/// The rest of one connection's turn.
#[derive(Debug)]
pub(super) struct Turn {
    left: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self { left: TURN }
    }
}

impl Turn {
    pub(super) fn of(left: usize) -> Self {
        Self { left }
    }

    /// Something was done that costs as much as `bytes` bytes.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// Work for one turn without the lock.
#[derive(Debug)]
pub(super) enum Work {
    /// A connection, and what came of its turn.
    Connection(Box<Connection>, Step),
    /// A file; `None`: it has been given back.
    File(Option<Arc<File>>),
}

impl Work {
    /// Goes on with it for one turn, and keeps what came of it.
    pub(super) fn take_turn(&mut self, config: &EngineConfig, now: Instant) {
        match self {
            Work::Connection(connection, step) => *step = connection.take_turn(config, now),
            Work::File(file) => *file = file.take().and_then(give_back),
        }
    }
}

/// Shortens a file. `None`: it is gone, or an application has kept it.
fn give_back(mut file: Arc<File>) -> Option<Arc<File>> {
    let length = Arc::get_mut(&mut file)?.metadata().ok()?.len();
    let left = length.checked_sub(GIVEN_BACK).filter(|left| *left > 0)?;
    file.set_len(left).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_given_back_in_turns_unless_an_application_has_kept_it() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(3 * GIVEN_BACK).unwrap();
        let kept = Arc::clone(&file);
        assert!(give_back(file).is_none());
        assert_eq!(kept.metadata().unwrap().len(), 3 * GIVEN_BACK);
        let file = give_back(give_back(kept).unwrap()).unwrap();
        assert_eq!(file.metadata().unwrap().len(), GIVEN_BACK);
        assert!(give_back(file).is_none());
    }
}
