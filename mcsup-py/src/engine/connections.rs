//! The table of open connections, and their tokens.

use std::sync::Arc;

use slab::Slab;

use super::connection::Connection;
use crate::net::poller::Ready;
use crate::net::stream::Stream;

/// Tokens of other sources. The token of a connection is a serial number above its place in the table, so that an event of
/// one that has ended is not taken for one of its successor.
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
struct Place {
    token: u64,
    connection: Option<Box<Connection>>,
    /// The stream of a connection that is taken out.
    stream: Option<Arc<Stream>>,
    missed: Missed,
}

/// Events of a connection while a thread had taken it out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Missed {
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
        let connection = Some(Box::new(make(token)));
        entry.insert(Place { token, connection, stream: None, missed: Missed::default() });
        token
    }

    fn place(&mut self, token: u64) -> Option<&mut Place> {
        self.slab.get_mut(place_of(token)).filter(|place| place.token == token)
    }

    /// The connection, if it is here.
    pub(super) fn find(&mut self, token: u64) -> Option<&mut Connection> {
        self.place(token)?.connection.as_deref_mut()
    }

    /// Takes the connection out, to be answered or to have a turn; its place stays.
    pub(super) fn take(&mut self, token: u64) -> Option<Box<Connection>> {
        let place = self.place(token)?;
        let connection = place.connection.take()?;
        place.stream = Some(Arc::clone(&connection.stream));
        Some(connection)
    }

    /// The stream of a connection that is taken out.
    pub(super) fn stream_of(&mut self, token: u64) -> Option<&Stream> {
        self.place(token)?.stream.as_deref()
    }

    /// Puts it back; returns what it has missed.
    pub(super) fn put_back(&mut self, connection: Box<Connection>) -> Missed {
        let Some(place) = self.place(connection.token) else { return Missed::default() };
        (place.connection, place.stream) = (Some(connection), None);
        std::mem::take(&mut place.missed)
    }

    /// Notes an event of a connection that is taken out.
    pub(super) fn note(&mut self, event: Ready) {
        if let Some(Place { connection: None, missed, .. }) = self.place(event.token) {
            missed.readable |= event.readable;
            missed.writable |= event.writable;
            missed.ended |= event.ended;
        }
    }

    /// Notes the timer of a connection that is taken out.
    pub(super) fn note_timer(&mut self, token: u64) {
        if let Some(Place { connection: None, missed, .. }) = self.place(token) {
            missed.timer = true;
        }
    }

    /// Ends a connection that is here. The poller forgets a descriptor that is closed.
    pub(super) fn remove(&mut self, token: u64) -> Option<Box<Connection>> {
        self.find(token)?;
        self.slab.remove(place_of(token)).connection
    }

    /// Whether it is here or taken out.
    pub(super) fn has(&self, token: u64) -> bool {
        self.slab.get(place_of(token)).is_some_and(|place| place.token == token)
    }

    /// How many there are, here and taken out.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Those that are here.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().filter_map(|(_, place)| place.connection.as_deref())
    }
}

/// Below [`LISTENERS`] for the first two thousand million connections; then serial numbers start again.
fn token_of(serial: u64, place: usize) -> u64 {
    (serial & 0x7fff_ffff) << PLACE_BITS | (place as u64 & ((1 << PLACE_BITS) - 1))
}

fn place_of(token: u64) -> usize {
    usize::try_from(token & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}
