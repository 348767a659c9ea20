//! Connections that change workers, for one of three reasons.
//!
//! - A worker without a free permit hands a connection with a request to an idle sibling: no request waits behind a slow
//!   one while a worker has nothing to do.
//! - A worker that retires hands over its idle connections (`drain`).
//! - A worker with many more connections than a sibling hands some over when their requests come: so the pool is balanced
//!   soon after a burst of connections or the start of a worker.
//!
//! The message holds the descriptor, both addresses as accept(2) reported them, those of a PROXY header, and some kilobytes
//! that were received and not answered. A connection with a larger body moves before the body is read, or stays. The addresses are not read
//! from the socket: it loses them if its client resets it, and its request is still there.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mcsup_core::between_forks;
use mcsup_core::listener::AcceptFailure;

use super::connection::{Connection, State};
use super::table::Table;
use super::{Phase, Timeouts};
use crate::app::{Local, Peer, Proxied};
use crate::net::stream::Stream;
use crate::net::timers::after;

/// For so long a connection may be on its way to a sibling that is slow to wake.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// How many connections this worker has too many.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    count: usize,
    /// How many a sibling had when the last one was handed over, and when that was.
    weighed: Option<(usize, Instant)>,
}

impl Table<'_> {
    /// Hands the requests over that wait here and can go, as far as siblings have permits free. `all`: also where they have
    /// none.
    pub(super) fn offer_waiting(&mut self, all: bool) {
        let mut free = if all { usize::MAX } else { self.host.siblings().free };
        // A request that stays keeps its place.
        let mut kept = std::mem::take(&mut self.ready);
        kept.retain(|token| {
            if free == 0 || !self.connections.find(*token).is_some_and(|connection| connection.can_go()) {
                return true;
            }
            free -= 1;
            !self.hand_over(*token)
        });
        self.ready = kept;
    }

    /// Hands a connection over of which nothing was read, where there is a reason to.
    pub(super) fn hand_over_unread(&mut self, token: u64, now: Instant) -> bool {
        let lacks_permit = self.acceptor.lacks_permit;
        if !(lacks_permit || self.surplus.count > 0) || !self.is_unread(token) {
            return false;
        }
        if lacks_permit {
            return self.host.siblings().free > 0 && self.hand_over(token);
        }
        // Not to be taken back at once.
        self.acceptor.leave_to_siblings(now);
        self.surplus.count -= 1;
        self.surplus.weighed = Some((self.host.siblings().fewest, now));
        self.hand_over(token)
    }

    pub(super) fn is_unread(&mut self, token: u64) -> bool {
        self.find(token).is_some_and(|connection| connection.is_unread())
    }

    /// Looks how many connections too many this worker has. Within an eighth the pool is balanced: it is not worth a move.
    pub(super) fn compare_with_siblings(&mut self, now: Instant) {
        let (own, fewest) = (self.connections.len(), self.host.siblings().fewest);
        // Connections in the queue are not counted yet: the sibling has not moved since.
        let is_old = self.surplus.weighed.is_some_and(|(then, at)| then == fewest && now < at + ON_ITS_WAY);
        let balanced = fewest.saturating_add(1 + own / 8);
        let has_many = !is_old && self.phase.accepts() && own > balanced;
        self.surplus.count = if has_many { (own - fewest) / 2 } else { 0 };
    }

    pub(super) fn hand_over(&mut self, token: u64) -> bool {
        // The siblings end as well. The drain takes back connections that no sibling has taken.
        if self.phase >= Phase::Draining {
            return false;
        }
        let Some(connection) = self.connections.find(token).filter(|connection| connection.can_go()) else {
            return false;
        };
        let is_fresh = matches!(connection.state, State::Handshake { .. } | State::Idle { fresh: true });
        let start = Start { is_fresh, may_have_proxy_header: connection.may_have_proxy_header };
        let mut bytes = written(&connection.peer, start);
        connection.write_received(&mut bytes);
        if self.host.hand_over(connection.stream.as_fd(), &bytes).is_err() {
            return false;
        }
        if connection.registered {
            // Closing it would not do, since the other worker holds it open (epoll(7), Q6).
            let _ = self.poller.delete(connection.stream.as_fd());
        }
        self.close(token);
        true
    }

    /// Takes a connection that some worker has handed over; `false`: there is none.
    pub(super) fn take_over(&mut self, now: Instant) -> bool {
        let taken = between_forks(|| {
            let taken = self.host.take_over()?;
            Ok::<_, io::Error>(taken.map(|(fd, bytes)| (Stream::from(fd), bytes)))
        });
        let (stream, bytes) = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return false,
            // It is still there.
            Err(error) if AcceptFailure::of(&error) == AcceptFailure::Short => {
                return self.has_room_after(&error, now);
            }
            Err(error) => {
                log::error!("a connection was lost on its way from another worker: {error}");
                return true;
            }
        };
        self.reserve.accepted(stream.as_fd());
        // The supervisor itself gives connections that no worker has accepted: only the socket knows their ends.
        let known = match bytes.is_empty() {
            true => stream.local().map(|local| {
                let peer = Peer { remote: stream.remote(), local: Local::Tcp(local), proxied: None };
                (peer, Start { is_fresh: true, may_have_proxy_header: true }, &bytes[..])
            }),
            false => read(&bytes),
        };
        let Some((peer, start, received)) = known.filter(|(peer, ..)| peer.is_known()) else {
            return true;
        };
        // One that has sent a request has no TLS: it could not have come.
        let stream = match &self.config.tls {
            Some(tls) if start.is_fresh && received.is_empty() => stream.by_tls(tls),
            _ => stream,
        };
        let Timeouts { head, keep_alive, .. } = self.config.timeouts;
        // It may be idle even if none of this worker's own may: its client was promised that.
        let idle = after(now, if keep_alive.is_zero() { head } else { keep_alive });
        let head = after(now, head);
        let token = self.connections.add(|token| {
            let mut connection = Connection::new(stream, peer, token, now, head)
                .trusted_by(&self.config.trust, start.may_have_proxy_header);
            if !start.is_fresh {
                connection.idle(now, idle);
            }
            connection.incoming.room(received.len()).extend_from_slice(received);
            connection
        });
        self.host.connections(self.connections.len());
        self.advance(token, now);
        true
    }
}

