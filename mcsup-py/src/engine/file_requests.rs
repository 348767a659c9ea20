//! Requests for files of the folders that the engine serves itself: without the application and without a permit.
//!
//! The leading thread sees by the path that a request may be one. The look at the disk is a turn of the spare, since it
//! may wait. Where there is no file the request goes the ordinary way, to the application.

use std::time::Instant;

use super::EngineConfig;
use super::connection::{Connection, Step};
use super::drain::may_keep_open;
use super::table::Table;
use crate::files::{Content, FileAnswer};
use crate::http::response::{BodyFraming, Finish, write_head};
use crate::net::buffer::Tail;
use crate::net::timers::after;

impl Connection {
    /// Looks for the file of its request.
    pub(super) fn seek_file(&mut self, config: &EngineConfig) -> Step {
        self.seeks_file = false;
        match self.asked().map(|head| config.static_files.answer(&head)) {
            Some(Ok(Some(answer))) => Step::Found(Box::new(answer)),
            Some(Ok(None)) | None => Step::NoFile,
            Some(Err(error)) => Step::NotOpened(error),
        }
    }
}

impl Table<'_> {
    /// Whether the request that has just become whole may be one for a file: then its next turn looks for the file.
    pub(super) fn may_be_for_file(&mut self, token: u64) -> bool {
        let Self { config, connections, .. } = self;
        let files = &config.static_files;
        if files.is_empty() {
            return false;
        }
        let Some(connection) = connections.find(token) else { return false };
        connection.seeks_file = connection.asked().is_some_and(|head| files.may_answer(&head));
        connection.seeks_file
    }

    /// Answers the request of a connection.
    pub(super) fn answer_from_file(&mut self, token: u64, answer: FileAnswer, now: Instant) {
        let Self { config, connections, buffer_pool, access, date, host, leaving, .. } = self;
        let timeouts = &config.timeouts;
        let Some(connection) = connections.find(token) else { return };
        let Some((request, _)) = connection.take_request() else { return };
        buffer_pool.give_for_answer(connection);
        let Connection { stream, heads, incoming, outgoing, peer, .. } = &mut *connection;
        let asked = Connection::view(heads, incoming, &request);
        let keep_alive = asked.delimited().keep_alive
            && !timeouts.keep_alive.is_zero()
            && may_keep_open(*host, stream, &leaving.gave_up);
        let FileAnswer { head, content } = answer;
        let (version, body) = (asked.version(), BodyFraming::Given);
        write_head(outgoing.append(), &head, &Finish { version, body, keep_alive, stamp: date.at(now) });
        if let Some(access) = access {
            let bytes = match &content {
                Content::None => 0,
                Content::Bytes(bytes) => bytes.len() as u64,
                Content::Part(part) => part.length,
            };
            access.note_own((asked, peer.remote), &head, bytes);
        }
        let reads_file = matches!(content, Content::Part(_));
        match content {
            Content::None => {}
            Content::Bytes(bytes) => outgoing.append().extend_from_slice(&bytes),
            Content::Part(part) => outgoing.set_tail(Tail::File(part)),
        }
        connection.send_own_answer(&request, keep_alive, after(now, timeouts.write));
        self.release(token);
        // The spare reads the file too.
        if reads_file { self.queue(token) } else { self.flush(token, now) }
    }
}
