//! Which peers are proxies, and which of their statements about a client count. No I/O.
//!
//! A trusted peer is a proxy in front of this server. Its fields may name the scheme, the mount point and the address of
//! the client, and it may begin a connection with a PROXY header. The same bytes of any other peer have no effect.
//!
//! - [`networks`]: lists of addresses.
//! - [`fields`]: which fields count.
//! - [`hops`]: the address of a client in `X-Forwarded-For` or `Forwarded`.
//! - [`mount_point`]: the mount point that a field names.
//! - [`proxy_header`]: the header of the PROXY protocol.

mod fields;
mod hops;
pub(crate) mod mount_point;
mod networks;
pub(crate) mod proxy_header;

use core::net::SocketAddr;

pub(crate) use fields::{Claims, Kept, Reader};
pub use fields::{FieldRules, HeaderMap};
pub(crate) use hops::Malformed;
pub use hops::{Hops, HopsField};
pub use networks::AllowList;
pub use proxy_header::ProxyProtocol;

/// Which peers are trusted, and with what.
///
/// The default is gunicorn's: the loopback addresses are trusted, and the PROXY protocol is off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// The peers whose fields count.
    pub forwarded_allow: AllowList,
    /// Which of their fields.
    pub fields: FieldRules,
    /// Whether a connection may begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// The peers that may send one. A PROXY header of another peer is refused.
    pub proxy_allow: AllowList,
}

impl Trust {
    /// Whether the fields of `peer` count. `None`: a peer on a Unix socket, which the permissions of the socket have let in.
    pub(crate) fn believes_fields_of(&self, peer: Option<SocketAddr>) -> bool {
        self.forwarded_allow.has_peer(peer)
    }
}
