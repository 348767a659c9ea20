//! The text form of a listening address.

use std::fmt;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::local::{Shown, abstract_name, abstract_path};
use crate::error::{Error, ErrorKind};

/// An address to listen on, in an operator's notation.
///
/// A path of a Unix socket that begins with a NUL byte is a name in the abstract namespace (unix(7), Linux
/// only), which has no file and no mode: every process of the network namespace may connect. Its notation is
/// `unix:@NAME`; the file `@NAME` is `unix://@NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// `HOST:PORT`, `HOST` (port 8000), `:PORT` (all IPv4 addresses), `[IPv6]:PORT`, each also behind
    /// `tcp://`.
    Tcp {
        /// A name or number, without brackets.
        host: String,
        /// The port; 0: the kernel chooses one.
        port: u16,
    },
    /// `unix:PATH`, also `unix://PATH`: stream connections.
    Unix(PathBuf),
    /// `udp://HOST:PORT`. A worker reads from it itself
    /// ([`udp_sockets`](crate::WorkerContext::udp_sockets)); the socket has no connections to accept.
    Udp {
        /// A name or number, without brackets; none: all IPv4 addresses.
        host: String,
        /// The port; 0: the kernel chooses one.
        port: u16,
    },
    /// `unix-datagram:PATH`: datagrams without connections.
    UnixDatagram(PathBuf),
    /// `unix-seqpacket:PATH`: connections that keep the boundaries of messages. Not on macOS.
    UnixSeqpacket(PathBuf),
    /// `vsock:CID:PORT` or `vsock::PORT` (any context): stream connections between a virtual machine and its
    /// host (vsock(7)). Linux only.
    Vsock {
        /// The context that clients connect to; [`CID_ANY`]: each of this machine.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// `fd://N`: a socket that this process inherited, which listens or takes datagrams. It can be taken once.
    ///
    /// A descriptor that this process has opened itself (it is close-on-exec then) or has taken before is
    /// refused. A program passes a socket of its own by clearing close-on-exec and giving up the ownership
    /// (`into_raw_fd`). The socket closes with the pool, also if the first workers cannot boot; a start that
    /// fails before the first fork puts it back, non-blocking.
    Inherited(RawFd),
    /// `fd://NAME`: the sockets that the service manager has passed under this name; `fd://*`: all that no other
    /// address names. See [`ServiceManager`](crate::host::service_manager::ServiceManager).
    Passed(String),
}

impl Address {
    /// Whether the address can be that of a TCP or Unix stream socket. Only the socket shows the kind of an
    /// inherited one.
    pub fn may_be_stream(&self) -> bool {
        matches!(self, Address::Tcp { .. } | Address::Unix(_) | Address::Inherited(_) | Address::Passed(_))
    }
}

/// Any context of vsock(7) (`VMADDR_CID_ANY`).
pub const CID_ANY: u32 = u32::MAX;

/// The port of an address without one, as in gunicorn.
const DEFAULT_PORT: u16 = 8000;

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let forms = "expected HOST:PORT, [IPv6]:PORT, :PORT, unix:PATH or fd://N";
            Error::new(ErrorKind::Setting, format!("{text:?} is no address to listen on: {why} ({forms})"))
        };
        if let Some(number) = text.strip_prefix("fd://") {
            return inherited(number).ok_or_else(|| wrong("no descriptor number, and no name of a socket"));
        }
        let unix = [
            ("unix:", Address::Unix as fn(PathBuf) -> Address),
            ("unix-datagram:", Address::UnixDatagram),
            ("unix-seqpacket:", Address::UnixSeqpacket),
        ];
        for (prefix, address) in unix {
            if let Some(path) = text.strip_prefix(prefix) {
                return unix_path(path).map(address).map_err(wrong);
            }
        }
        if let Some(rest) = text.strip_prefix("vsock:") {
            return vsock(rest).map_err(wrong);
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            let (host, port) = split_port(rest).map_err(wrong)?;
            let port = port.and_then(|port| port.parse().ok()).ok_or_else(|| wrong(NO_PORT))?;
            return Ok(Address::Udp { host: or_any(host), port });
        }
        let rest = text.strip_prefix("tcp://").unwrap_or(text);
        if rest.contains("://") || rest.contains('/') {
            return Err(wrong("unknown form"));
        }
        let (host, port) = split_port(rest).map_err(wrong)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong(NO_PORT))?,
            // The resolver reads a number as an IPv4 address (inet_aton(3)).
            None if is_number(host) => return Err(wrong("a port alone has a colon in front")),
            None => DEFAULT_PORT,
        };
        Ok(Address::Tcp { host: or_any(host), port })
    }
}

