//! The budget of memory for the large heads of unanswered requests: those beyond a connection's first piece.
//!
//! A head may be much larger than what is received at once, and a client may leave as many unfinished as it has
//! connections. A message of a TLS handshake is such a head too. So there is a budget for all of a worker, as there is one for bodies (`body`). Beyond it the oldest
//! request that has not arrived whole is refused; a whole one is refused only where there is none.

use std::time::Instant;

use super::connection::{Connection, HeadBytes, State};
use super::table::Table;
use crate::http::reject::{self, Reject};
use crate::net::stream::PIECE;

/// How many bytes the large heads of a worker may take together.
const HEAD_MEMORY: usize = 8 << 20;

/// Why a connection ends that holds messages of TLS.
const NO_MEMORY: &str = "there is no memory for more large messages of handshakes";

/// The large heads of unanswered requests.
#[derive(Debug, Default)]
pub(super) struct LargeHeads {
    /// How many bytes they take.
    used: usize,
    /// The connections that have one. Each takes more than a piece, so that there are few.
    tokens: Vec<u64>,
}

impl LargeHeads {
    /// The head of the connection `token` took `before` bytes and takes `size`; 0: it is not large, or there is none.
    pub(super) fn change(&mut self, token: u64, before: usize, size: usize) {
        self.used = self.used - before + size;
        match (before, size) {
            (0, 1..) => self.tokens.push(token),
            (1.., 0) => self.tokens.retain(|other| *other != token),
            _ => {}
        }
    }

    /// Whether they take more than they may.
    fn are_too_large(&self) -> bool {
        self.used > HEAD_MEMORY
    }
}

impl Table<'_> {
    /// Keeps the heads within their memory, after the connection `token` has received. `Err`: its whole request must be
    /// refused, since no other one can be.
    pub(super) fn bound_heads(&mut self, token: u64, now: Instant) -> Result<(), Reject> {
        let Self { connections, large_heads, .. } = self;
        let Some(connection) = connections.find(token) else { return Ok(()) };
        let size = size_of_head(connection);
        let before = std::mem::replace(&mut connection.granted.head_memory, size);
        large_heads.change(token, before, size);
        if size <= before {
            // A refused one, perhaps, for which the loop below goes on: not by a call within a call for each.
            return Ok(());
        }
        while self.large_heads.are_too_large() {
            match self.oldest_unfinished() {
                Some(oldest) if self.holds_messages(oldest) => self.close_holder(oldest, now),
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
            let is_unfinished = !matches!(connection.state, State::Ready { .. } | State::Flushing { .. });
            is_unfinished.then_some((connection.since, *token))
        });
        unfinished.min().map(|(_, token)| token)
    }

    /// Whether messages of TLS itself are a part of what it takes.
    fn holds_messages(&mut self, token: u64) -> bool {
        self.connections.find(token).is_some_and(|connection| connection.stream.held() >= PIECE)
    }

    /// Ends a connection that holds such messages: its handshake has not ended, or it has no use for them.
    fn close_holder(&mut self, token: u64, now: Instant) {
        if let Some(connection) = self.connections.find(token) {
            self.refusals.note_fault(connection.peer.remote, NO_MEMORY, now);
        }
        self.close(token);
    }
}

/// How much memory a connection's head takes, with messages of TLS; 0: no more than a piece, as any head.
fn size_of_head(connection: &Connection) -> usize {
    let (length, size) = match &connection.state {
        State::Head | State::Ready { head: HeadBytes::InPlace(_), .. } => {
            (connection.incoming.bytes().len(), connection.incoming.capacity())
        }
        State::Body { head: HeadBytes::Own(bytes), .. }
        | State::Ready { head: HeadBytes::Own(bytes), .. } => (bytes.len(), bytes.capacity()),
        _ => (0, 0),
    };
    let held = connection.stream.held();
    (if length >= PIECE { size } else { 0 }) + if held >= PIECE { held } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use super::*;
    use crate::engine::table::tests::{add_connection, with_table};

    /// As the spare thread's.
    const STACK: usize = 256 << 10;

    #[test]
    fn many_heads_are_refused_at_once_also_where_their_clients_take_no_answer() {
        let refuse = || {
            with_table(|table| {
                let now = Instant::now();
                let clients: Vec<_> = (0..200)
                    .map(|_| {
                        let (token, ours, client) = add_connection(table, now);
                        while (&ours).write(&[0; 4096]).map_err(|error| error.kind())
                            != Err(ErrorKind::WouldBlock)
                        {}
                        let connection = table.find(token).unwrap();
                        connection.state = State::Head;
                        connection.incoming.room(32 << 10).resize(PIECE, b'x');
                        table.bound_heads(token, now).unwrap();
                        client
                    })
                    .collect();
                let (token, _, _client) = add_connection(table, now + std::time::Duration::from_secs(1));
                let connection = table.find(token).unwrap();
                connection.state = State::Head;
                connection.incoming.room(7 << 20).resize(PIECE, b'x');
                table.bound_heads(token, now).unwrap();
                assert!(!table.large_heads.are_too_large());
                assert!(matches!(table.find(token).unwrap().state, State::Head));
                drop(clients);
            });
        };
        std::thread::Builder::new().stack_size(STACK).spawn(refuse).unwrap().join().unwrap();
    }
}
