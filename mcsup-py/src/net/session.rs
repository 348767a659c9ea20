//! A TLS session on a non-blocking socket. It never waits.
//!
//! A session costs nothing before its client has sent a byte. Plaintext that is in encrypted records counts as sent only
//! when all of these records are in the socket: until then the caller's [`Outgoing`] keeps it, so that "nothing is left"
//! means the same as without TLS. The caller's next attempt begins with the same bytes.

mod plain;

use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ProtocolVersion::TLSv1_2;
use rustls::ServerConnection;

use super::buffer::{Incoming, Outgoing, Tail};
use super::records::Received;
use super::stream::{Progress, up_to};
use crate::tls::{Secured, TlsServer};
use plain::{Socket, read_part, receive};

/// How much is received at once: a record of the largest size (RFC 8446 §5.2).
const RECORD: usize = 16 * 1024 + 256 + 5;
/// How many bytes of records are decrypted at once: their content may be a few bytes, and the rest padding.
const DECRYPTED: usize = 2 * RECORD;
/// Why a handshake fails whose certificate cannot be described: an application decides by its names.
const NOT_DESCRIBED: &str = "the certificate of the client has a malformed name";
/// Why a handshake fails of a client that is too old, and the alert (protocol_version, RFC 5246 §7.2.2).
const TOO_OLD: &str = "the client speaks TLS 1.1 or older";
const PROTOCOL_VERSION: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];
/// Why a connection ends whose client sends records without content, and hardly any others.
const CONTENTLESS: &str = "too many records without content";
/// How much plaintext is encrypted at once: four records.
const BATCH: usize = 64 * 1024;
/// The longest plaintext of a record (RFC 8446 §5.1).
const LONGEST: usize = 16 * 1024;
/// How many records the keys of a connection by TLS 1.2 may encrypt, as the library has it for AES-GCM (RFC 8446 §5.5). Keys
/// of TLS 1.3 are changed in time.
const MOST_RECORDS: u64 = 1 << 24;

/// One side of a connection by TLS. Two threads may use it: one receives or sends, and another one sends an answer that was
/// delayed.
#[derive(Debug)]
pub(super) struct Tls {
    session: Mutex<Session>,
    /// See [`Tls::held`].
    held: AtomicUsize,
}

#[derive(Debug)]
enum Session {
    /// Nothing was received.
    Waiting(TlsServer),
    Open(Box<Open>),
    /// There is none: the client has begun without TLS, or the handshake has failed.
    Plain,
}

#[derive(Debug)]
struct Open {
    connection: ServerConnection,
    /// Received, and not decrypted.
    raw: Incoming,
    /// The number of plaintext bytes that are in records, and not consumed.
    sealed: usize,
    received: Received,
    /// How many records with plaintext were made.
    records: u64,
    /// Nothing more is sent or received.
    is_broken: bool,
    /// Why the client is at fault for that.
    fault: Option<String>,
}

/// The result of a step of the handshake.
#[derive(Debug)]
pub(crate) enum Shaken {
    /// It has succeeded.
    Done(Secured),
    /// The client has to send or to receive. `begun`: it has sent something.
    Blocked { begun: bool },
    /// The client speaks HTTP without TLS: the bytes that it has sent are in the buffer, and it is answered without TLS.
    Plain,
    /// It has failed, for this reason; the client got an alert.
    Failed(String),
    /// The client is gone.
    Ended,
}

/// The result of an attempt to receive records.
enum Pulled {
    /// This number of bytes.
    Some(usize),
    Blocked,
    Ended,
}

