//! The addresses of log targets, in gunicorn's spelling.

use std::fmt;
use std::path::PathBuf;

/// The port of syslog (RFC 5426 §3.3).
const SYSLOG_PORT: u16 = 514;

/// The port of statsd by convention.
const STATSD_PORT: u16 = 8125;

/// The place of a log target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Datagrams to a host name or address, and a port.
    Udp(String, u16),
    /// A stream to a host name or address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf, UnixKind),
}

/// The kind of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnixKind {
    /// Datagrams, or a stream if the socket takes no datagrams.
    Either,
    /// Datagrams only.
    Datagram,
    /// A stream only.
    Stream,
}

impl Address {
    /// An address of syslog: `udp://HOST[:PORT]`, `tcp://HOST[:PORT]`, `unix://PATH[#dgram|#stream]`.
    ///
    /// # Errors
    /// The reason in one line.
    pub fn syslog(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            let (path, kind) = match path.rsplit_once('#') {
                Some((path, "dgram")) => (path, UnixKind::Datagram),
                Some((path, "stream")) => (path, UnixKind::Stream),
                _ => (path, UnixKind::Either),
            };
            return unix(path, kind);
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return host_and_port(rest, SYSLOG_PORT).map(|(host, port)| Address::Udp(host, port));
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return host_and_port(rest, SYSLOG_PORT).map(|(host, port)| Address::Tcp(host, port));
        }
        Err(format!(
            "{text:?} is no address of syslog: expected udp://HOST:PORT, tcp://HOST:PORT or unix://PATH"
        ))
    }

    /// An address of statsd: `HOST[:PORT]` or `unix://PATH`.
    ///
    /// # Errors
    /// The reason in one line.
    pub fn statsd(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return unix(path, UnixKind::Datagram);
        }
        let text = text.strip_prefix("udp://").unwrap_or(text);
        if text.is_empty() || text.contains("://") {
            return Err(format!("{text:?} is no address of statsd: expected HOST:PORT or unix://PATH"));
        }
        host_and_port(text, STATSD_PORT).map(|(host, port)| Address::Udp(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Address::Udp(name, port) => write!(f, "udp://{}:{port}", host(name)),
            Address::Tcp(name, port) => write!(f, "tcp://{}:{port}", host(name)),
            Address::Unix(path, _) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn unix(path: &str, kind: UnixKind) -> Result<Address, String> {
    match path {
        "" => Err("unix:// needs the path of a socket".to_owned()),
        path => Ok(Address::Unix(path.into(), kind)),
    }
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`; an empty host is this machine.
fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => default,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} is no port: expected a number from 1 to 65535"))?,
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_syslog_have_gunicorns_spelling() {
        let udp = |host: &str, port| Address::Udp(host.to_owned(), port);
        for (text, expected) in [
            ("udp://localhost:514", udp("localhost", 514)),
            ("udp://", udp("localhost", 514)),
            ("udp://logs", udp("logs", 514)),
            ("udp://[::1]:5514", udp("::1", 5514)),
            ("tcp://10.0.0.1:601", Address::Tcp("10.0.0.1".to_owned(), 601)),
            ("unix:///dev/log", Address::Unix("/dev/log".into(), UnixKind::Either)),
            ("unix:///dev/log#dgram", Address::Unix("/dev/log".into(), UnixKind::Datagram)),
            ("unix:///a#b#stream", Address::Unix("/a#b".into(), UnixKind::Stream)),
        ] {
            assert_eq!(Address::syslog(text), Ok(expected), "{text}");
        }
        for text in ["localhost:514", "", "unix://", "udp://h:x", "udp://h:0", "tcp://h:65536"] {
            assert!(Address::syslog(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_statsd_have_gunicorns_spelling() {
        for (text, shown) in [
            ("localhost:8125", "udp://localhost:8125"),
            ("metrics", "udp://metrics:8125"),
            ("[::1]:9125", "udp://[::1]:9125"),
            ("unix:///run/statsd.sock", "unix:///run/statsd.sock"),
        ] {
            assert_eq!(Address::statsd(text).map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "tcp://h:1", "h:port", "unix://"] {
            assert!(Address::statsd(text).is_err(), "{text}");
        }
    }
}