/// What a connection has yet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    /// Its first request.
    is_fresh: bool,
    /// A PROXY header before it, perhaps.
    may_have_proxy_header: bool,
}

/// Both ends of a connection, its proxy and its start, as bytes: a letter, a digit, a sign for the scheme, and a length and a text for each
/// address. `mcsup_core::link::handover` has the version of this form, which changes with it.
fn written(peer: &Peer, start: Start) -> Vec<u8> {
    let (kind, local) = match &peer.local {
        Local::Tcp(address) => (b't', address.to_string()),
        Local::Unix(path) => (b'u', path.clone()),
    };
    let text = |address: Option<SocketAddr>| address.map_or_else(String::new, |address| address.to_string());
    let (proxy, server, is_https) = match peer.proxied.as_deref() {
        Some(Proxied { proxy, server, is_https }) => (text(*proxy), server.to_string(), *is_https),
        None => (String::new(), String::new(), false),
    };
    let mut bytes = vec![
        if start.is_fresh { kind.to_ascii_uppercase() } else { kind },
        if start.may_have_proxy_header { b'1' } else { b'0' },
        if is_https { b's' } else { b'-' },
    ];
    for text in [local, text(peer.remote), proxy, server] {
        bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// All of it, and the rest. `None`: no worker has written this.
fn read(bytes: &[u8]) -> Option<(Peer, Start, &[u8])> {
    let ([kind, header, scheme], rest) = bytes.split_first_chunk::<3>()?;
    let (local, rest) = read_text(rest)?;
    let (remote, rest) = read_text(rest)?;
    let (proxy, rest) = read_text(rest)?;
    let (server, rest) = read_text(rest)?;
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let local = match kind.to_ascii_lowercase() {
        b't' => Local::Tcp(address(local)?),
        b'u' => Local::Unix(local.to_owned()),
        _ => return None,
    };
    let is_https = *scheme == b's';
    let proxied = address(server).map(|server| Box::new(Proxied { proxy: address(proxy), server, is_https }));
    let start = Start { is_fresh: kind.is_ascii_uppercase(), may_have_proxy_header: *header == b'1' };
    Some((Peer { remote: address(remote), local, proxied }, start, rest))
}

fn read_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_connection_survive_the_way() {
        let proxied = |proxy: Option<&str>| {
            let proxy = proxy.map(|text| text.parse().unwrap());
            let (server, is_https) = ("[2001:db8::2]:443".parse().unwrap(), proxy.is_some());
            Some(Box::new(Proxied { proxy, server, is_https }))
        };
        for (local, remote, proxied) in [
            (Local::Tcp("127.0.0.1:80".parse().unwrap()), Some("192.0.2.7:1"), None),
            (Local::Tcp("[::1]:8080".parse().unwrap()), Some("[2001:db8::1]:65535"), None),
            (Local::Tcp("[::]:8080".parse().unwrap()), Some("[fe80::1%2]:4711"), None),
            (Local::Tcp("127.0.0.1:80".parse().unwrap()), Some("192.0.2.7:1"), proxied(Some("127.0.0.1:9"))),
            (Local::Unix("/run/s".to_owned()), None, None),
            (Local::Unix("/run/s".to_owned()), Some("192.0.2.7:1"), proxied(None)),
        ] {
            let peer = Peer { remote: remote.map(|text| text.parse().unwrap()), local, proxied };
            for (is_fresh, may_have_proxy_header) in [(true, true), (true, false), (false, false)] {
                let start = Start { is_fresh, may_have_proxy_header };
                let mut bytes = written(&peer, start);
                bytes.extend_from_slice(b"GET /");
                assert_eq!(read(&bytes), Some((peer.clone(), start, &b"GET /"[..])));
            }
        }
        assert_eq!(read(b"t0-\x05\x00abc"), None);
        assert_eq!(read(b"u0-\x01\x00a"), None);
        assert_eq!(read(b"?0-\x00\x00\x00\x00\x00\x00\x00\x00"), None);
    }
}
