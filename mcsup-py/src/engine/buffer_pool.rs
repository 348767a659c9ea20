//! The pool of buffers of connections: an idle connection has none, and a busy worker reuses a few warm ones.

use super::connection::Connection;
use crate::http::head::Heads;
use crate::net::buffer::{Incoming, Outgoing};

/// Largest number of kept buffers: only bursts use more at once.
const MOST: usize = 64;

/// Empty buffers.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    incoming: Vec<(Incoming, Heads)>,
    outgoing: Vec<Outgoing>,
}

impl BufferPool {
    /// Gives a connection what it receives with, if it has nothing and is about to. One that has a head already keeps it:
    /// where its fields are is in what would be replaced.
    pub(super) fn give_for_request(&mut self, connection: &mut Connection) {
        if connection.incoming.is_bare() && !connection.has_head() && connection.may_receive() {
            if let Some(tools) = self.incoming.pop() {
                (connection.incoming, connection.heads) = tools;
            }
        }
    }

    /// Gives a connection what it answers with.
    pub(super) fn give_for_answer(&mut self, connection: &mut Connection) {
        if let (true, Some(outgoing)) = (connection.outgoing.is_bare(), self.outgoing.pop()) {
            connection.outgoing = outgoing;
        }
    }

    /// Takes it back from a connection that waits for its next request.
    pub(super) fn put_back_from(&mut self, connection: &mut Connection) {
        if connection.is_at_rest() {
            self.take_back(connection);
        }
    }

    /// Takes it back from a connection that is over.
    pub(super) fn take_back(&mut self, connection: &mut Connection) {
        let (mut incoming, mut heads) =
            (std::mem::take(&mut connection.incoming), std::mem::take(&mut connection.heads));
        incoming.clear();
        incoming.release();
        heads.reset();
        if self.incoming.len() < MOST && !incoming.is_bare() {
            self.incoming.push((incoming, heads));
        }
        let mut outgoing = std::mem::take(&mut connection.outgoing);
        outgoing.clear();
        outgoing.release();
        if self.outgoing.len() < MOST && !outgoing.is_bare() {
            self.outgoing.push(outgoing);
        }
    }
}