/// Parses the number of a descriptor, or the name of a passed socket (`FileDescriptorName=`, systemd.socket(5)).
fn inherited(text: &str) -> Option<Address> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || is_number(digits) {
        return text.parse().ok().filter(|fd| *fd >= 0).map(Address::Inherited);
    }
    let is_name = text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    is_name.then(|| Address::Passed(text.to_owned()))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

const NO_PORT: &str = "no port number from 0 to 65535";

fn or_any(host: &str) -> String {
    if host.is_empty() { "0.0.0.0" } else { host }.to_owned()
}

/// The path, or the abstract name, behind the prefix of a Unix socket.
fn unix_path(text: &str) -> Result<PathBuf, &'static str> {
    match (text.strip_prefix("//"), text.strip_prefix('@')) {
        (Some(""), _) => Err("no path"),
        (Some(path), _) => Ok(path.into()),
        (None, Some("")) => Err("no name"),
        (None, Some(name)) => Ok(abstract_path(name.as_bytes())),
        (None, None) if text.is_empty() => Err("no path"),
        (None, None) => Ok(text.into()),
    }
}

fn vsock(text: &str) -> Result<Address, &'static str> {
    let (cid, port) = text.split_once(':').ok_or("no CID:PORT")?;
    let cid = if cid.is_empty() { CID_ANY } else { cid.parse().map_err(|_| "no number of a context")? };
    Ok(Address::Vsock { cid, port: port.parse().map_err(|_| "no port number")? })
}

/// Splits host and port; the host loses its brackets.
fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("no closing bracket")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("text behind the closing bracket"),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Err("an IPv6 address needs brackets"),
        Some((host, port)) => Ok((host, Some(port))),
        None if text.is_empty() => Err("it is empty"),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write_host(f, "", host, *port),
            Address::Udp { host, port } => write_host(f, "udp://", host, *port),
            Address::Unix(path) => write_path(f, "unix:", path),
            Address::UnixDatagram(path) => write_path(f, "unix-datagram:", path),
            Address::UnixSeqpacket(path) => write_path(f, "unix-seqpacket:", path),
            Address::Vsock { cid: CID_ANY, port } => write!(f, "vsock::{port}"),
            Address::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Address::Inherited(fd) => write!(f, "fd://{fd}"),
            Address::Passed(name) => write!(f, "fd://{name}"),
        }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, prefix: &str, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "{prefix}[{host}]:{port}") } else { write!(f, "{prefix}{host}:{port}") }
}

fn write_path(f: &mut fmt::Formatter<'_>, prefix: &str, path: &Path) -> fmt::Result {
    // Without the two slashes the path would parse as another form.
    let first = path.as_os_str().as_encoded_bytes();
    let is_other_form = first.starts_with(b"//") || first.starts_with(b"@");
    let slashes = if abstract_name(path).is_none() && is_other_form { "//" } else { "" };
    write!(f, "{prefix}{slashes}{}", Shown(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<Address>().map_or_else(|error| format!("error: {error}"), |address| address.to_string())
    }

    #[test]
    fn every_form_is_understood() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost", "localhost:8000"),
            (":80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("[::]", "[::]:8000"),
            ("tcp://h:1", "h:1"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:a.sock", "unix:a.sock"),
            ("unix:////run/a.sock", "unix:////run/a.sock"),
            ("unix:@name", "unix:@name"),
            ("unix://@a.sock", "unix://@a.sock"),
            ("unix-datagram:/run/log", "unix-datagram:/run/log"),
            ("unix-datagram:@log", "unix-datagram:@log"),
            ("unix-seqpacket:///run/a", "unix-seqpacket:/run/a"),
            ("udp://:53", "udp://0.0.0.0:53"),
            ("udp://[::1]:53", "udp://[::1]:53"),
            ("vsock::5000", "vsock::5000"),
            ("vsock:4294967295:5000", "vsock::5000"),
            ("vsock:2:5000", "vsock:2:5000"),
            ("fd://3", "fd://3"),
            ("fd://web", "fd://web"),
            ("fd://*", "fd://*"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
            assert_eq!(parsed(expected), expected, "{text}");
        }
    }

    #[test]
    fn an_invalid_address_is_refused_with_a_reason() {
        for text in [
            "",
            "h:",
            "h:port",
            "h:65536",
            "::1",
            "::1:80",
            "[::1",
            "[::1]80",
            "unix:",
            "unix:@",
            "unix://",
            "unix-datagram:",
            "udp://h",
            "udp://:x",
            "vsock:5000",
            "vsock:x:5000",
            "vsock::x",
            "fd://",
            "fd://-1",
            "fd://99999999999",
            "fd://a:b",
            "8080",
            "tcp://8080",
            "ftp://h:1",
            "/run/a.sock",
        ] {
            let answer = parsed(text);
            assert!(answer.starts_with("error: "), "{text} became {answer}");
        }
    }
}
