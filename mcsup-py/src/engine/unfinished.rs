//! The memory for heads: what those of unanswered requests may take beyond a connection's first piece.
//!
//! A head may be much larger than what is received at once, and a client may leave as many unfinished as it has
//! connections. So there is a budget for all of a worker, as there is one for bodies (`body`). Beyond it the oldest
//! request that has not arrived whole is refused; a whole one is refused only where there is none.

use super::connection::{Connection, HeadBytes, State};
use super::table::Table;
use crate::http::reject::{self, Reject};
use crate::net::stream::PIECE;

/// How many bytes the large heads of a worker may take together.
const HEAD_MEMORY: usize = 8 << 20;

/// The large heads of unanswered requests.
#[derive(Debug, Default)]
pub(super) struct LargeHeads {
    /// How many bytes they take.
    used: usize,
    /// The connections that have one. Each takes more than a piece, so that there are few.
    tokens: Vec<u64>,
}

impl LargeHeads {
    /// Notes how many bytes the head of a connection takes now.
    pub(super) fn note(&mut self, connection: &mut Connection) {
        let size = size_of_head(connection);
        let before = std::mem::replace(&mut connection.head_memory, size);
        self.used = self.used - before + size;
        match (before, size) {
            (0, 1..) => self.tokens.push(connection.token),
            (1.., 0) => self.tokens.retain(|token| *token != connection.token),
            _ => {}
        }
    }

    /// The connection no longer has a request.
    pub(super) fn forget(&mut self, connection: &mut Connection) {
        if connection.head_memory > 0 {
            self.used -= std::mem::take(&mut connection.head_memory);
            self.tokens.retain(|token| *token != connection.token);
        }
    }
}

impl Table<'_> {
    /// Keeps the heads within their memory, after the connection `token` has received. `Err`: its whole request must be
    /// refused, since no other one can be.
    pub(super) fn bound_heads(&mut self, token: u64, now: std::time::Instant) -> Result<(), Reject> {
        let Self { connections, large_heads, .. } = self;
        let Some(connection) = connections.find(token) else { return Ok(()) };
        large_heads.note(connection);
        while self.large_heads.used > HEAD_MEMORY {
            match self.oldest_unfinished() {
                Some(oldest) => self.refuse(oldest, reject::HEAD_MEMORY, now),
                None => return Err(reject::HEAD_MEMORY),
            }
        }
        Ok(())
    }

    /// The connection that has received the same large head for the longest time.
    fn oldest_unfinished(&mut self) -> Option<u64> {
        let Self { connections, large_heads, .. } = self;
        let unfinished = large_heads.tokens.iter().filter_map(|token| {
            let connection = connections.find(*token)?;
            let is_unfinished = matches!(connection.state, State::Head | State::Body { .. });
            is_unfinished.then_some((connection.since, *token))
        });
        unfinished.min().map(|(_, token)| token)
    }
}

/// How much memory a connection's head takes; 0: no more than a piece, as any head.
fn size_of_head(connection: &Connection) -> usize {
    let (length, size) = match &connection.state {
        State::Head | State::Ready { head: HeadBytes::InPlace(_), .. } => {
            (connection.incoming.bytes().len(), connection.incoming.capacity())
        }
        State::Body { head: HeadBytes::Own(bytes), .. }
        | State::Ready { head: HeadBytes::Own(bytes), .. } => (bytes.len(), bytes.capacity()),
        _ => (0, 0),
    };
    if length >= PIECE { size } else { 0 }
}
