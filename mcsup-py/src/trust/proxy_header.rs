//! The header of the PROXY protocol (haproxy.org, `proxy-protocol.txt`), versions 1 and 2: read strictly.
//!
//! It comes before the first byte of a connection's first request, and has the addresses of the connection that a proxy
//! has accepted.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which version a connection may begin with.
///
/// A header is optional, as with gunicorn: a health check of a balancer may come without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// None: such bytes are a malformed request.
    #[default]
    Off,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
    /// Either.
    Auto,
}

impl ProxyProtocol {
    /// The name of each.
    pub const NAMES: [(&str, Self); 4] =
        [("off", Self::Off), ("v1", Self::V1), ("v2", Self::V2), ("auto", Self::Auto)];

    fn has_v1(self) -> bool {
        matches!(self, Self::V1 | Self::Auto)
    }

    fn has_v2(self) -> bool {
        matches!(self, Self::V2 | Self::Auto)
    }
}

/// Both ends of the connection that the proxy has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    /// Whether the client has used TLS; only version 2 says so.
    pub(crate) is_https: bool,
}

/// The beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// No header.
    Request,
    /// Perhaps a header: more bytes decide.
    Undecided,
    /// A header of version 1.
    V1,
    /// A header of version 2.
    V2,
}

/// A header that breaks a rule of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The length of a whole header, and its addresses, if it has any that count here.
pub(crate) type Header = (usize, Option<Addresses>);

/// §2.1: with its CRLF.
const LONGEST_LINE: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
/// §2.2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
/// §2.2.6: `PP2_TYPE_SSL`, and `PP2_CLIENT_SSL` in its first byte.
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 1;

/// Whether a connection that begins with `bytes` begins with a header that `accepted` allows.
pub(crate) fn beginning(bytes: &[u8], accepted: ProxyProtocol) -> Beginning {
    let mut undecided = false;
    for (is_accepted, start, found) in
        [(accepted.has_v1(), LINE_START, Beginning::V1), (accepted.has_v2(), SIGNATURE, Beginning::V2)]
    {
        if is_accepted && bytes.starts_with(start) {
            return found;
        }
        undecided |= is_accepted && start.starts_with(bytes);
    }
    if undecided { Beginning::Undecided } else { Beginning::Request }
}

/// Reads a header of version 1 (§2.1); `None`: more bytes must arrive.
pub(crate) fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = shown.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed) };
    };
    let line = &shown[LINE_START.len()..end];
    if matches!(line.strip_prefix(b"UNKNOWN"), Some([] | [b' ', ..])) {
        // What follows is to be ignored.
        return Ok(Some((end + 2, None)));
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let addresses = match line.split_once(' ').unwrap_or((line, "")) {
        ("TCP4", rest) => Some(addresses_in(rest, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from))?),
        ("TCP6", rest) => Some(addresses_in(rest, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from))?),
        _ => return Err(Malformed),
    };
    Ok(Some((end + 2, addresses)))
}

fn addresses_in(text: &str, address: impl Fn(&str) -> Option<IpAddr>) -> Result<Addresses, Malformed> {
    let mut words = text.split(' ');
    let mut next = || words.next().ok_or(Malformed);
    let (client, server, client_port, server_port) = (next()?, next()?, next()?, next()?);
    let end = |text, port| Some(SocketAddr::new(address(text)?, self::port(port)?));
    match (end(client, client_port), end(server, server_port), words.next()) {
        (Some(client), Some(server), None) => Ok(Addresses { client, server, is_https: false }),
        _ => Err(Malformed),
    }
}

/// Decimal, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Reads a header of version 2 (§2.2); `None`: more bytes must arrive.
pub(crate) fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        // What has arrived may be wrong already.
        return match bytes.get(SIGNATURE.len()) {
            Some(byte) if !matches!(byte, 0x20 | 0x21) => Err(Malformed),
            _ => Ok(None),
        };
    };
    let is_local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let (family, transport) = (fixed[13] >> 4, fixed[13] & 0xf);
    // A connection of the proxy itself, such as a health check, has a family that is to be ignored as all that follows.
    if !is_local && (family > 3 || transport > 2) {
        return Err(Malformed);
    }
    let Some(content) = bytes.get(FIXED..length) else { return Ok(None) };
    let addresses = match (is_local, family, transport) {
        (true, ..) => None,
        (false, 1, 1) => Some(ipv4(content).ok_or(Malformed)?),
        (false, 2, 1) => Some(ipv6(content).ok_or(Malformed)?),
        // Unspecified, or of a Unix socket: addresses that no environ has.
        (false, 0, _) | (false, 3, 1) => None,
        // A request by datagrams is none of HTTP/1.
        _ => return Err(Malformed),
    };
    Ok(Some((length, addresses)))
}

fn ipv4(content: &[u8]) -> Option<Addresses> {
    let bytes: &[u8; 12] = content.first_chunk()?;
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    Some(Addresses {
        client: SocketAddr::new(address(0).into(), u16::from_be_bytes([bytes[8], bytes[9]])),
        server: SocketAddr::new(address(4).into(), u16::from_be_bytes([bytes[10], bytes[11]])),
        is_https: has_tls(&content[bytes.len()..]),
    })
}

fn ipv6(content: &[u8]) -> Option<Addresses> {
    let (client, rest) = content.split_first_chunk::<16>()?;
    let (server, rest) = rest.split_first_chunk::<16>()?;
    let (ports, rest) = rest.split_first_chunk::<4>()?;
    Some(Addresses {
        client: SocketAddr::new(Ipv6Addr::from(*client).into(), u16::from_be_bytes([ports[0], ports[1]])),
        server: SocketAddr::new(Ipv6Addr::from(*server).into(), u16::from_be_bytes([ports[2], ports[3]])),
        is_https: has_tls(rest),
    })
}

/// Whether an extension behind the addresses says that the client has used TLS (§2.2.6). Extensions that are cut off have no
/// effect, as unknown ones have none.
fn has_tls(mut extensions: &[u8]) -> bool {
    while let Some(([kind, high, low], rest)) = extensions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, behind)) = rest.split_at_checked(length) else { return false };
        if *kind == TYPE_SSL {
            return value.first().is_some_and(|client| client & CLIENT_SSL != 0);
        }
        extensions = behind;
    }
    false
}

#[cfg(test)]
mod tests;