impl Tls {
    pub(super) fn new(server: TlsServer) -> Self {
        Self { session: Mutex::new(Session::Waiting(server)), held: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes of incomplete messages of TLS itself are kept, at most.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Why the connection has ended behind its handshake, if its client is at fault. Once.
    pub(super) fn take_fault(&self) -> Option<String> {
        match &mut *self.lock() {
            Session::Open(open) => open.fault.take(),
            Session::Waiting(_) | Session::Plain => None,
        }
    }

    /// There will be no TLS.
    pub(super) fn give_up(&self) {
        *self.lock() = Session::Plain;
    }

    /// Goes on with the handshake as far as the client's bytes allow.
    pub(super) fn shake_hands(&self, socket: BorrowedFd<'_>, into: &mut Incoming) -> Shaken {
        let mut session = self.lock();
        if let Session::Waiting(server) = &*session {
            let mut raw = Incoming::default();
            match receive(socket, raw.room(RECORD)) {
                Ok(0) => return Shaken::Ended,
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Shaken::Blocked { begun: false },
                Err(_) => return Shaken::Ended,
            }
            if raw.bytes().first().is_some_and(u8::is_ascii_uppercase) {
                into.room(raw.bytes().len()).extend_from_slice(raw.bytes());
                *session = Session::Plain;
                return Shaken::Plain;
            }
            if speaks_old_tls(raw.bytes()) {
                let _ = Socket(socket).write(&PROTOCOL_VERSION);
                *session = Session::Plain;
                return Shaken::Failed(TOO_OLD.to_owned());
            }
            match ServerConnection::new(Arc::clone(&server.0)) {
                Ok(mut connection) => {
                    // What is sealed is bounded by `BATCH`.
                    connection.set_buffer_limit(None);
                    let open = Open::new(connection, raw);
                    *session = Session::Open(Box::new(open));
                }
                Err(error) => return Shaken::Failed(error.to_string()),
            }
        }
        let Session::Open(open) = &mut *session else { return Shaken::Ended };
        let shaken = open.shake_hands(socket);
        self.held.store(open.received.held(), Ordering::Relaxed);
        if let Shaken::Failed(_) = shaken {
            // What the client still sends is discarded, and not decrypted.
            *session = Session::Plain;
        }
        shaken
    }

    /// Receives what is there, up to the spare capacity of `into`. `None`: not by TLS.
    pub(super) fn receive(&self, socket: BorrowedFd<'_>, into: &mut Vec<u8>) -> Option<Progress> {
        match &mut *self.lock() {
            Session::Open(open) => {
                let progress = open.receive(socket, into);
                self.held.store(open.received.held(), Ordering::Relaxed);
                Some(progress)
            }
            Session::Waiting(_) => Some(Progress::Blocked(0)),
            Session::Plain => None,
        }
    }

    /// Sends as much of `from` as the socket takes, and hardly more than `most` bytes. `None`: not by TLS.
    pub(super) fn send(&self, socket: BorrowedFd<'_>, from: &mut Outgoing, most: usize) -> Option<Progress> {
        match &mut *self.lock() {
            Session::Open(open) => Some(open.send(socket, from, most)),
            Session::Waiting(_) => Some(Progress::Ended),
            Session::Plain => None,
        }
    }

    /// Sends a few bytes; whether the socket took them. `None`: not by TLS.
    pub(super) fn send_now(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Option<bool> {
        match &mut *self.lock() {
            Session::Open(open) => Some(open.send_now(socket, bytes)),
            Session::Waiting(_) => Some(false),
            Session::Plain => None,
        }
    }

    /// Whether bytes wait that are not in the socket any more.
    pub(super) fn has_received(&self) -> bool {
        match &mut *self.lock() {
            Session::Open(open) => open.has_received(),
            Session::Waiting(_) | Session::Plain => false,
        }
    }

    /// Whether the keys suffice for another answer of usual length.
    pub(super) fn may_go_on(&self) -> bool {
        match &*self.lock() {
            Session::Open(open) => open.may_make(MOST_RECORDS / 2),
            Session::Waiting(_) | Session::Plain => true,
        }
    }

    /// Says that nothing more will be sent (close_notify, RFC 8446 §6.1): without that the client cannot take what it has
    /// for the whole.
    pub(super) fn say_goodbye(&self, socket: BorrowedFd<'_>) {
        if let Session::Open(open) = &mut *self.lock() {
            if !open.is_broken {
                open.connection.send_close_notify();
                let _ = open.flush(socket, &mut false);
            }
        }
    }

    /// The end will not be said.
    pub(super) fn abort(&self) {
        if let Session::Open(open) = &mut *self.lock() {
            open.is_broken = true;
        }
    }
}

impl Open {
    fn new(connection: ServerConnection, raw: Incoming) -> Self {
        Self {
            connection,
            raw,
            sealed: 0,
            received: Received::default(),
            records: 0,
            is_broken: false,
            fault: None,
        }
    }

    /// Whether its keys may encrypt this number of further records.
    fn may_make(&self, records: u64) -> bool {
        self.records + records <= MOST_RECORDS || self.connection.protocol_version() != Some(TLSv1_2)
    }

    fn shake_hands(&mut self, socket: BorrowedFd<'_>) -> Shaken {
        let mut is_empty = false;
        loop {
            match self.flush(socket, &mut false) {
                Ok(true) => {}
                Ok(false) => return Shaken::Blocked { begun: true },
                Err(_) => return Shaken::Ended,
            }
            if !self.connection.is_handshaking() {
                return Secured::of(&self.connection)
                    .map_or_else(|| Shaken::Failed(NOT_DESCRIBED.to_owned()), Shaken::Done);
            }
            match self.pull(socket, &mut is_empty) {
                Ok(Pulled::Some(_)) => {}
                Ok(Pulled::Blocked) => return Shaken::Blocked { begun: true },
                Ok(Pulled::Ended) => return Shaken::Ended,
                Err(error) => return Shaken::Failed(error.to_string()),
            }
        }
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, into: &mut Vec<u8>) -> Progress {
        let most = into.capacity() - into.len();
        let (mut count, mut decrypted, mut is_empty) = (0, 0, false);
        let ended = |count| if count > 0 { Progress::More(count) } else { Progress::Ended };
        loop {
            if count == most {
                return Progress::More(count);
            }
            match self.take_decrypted(into, most - count) {
                Ok(0) => return ended(count),
                Ok(taken) => {
                    count += taken;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return ended(count),
            }
            if decrypted >= DECRYPTED {
                return Progress::More(count);
            }
            match self.pull(socket, &mut is_empty) {
                Ok(Pulled::Some(bytes)) => decrypted += bytes,
                Ok(Pulled::Blocked) => return Progress::Blocked(count),
                Ok(Pulled::Ended) | Err(_) => return ended(count),
            }
        }
    }

    /// `Ok(0)`: the client has said that no more will come.
    fn take_decrypted(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let mut reader = self.connection.reader();
        let bytes = up_to(most, reader.fill_buf()?);
        into.extend_from_slice(bytes);
        let count = bytes.len();
        reader.consume(count);
        Ok(count)
    }

    /// Receives and decrypts some records. `is_empty`: a short read has emptied the socket (epoll(7)).
    fn pull(&mut self, socket: BorrowedFd<'_>, is_empty: &mut bool) -> Result<Pulled, rustls::Error> {
        if self.is_broken {
            return Ok(Pulled::Ended);
        }
        if self.raw.is_empty() {
            let received = if *is_empty {
                Err(rustix::io::Errno::AGAIN)
            } else {
                receive(socket, self.raw.room(RECORD))
            };
            match received {
                Ok(0) => return Ok(Pulled::Ended),
                Ok(count) => *is_empty = count < RECORD,
                Err(rustix::io::Errno::AGAIN) => {
                    // An idle connection has no buffer.
                    self.raw = Incoming::default();
                    return Ok(Pulled::Blocked);
                }
                Err(_) => return Ok(Pulled::Ended),
            }
        }
        let was_shaking_hands = self.connection.is_handshaking();
        let mut rest = self.raw.bytes();
        let before = rest.len();
        let read = self.connection.read_tls(&mut rest);
        let count = before - rest.len();
        let whole = self.received.whole_in(&self.raw.bytes()[..count]);
        self.raw.consume(count);
        let processed = match read {
            Ok(_) => self.connection.process_new_packets().map(|state| state.plaintext_bytes_to_read()),
            Err(error) => Err(rustls::Error::General(error.to_string())),
        };
        // Answers of the protocol itself, and the alert with the reason.
        let _ = self.flush(socket, &mut false);
        match &processed {
            Ok(_) if was_shaking_hands => {
                self.received.note_of_handshake(count, !self.connection.is_handshaking());
            }
            Ok(content) if self.received.are_too_many(count, whole, *content) => {
                self.break_off(CONTENTLESS.to_owned());
            }
            Ok(_) => {}
            // Its end is no fault.
            Err(rustls::Error::AlertReceived(_)) => self.is_broken = true,
            Err(error) => self.break_off(error.to_string()),
        }
        processed.map(|_| Pulled::Some(count))
    }

    fn break_off(&mut self, fault: String) {
        (self.is_broken, self.fault) = (true, Some(fault));
    }

    /// Sends the records that wait; whether all have left. `has_moved`: some have.
    fn flush(&mut self, socket: BorrowedFd<'_>, has_moved: &mut bool) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => *has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn send(&mut self, socket: BorrowedFd<'_>, from: &mut Outgoing, most: usize) -> Progress {
        let (mut sent, mut has_moved) = (0, false);
        loop {
            match self.flush(socket, &mut has_moved) {
                Ok(true) => {}
                // A client that takes records slowly makes progress, although none of the plaintext counts yet.
                Ok(false) => return Progress::Blocked(sent.max(usize::from(has_moved))),
                Err(_) => return Progress::Ended,
            }
            let sealed = std::mem::take(&mut self.sealed);
            from.consume(sealed);
            sent += sealed;
            if from.is_empty() || sent >= most {
                return Progress::More(sent);
            }
            match self.seal(from, BATCH.min(most - sent)) {
                Ok(count) => self.sealed = count,
                Err(_) => return Progress::Ended,
            }
        }
    }

    /// Encrypts the first bytes of `from`; returns how many.
    fn seal(&mut self, from: &Outgoing, most: usize) -> io::Result<usize> {
        // The library would report what it does not encrypt as sent.
        if self.is_broken || !self.may_make(2 * (BATCH / LONGEST) as u64) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes = up_to(most, from.bytes());
        let left = most - bytes.len();
        let read;
        let tail = match from.tail() {
            Some(Tail::Block(part)) => up_to(left, part.bytes()),
            Some(Tail::File(part)) if left > 0 => {
                read = read_part(part, left)?;
                &read
            }
            _ => &[],
        };
        self.records += (bytes.len() + tail.len()).div_ceil(LONGEST) as u64;
        self.connection.writer().write_vectored(&[IoSlice::new(bytes), IoSlice::new(tail)])
    }

    fn send_now(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> bool {
        self.records += 1;
        !self.is_broken
            && self.connection.writer().write_all(bytes).is_ok()
            && self.flush(socket, &mut false).unwrap_or(false)
    }

    fn has_received(&mut self) -> bool {
        !self.raw.is_empty() || self.connection.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }
}

/// Whether a ClientHello is of TLS 1.1 or older. With an extension `supported_versions` its own version does not count (RFC 8446
/// §4.2.1).
fn speaks_old_tls(hello: &[u8]) -> bool {
    let is_hello = matches!(hello, [22, _, _, _, _, 1, ..]);
    let is_old = hello.get(9..11).is_some_and(|version| *version < [3, 3][..]);
    is_hello && is_old && memchr::memmem::find(hello, &[0, 43]).is_none()
}

#[cfg(test)]
mod tests;
