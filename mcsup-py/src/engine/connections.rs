//! The table of open connections, and their tokens.

use std::sync::Arc;

use slab::Slab;

use super::connection::Connection;
use crate::net::poller::Ready;
use crate::net::stream::Stream;

/// Tokens of other sources. The token of a connection is a serial number above its place in the table, so that news of
/// one that has ended is not taken for news of its successor.
pub(super) const HOST_WAKE: u64 = u64::MAX;
pub(super) const WAKER: u64 = u64::MAX - 1;
pub(super) const LISTENERS: u64 = u64::MAX - 1024;
const PLACE_BITS: u32 = 32;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slab: Slab<Place>,
    serial: u64,
}

/// A connection, or its place while a thread has taken it out.
#[derive(Debug)]
enum Place {
    Here(Box<Connection>),
    /// Its stream stays within reach.
    Away(Arc<Stream>, Missed),
}

/// Events of a connection while a thread had taken it out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Missed {
    token: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) ended: bool,
    /// Its timer came.
    pub(super) timer: bool,
}

impl Connections {
    /// Makes room for a connection that knows its own token.
    pub(super) fn add(&mut self, make: impl FnOnce(u64) -> Connection) -> u64 {
        self.serial += 1;
        let entry = self.slab.vacant_entry();
        let token = token_of(self.serial, entry.key());
        entry.insert(Place::Here(Box::new(make(token))));
        token
    }

    /// The connection, if it is here.
    pub(super) fn find(&mut self, token: u64) -> Option<&mut Connection> {
        match self.slab.get_mut(place_of(token)) {
            Some(Place::Here(connection)) if connection.token == token => Some(connection),
            _ => None,
        }
    }

    /// Takes the connection out, to be answered or to have a turn; its place stays.
    pub(super) fn take(&mut self, token: u64) -> Option<Box<Connection>> {
        let stream = Arc::clone(&self.find(token)?.stream);
        let away = Place::Away(stream, Missed { token, ..Missed::default() });
        match std::mem::replace(self.slab.get_mut(place_of(token))?, away) {
            Place::Here(connection) => Some(connection),
            Place::Away(..) => None,
        }
    }

    /// The stream of a connection that is away.
    pub(super) fn stream_of(&self, token: u64) -> Option<&Stream> {
        match self.slab.get(place_of(token)) {
            Some(Place::Away(stream, missed)) if missed.token == token => Some(stream),
            _ => None,
        }
    }

    /// Puts it back; returns what it has missed.
    pub(super) fn put_back(&mut self, connection: Box<Connection>) -> Missed {
        let Some(place) = self.slab.get_mut(place_of(connection.token)) else { return Missed::default() };
        match std::mem::replace(place, Place::Here(connection)) {
            Place::Away(_, missed) => missed,
            Place::Here(_) => Missed::default(),
        }
    }

    /// Notes news of a connection that is away.
    pub(super) fn note(&mut self, news: Ready) {
        if let Some(missed) = self.missed(news.token) {
            missed.readable |= news.readable;
            missed.writable |= news.writable;
            missed.ended |= news.ended;
        }
    }

    /// Notes the timer of a connection that is away.
    pub(super) fn note_timer(&mut self, token: u64) {
        if let Some(missed) = self.missed(token) {
            missed.timer = true;
        }
    }

    /// Ends a connection. The poller forgets a descriptor that is closed.
    pub(super) fn remove(&mut self, token: u64) -> Option<Box<Connection>> {
        self.find(token)?;
        match self.slab.remove(place_of(token)) {
            Place::Here(connection) => Some(connection),
            Place::Away(..) => None,
        }
    }

    /// Whether it is here or away.
    pub(super) fn has(&self, token: u64) -> bool {
        match self.slab.get(place_of(token)) {
            Some(Place::Here(connection)) => connection.token == token,
            Some(Place::Away(_, missed)) => missed.token == token,
            None => false,
        }
    }

    /// How many there are, here and away.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Those that are here.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().filter_map(|(_, place)| match place {
            Place::Here(connection) => Some(&**connection),
            Place::Away(..) => None,
        })
    }

    /// The tokens of those that are here.
    pub(super) fn tokens(&self) -> Vec<u64> {
        self.iter().map(|connection| connection.token).collect()
    }

    fn missed(&mut self, token: u64) -> Option<&mut Missed> {
        match self.slab.get_mut(place_of(token)) {
            Some(Place::Away(_, missed)) if missed.token == token => Some(missed),
            _ => None,
        }
    }
}

/// Below [`LISTENERS`] for the first two thousand million connections; then serial numbers start again.
fn token_of(serial: u64, place: usize) -> u64 {
    (serial & 0x7fff_ffff) << PLACE_BITS | (place as u64 & ((1 << PLACE_BITS) - 1))
}

fn place_of(token: u64) -> usize {
    usize::try_from(token & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}
