//! The engine's own answers to requests that the application does not get.

use std::time::{Duration, Instant};

use super::connection::{State, Then};
use super::table::Table;
use crate::access::Entry;
use crate::app::Left;
use crate::http::foreign;
use crate::http::reject::{self, Reject};
use crate::http::response::{BodyFraming, Finish, ResponseHead, Stamp, write_head};
use crate::http::version::Version;
use crate::net::timers::after;

impl Table<'_> {
    /// Answers what will not be served, and closes once the client had time to read it.
    pub(super) fn refuse(&mut self, token: u64, reject: Reject, now: Instant) {
        self.release(token);
        let Self { config, connections, access, date, refusals, .. } = self;
        let Some(connection) = connections.find(token) else { return };
        let (head, remote) = (connection.asked(), connection.peer.remote);
        let received = head.map_or(connection.incoming.bytes(), |head| head.bytes());
        refusals.note((remote, connection.stream.is_tls()), reject, received, now);
        let mut text = reject.why.to_owned();
        if reject == reject::BODY_SIZE {
            refusals.note_body_limit(config.limits.body);
            text += &format!(": at most {} bytes", config.limits.body);
        }
        let mut answer = Vec::new();
        let status = (reject.status, text.as_str());
        let (response, bytes) = write_refusal(&mut answer, status, is_head(received), date.at(now));
        let answer = if foreign::is_http2(received) { foreign::HTTP2_ANSWER } else { &answer };
        if let Some(access) = access {
            access.note(&Entry {
                head,
                remote,
                response: &response,
                bytes,
                took: Duration::ZERO,
                left: &Left::default(),
            });
        }
        connection.outgoing.append().extend_from_slice(answer);
        connection.incoming.clear();
        connection.incoming.release();
        connection.state = State::Flushing { then: Then::Linger };
        connection.deadline = after(now, config.timeouts.write);
        self.flush(token, now);
    }

    /// Answers for an application that takes too long. Returns whether the answer was sent. `is_head`: its method is
    /// HEAD.
    pub(super) fn answer_overdue(&mut self, token: u64, is_head: bool, now: Instant) -> bool {
        let mut answer = Vec::new();
        let Reject { status, why, .. } = reject::OVERDUE;
        write_refusal(&mut answer, (status, why), is_head, self.date.at(now));
        self.connections.stream_of(token).is_some_and(|stream| stream.send_now(&answer))
    }
}

/// Whether a request line, of which perhaps no more can be understood, has the method HEAD.
fn is_head(received: &[u8]) -> bool {
    let start = received.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    received[start..].starts_with(b"HEAD ")
}

/// Appends the whole of a refusal, a status and its text; returns its head and the length of its body. An answer to HEAD announces the body of
/// the answer to GET, and has none (RFC 9110 §9.3.2).
fn write_refusal(
    out: &mut Vec<u8>,
    (status, text): (u16, &str),
    is_head: bool,
    stamp: Stamp<'_>,
) -> (ResponseHead, u64) {
    let text = format!("{text}\n");
    let head = ResponseHead::of_text(status);
    let body = BodyFraming::Length(text.len() as u64);
    write_head(out, &head, &Finish { version: Version::Http11, body, keep_alive: false, stamp });
    let sent = if is_head { "" } else { &text };
    out.extend_from_slice(sent.as_bytes());
    (head, sent.len() as u64)
}
