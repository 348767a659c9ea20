//! How a connection reads a PROXY header, once, before its first request and before a handshake of TLS.

use std::time::Instant;

use super::{Connection, State, Step};
use crate::app::Proxied;
use crate::http::reject::{self, Reject};
use crate::net::stream::Progress;
use crate::trust::Trust;
use crate::trust::proxy_header::{self, Addresses, Beginning};

/// The longest header before a handshake: what is not the header's stays in the socket for the handshake.
const LONGEST_BEFORE_TLS: usize = 8 * 1024;

/// The result of a look for a header.
enum Found {
    /// There is none.
    None,
    /// More bytes must arrive.
    More,
    /// One of this length.
    Header(usize, Option<Addresses>),
}

impl Connection {
    /// Reads it, under the deadline of the first head. `false`: more must be received.
    pub(super) fn read_proxy_header(&mut self, trust: &Trust, now: Instant) -> Result<bool, Reject> {
        if self.incoming.is_empty() {
            return Ok(false);
        }
        match self.find_proxy_header(self.incoming.bytes(), trust)? {
            Found::None => {}
            Found::More => {
                // A client that sends a part of it gets the refusal of one that sends a part of a head.
                if let State::Idle { .. } = self.state {
                    (self.since, self.state) = (now, State::Head);
                }
                return Ok(false);
            }
            Found::Header(length, addresses) => {
                self.incoming.consume(length);
                self.incoming.release();
                self.is_proxied_by(addresses, trust);
            }
        }
        self.may_have_proxy_header = false;
        self.state = State::Idle { fresh: true };
        Ok(true)
    }

    /// Takes it off the socket before a handshake, as the protocol wants it (§2). `None`: the handshake is next.
    pub(super) fn take_proxy_header(&mut self, trust: &Trust) -> Option<Step> {
        let mut bytes = Vec::with_capacity(LONGEST_BEFORE_TLS);
        match self.stream.peek(&mut bytes) {
            Progress::Ended => return Some(Step::Close),
            _ if bytes.is_empty() => return Some(Step::Wait),
            _ => {}
        }
        let found = match self.find_proxy_header(&bytes, trust) {
            Ok(Found::More) if bytes.len() == bytes.capacity() => Err(reject::PROXY_HEADER),
            found => found,
        };
        match found {
            Ok(Found::None) => {}
            Ok(Found::More) => {
                self.state = State::Handshake { begun: true };
                return Some(Step::Wait);
            }
            Ok(Found::Header(length, addresses)) => {
                self.stream.discard(&mut bytes[..length]);
                self.is_proxied_by(addresses, trust);
            }
            Err(reject) => {
                self.stream.give_up_tls();
                // For the log.
                self.incoming.room(bytes.len()).extend_from_slice(&bytes);
                return Some(Step::Refuse(reject));
            }
        }
        self.may_have_proxy_header = false;
        None
    }

    fn find_proxy_header(&self, bytes: &[u8], trust: &Trust) -> Result<Found, Reject> {
        let read = match proxy_header::beginning(bytes, trust.proxy_protocol) {
            Beginning::Request => return Ok(Found::None),
            Beginning::Undecided => return Ok(Found::More),
            Beginning::V1 | Beginning::V2 if !trust.proxy_allow.has_peer(self.peer.remote) => {
                return Err(reject::PROXY_PEER);
            }
            Beginning::V1 => proxy_header::read_v1(bytes),
            Beginning::V2 => proxy_header::read_v2(bytes),
        };
        match read {
            Ok(None) => Ok(Found::More),
            Ok(Some((length, addresses))) => Ok(Found::Header(length, addresses)),
            Err(_) => Err(reject::PROXY_HEADER),
        }
    }

    fn is_proxied_by(&mut self, addresses: Option<Addresses>, trust: &Trust) {
        if let Some(Addresses { client, server, is_https }) = addresses {
            let proxy = self.peer.remote.replace(client);
            self.peer.proxied = Some(Box::new(Proxied { proxy, server, is_https }));
            self.decide_trust(trust);
        }
    }
}
