//! One turn: what it may cost, and what waits for one. How turns go is in `turns`.

use std::fs::File;
use std::sync::Arc;

/// The cost limit of a turn, in bytes received or written to a file. About a tenth of a millisecond.
const TURN: usize = 256 * 1024;
/// How much may be sent in one turn: an answer of a mebibyte, which in four pieces costs a tenth more. About a fifth of a
/// millisecond.
pub(super) const MOST_SENT: usize = (1 << 20) + 64 * 1024;

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

/// An entry of the queue of turns.
#[derive(Debug)]
pub(super) enum Queued {
    /// The connection with this token.
    Connection(u64),
    /// A file that is to be given back.
    File(Arc<File>),
}
