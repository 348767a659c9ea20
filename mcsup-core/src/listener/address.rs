//! The text form of a listening address.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// An address to listen on, in an operator's notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`, `HOST` (port 8000), `:PORT` (all IPv4 addresses), `[IPv6]:PORT`, each also behind
    /// `tcp://`.
    Tcp {
        /// A name or number, without brackets.
        host: String,
        /// The port; 0: the kernel chooses one.
        port: u16,
    },
    /// `unix:PATH`, also `unix://PATH`.
    Unix(PathBuf),
    /// `fd://N`: a listening socket that this process inherited. It can be taken once.
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
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong("no path")) } else { Ok(Address::Unix(path.into())) };
        }
        let rest = text.strip_prefix("tcp://").unwrap_or(text);
        if rest.contains("://") || rest.contains('/') {
            return Err(wrong("unknown form"));
        }
        let (host, port) = split_port(rest).map_err(wrong)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong("no port number from 0 to 65535"))?,
            None => DEFAULT_PORT,
        };
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        Ok(Address::Tcp { host: host.to_owned(), port })
    }
}

/// Parses the number of a descriptor, or the name of a passed socket (`FileDescriptorName=`, systemd.socket(5)).
fn inherited(text: &str) -> Option<Address> {
    let is_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        return text.parse().ok().filter(|fd| *fd >= 0).map(Address::Inherited);
    }
    let is_name = text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    is_name.then(|| Address::Passed(text.to_owned()))
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
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            // Without the two slashes the path would parse as the other form.
            Address::Unix(path) if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "unix://{}", path.display())
            }
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Inherited(fd) => write!(f, "fd://{fd}"),
            Address::Passed(name) => write!(f, "fd://{name}"),
        }
    }
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
            ("fd://3", "fd://3"),
            ("fd://http", "fd://http"),
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
            "fd://",
            "fd://-1",
            "fd://99999999999",
            "fd://a:b",
            "ftp://h:1",
            "/run/a.sock",
        ] {
            let answer = parsed(text);
            assert!(answer.starts_with("error: "), "{text} became {answer}");
        }
    }
}
