//! How a connection reads a PROXY header, once, before its first request.

use std::time::Instant;

use super::{Connection, State};
use crate::app::Proxied;
use crate::http::reject::{self, Reject};
use crate::trust::Trust;
use crate::trust::proxy_header::{self, Beginning};

impl Connection {
    /// Reads it, under the deadline of the first head. `false`: more must be received.
    pub(super) fn read_proxy_header(&mut self, trust: &Trust, now: Instant) -> Result<bool, Reject> {
        let bytes = self.incoming.bytes();
        let read = match proxy_header::beginning(bytes, trust.proxy_protocol) {
            _ if bytes.is_empty() => return Ok(false),
            Beginning::Request => {
                self.end_proxy_header();
                return Ok(true);
            }
            Beginning::Undecided => return Ok(self.wait_for_proxy_header(now)),
            Beginning::V1 | Beginning::V2 if !trust.proxy_allow.has_peer(self.peer.remote) => {
                return Err(reject::PROXY_PEER);
            }
            Beginning::V1 => proxy_header::read_v1(bytes),
            Beginning::V2 => proxy_header::read_v2(bytes),
        };
        let Some((length, addresses)) = read.map_err(|_| reject::PROXY_HEADER)? else {
            return Ok(self.wait_for_proxy_header(now));
        };
        self.incoming.consume(length);
        self.incoming.release();
        if let Some(addresses) = addresses {
            let proxy = self.peer.remote.replace(addresses.client);
            self.peer.proxied = Some(Box::new(Proxied { proxy, server: addresses.server }));
        }
        self.end_proxy_header();
        Ok(true)
    }

    /// A client that sends a part of it gets the refusal of one that sends a part of a head.
    fn wait_for_proxy_header(&mut self, now: Instant) -> bool {
        if let State::Idle { .. } = self.state {
            (self.since, self.state) = (now, State::Head);
        }
        false
    }

    fn end_proxy_header(&mut self) {
        self.may_have_proxy_header = false;
        self.state = State::Idle { fresh: true };
    }
}
