//! The address of a client behind a known number of proxies.
//!
//! Each proxy appends the address of its peer to a field. So the last entry is what the nearest proxy has seen, and with
//! N trusted proxies the entry N from the end is the client's; entries before it are the client's own words.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which entry of a field is the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hops {
    /// The number of proxies that append to the field; 0: the field has no effect.
    pub count: usize,
    /// The field.
    pub field: HopsField,
}

/// The field that the proxies append to. The other one has no effect, since a proxy may pass on the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HopsField {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), whose parameter `for` counts.
    Forwarded,
}

impl HopsField {
    /// The name of each field, in lower case.
    pub const NAMES: [(&str, Self); 2] =
        [("x-forwarded-for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }
}

/// The line of `Forwarded` that has the client's address is malformed, so that the bounds of its entries are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Hops {
    /// The client's address in the values of the field's lines, in their order; its port is 0 where there is none. `None`:
    /// there are fewer entries than proxies, or the entry is no address. Lines before that of the entry have no effect:
    /// they are the client's own words.
    pub(crate) fn client<'a>(
        self,
        lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Result<Option<SocketAddr>, Malformed> {
        let Some(back) = self.count.checked_sub(1) else { return Ok(None) };
        match self.field {
            HopsField::XForwardedFor => {
                let entries = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
                // RFC 9110 §5.6.1.2: an empty entry is none.
                let mut entries = entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty());
                Ok(entries.nth(back).and_then(node))
            }
            HopsField::Forwarded => {
                let mut missing = self.count;
                for line in lines.rev() {
                    let nodes = elements(line).ok_or(Malformed)?;
                    match nodes.len().checked_sub(missing) {
                        Some(at) => return Ok(nodes[at].and_then(node)),
                        None => missing -= nodes.len(),
                    }
                }
                Ok(None)
            }
        }
    }
}

/// An address with or without a port (RFC 7239 §6). A bare IPv6 address is common in `X-Forwarded-For`.
fn node(bytes: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(bytes).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 0));
    }
    let (address, rest): (IpAddr, &str) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, rest) = text.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), rest)
        }
        None => {
            let at = text.find(':')?;
            (text[..at].parse().ok()?, &text[at..])
        }
    };
    match rest {
        "" => Some(SocketAddr::new(address, 0)),
        _ => Some(SocketAddr::new(address, port(rest.strip_prefix(':')?)?)),
    }
}

/// Digits, or a name that hides the port.
fn port(text: &str) -> Option<u16> {
    match text.strip_prefix('_') {
        Some(name) => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (!name.is_empty() && name.bytes().all(fits)).then_some(0)
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// The parameter `for` of each element of one line (RFC 7239 §4). `None`: the line is malformed. A client that
/// leaves a quote open, to hide what the next proxy appends, makes it so.
fn elements(line: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (mut rest, mut found, mut is_empty) = (line, None, true);
    let mut nodes = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest.first(), None | Some(b',' | b';')) {
            let (name, value, behind) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                return None;
            }
            (rest, is_empty) = (behind.trim_ascii_start(), false);
        }
        match rest.split_first() {
            Some((b';', behind)) => rest = behind,
            Some((b',', behind)) => {
                if !is_empty {
                    nodes.push(found.take());
                }
                (rest, is_empty) = (behind, true);
            }
            Some(_) => return None,
            None => {
                if !is_empty {
                    nodes.push(found);
                }
                return Some(nodes);
            }
        }
    }
}

/// Name and value of the pair at the beginning of `bytes`, and the rest.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = token(bytes)?;
    let rest = rest.strip_prefix(b"=")?;
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let (value, rest) = bare_value(rest)?;
        return Some((name, value, rest));
    };
    let mut at = 0;
    loop {
        match quoted.get(at)? {
            b'"' => return Some((name, &quoted[..at], &quoted[at + 1..])),
            // No address needs an escape: with it in place the value is none.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The token at the beginning of `bytes` (RFC 9110 §5.6.2), and the rest.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    split(bytes, |byte| byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]{}"#.contains(&byte))
}

/// A value without quotes. A colon and brackets need quotes, but proxies write addresses without them too.
fn bare_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    split(bytes, |byte| byte.is_ascii_graphic() && !br#""(),/;<=>?@\{}"#.contains(&byte))
}

fn split(bytes: &[u8], fits: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let length = bytes.iter().take_while(|byte| fits(**byte)).count();
    (length > 0).then(|| bytes.split_at(length))
}

#[cfg(test)]
mod tests;
