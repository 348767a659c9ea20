//! Addresses of sockets that the service manager has passed: `fd://NAME`, and any address that one is bound to.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::open::OpenSet;
use super::{Address, Local};
use crate::error::{Error, ErrorKind, Result};
use crate::host::service_manager::{PassedSocket, ServiceManager};
use crate::sys::descriptor;

/// The name that stands for all passed sockets.
const ALL: &str = "*";

/// The place that a passed socket is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp {
        address: SocketAddr,
        /// Whether it also accepts IPv4 connections.
        is_dual: bool,
    },
    Unix(PathBuf),
    /// A socket of another kind, as its address shows it.
    Other(String),
    Unknown,
}

/// Takes the sockets that the service manager passes only by their names, before [`resolve`].
///
/// # Errors
/// There is no socket of a name, or this process is not one of launchd's.
#[cfg(target_vendor = "apple")]
pub(crate) fn activate(addresses: &[Address], manager: &mut ServiceManager) -> Result<()> {
    for address in addresses {
        let Address::Passed(name) = address else { continue };
        if name != ALL && !manager.sockets().iter().any(|socket| socket.name == *name) {
            let failed = |error| {
                let why = format!("cannot listen on {address}: launchd passes no socket of that name");
                Error::new(ErrorKind::Bind, why).caused_by(error)
            };
            manager.activate(name).map_err(failed)?;
        }
    }
    Ok(())
}

/// Does nothing here: the environment names all passed sockets.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn activate(_: &[Address], _: &mut ServiceManager) -> Result<()> {
    Ok(())
}

/// Replaces each address of passed sockets by their descriptors, at the start of a pool.
///
/// - `fd://NAME` stands for all passed sockets of that name, `fd://*` for all that no other address stands for.
/// - An address that a passed socket is bound to stands for that socket.
///
/// The log names the other sockets. They become close-on-exec, so that no program of the pool inherits them.
///
/// # Errors
/// No socket of a name was passed, or none at all; or a descriptor that the variables name was not inherited.
pub(crate) fn resolve(addresses: &[Address], manager: &ServiceManager) -> Result<Vec<Address>> {
    require_inherited(manager.sockets())?;
    let resolved = resolve_among(addresses, manager.sockets(), &place_of)?;
    for PassedSocket { fd, name } in manager.sockets() {
        if !resolved.contains(&Address::Inherited(*fd)) {
            descriptor::survive_exec(&[*fd], false);
            log::warn!("The passed socket fd://{name} (descriptor {fd}) is not served: no address names it");
        }
    }
    Ok(resolved)
}

/// Refuses variables that name a descriptor which is not open, or is a file that this process has opened itself.
fn require_inherited(sockets: &[PassedSocket]) -> Result<()> {
    match sockets.iter().find(|socket| !descriptor::is_inherited(socket.fd)) {
        None => Ok(()),
        Some(PassedSocket { fd, name }) => Err(Error::new(
            ErrorKind::Bind,
            format!(
                "cannot listen on fd://{name}: LISTEN_FDS passes descriptor {fd}, which this process did not inherit; \
                 the process that sets LISTEN_FDS has to leave its sockets open across the exec (sd_listen_fds(3))"
            ),
        )),
    }
}

/// The same for a pool that has taken its passed sockets: only those that are still in `open` count.
///
/// # Errors
/// Those of [`resolve`]; a socket can be taken at the start only.
pub(crate) fn resolve_in(
    addresses: &[Address],
    manager: &ServiceManager,
    open: &OpenSet,
) -> Result<Vec<Address>> {
    let kept = manager.sockets().iter().filter(|socket| open.contains(&Address::Inherited(socket.fd)));
    resolve_among(addresses, &kept.cloned().collect::<Vec<_>>(), &place_of)
}

fn resolve_among(
    addresses: &[Address],
    sockets: &[PassedSocket],
    place_of: &dyn Fn(&PassedSocket) -> Place,
) -> Result<Vec<Address>> {
    let places: Vec<(&PassedSocket, Place)> =
        sockets.iter().map(|socket| (socket, place_of(socket))).collect();
    let mut named = Vec::new();
    for address in addresses {
        named.push(match address {
            Address::Passed(name) if name == ALL && !sockets.is_empty() => Vec::new(),
            Address::Passed(name) => with_name(sockets, name)?,
            other => match places.iter().find(|(_, place)| is_at(other, place)) {
                Some((socket, _)) => vec![Address::Inherited(socket.fd)],
                None => vec![other.clone()],
            },
        });
    }
    let taken = named.concat();
    let rest: Vec<Address> = sockets
        .iter()
        .map(|socket| Address::Inherited(socket.fd))
        .filter(|address| !taken.contains(address))
        .collect();
    let is_all = |address: &Address| matches!(address, Address::Passed(name) if name == ALL);
    Ok(addresses
        .iter()
        .zip(named)
        .flat_map(|(address, found)| if is_all(address) { rest.clone() } else { found })
        .collect())
}

fn with_name(sockets: &[PassedSocket], name: &str) -> Result<Vec<Address>> {
    let found: Vec<Address> = sockets
        .iter()
        .filter(|socket| socket.name == name)
        .map(|socket| Address::Inherited(socket.fd))
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = sockets.iter().map(|socket| &*socket.name).collect();
    let passed = if names.is_empty() {
        "the service manager has passed no socket".to_owned()
    } else {
        format!("the service manager has passed sockets of these names: {}", names.join(", "))
    };
    Err(Error::new(ErrorKind::Bind, format!("cannot listen on fd://{name}: {passed}")))
}

/// The place that the socket is bound to.
fn place_of(socket: &PassedSocket) -> Place {
    let read = |socket: socket2::SockRef<'_>| {
        Ok(match Local::of(&socket) {
            Some(Local::Tcp(address)) => {
                let is_dual = address.is_ipv6() && !socket.only_v6().unwrap_or(true);
                Place::Tcp { address, is_dual }
            }
            Some(Local::Unix(path)) => Place::Unix(path),
            Some(other) => Place::Other(other.to_string()),
            None => Place::Unknown,
        })
    };
    descriptor::inspect(socket.fd, read).unwrap_or_else(|error: io::Error| {
        log::debug!("cannot read the address of descriptor {}: {error}", socket.fd);
        Place::Unknown
    })
}

/// Whether `address` cannot be bound because the socket at `place` is bound to it.
fn is_at(address: &Address, place: &Place) -> bool {
    match (address, place) {
        (Address::Tcp { host, port }, Place::Tcp { address, is_dual }) => {
            *port == address.port() && is_host(host, *address, *is_dual)
        }
        (Address::Unix(path), Place::Unix(bound)) => absolute(path) == absolute(bound),
        (Address::Tcp { .. } | Address::Unix(_), _) => false,
        (other, Place::Other(bound)) => other.to_string() == *bound,
        _ => false,
    }
}

/// Whether `host` is that of a socket that is `bound`. Resolves a name.
pub(super) fn is_host(host: &str, bound: SocketAddr, is_dual: bool) -> bool {
    let is_same = |ip: IpAddr| {
        ip == bound.ip() || is_dual && bound.ip().is_unspecified() && ip.is_unspecified() && ip.is_ipv4()
    };
    match host.parse::<IpAddr>() {
        Ok(ip) => is_same(ip),
        Err(_) => (host, bound.port())
            .to_socket_addrs()
            .is_ok_and(|mut found| found.any(|found| is_same(found.ip()))),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn sockets() -> [(PassedSocket, Place); 4] {
        let socket = |fd, name: &str| PassedSocket { fd, name: name.to_owned() };
        let tcp = |address: &str, is_dual| Place::Tcp { address: address.parse().unwrap(), is_dual };
        [
            (socket(3, "web"), tcp("127.0.0.1:8000", false)),
            (socket(4, "web"), tcp("[::]:8080", true)),
            (socket(5, "admin"), Place::Unix("/run/admin.sock".into())),
            (socket(6, "v6"), tcp("[::]:9000", false)),
        ]
    }

    fn resolved(addresses: &[&str]) -> std::result::Result<Vec<String>, String> {
        let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let known = sockets();
        let passed: Vec<PassedSocket> = known.iter().map(|(socket, _)| socket.clone()).collect();
        let place_of = |socket: &PassedSocket| {
            known.iter().find(|(known, _)| known == socket).map_or(Place::Unknown, |(_, place)| place.clone())
        };
        resolve_among(&addresses, &passed, &place_of)
            .map(|found| found.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn passed_sockets_are_found_by_their_names() {
        for (given, expected) in [
            (&["fd://*"][..], &["fd://3", "fd://4", "fd://5", "fd://6"][..]),
            (&["fd://web"], &["fd://3", "fd://4"]),
            (&["fd://admin", ":1", "fd://*"], &["fd://5", "0.0.0.0:1", "fd://3", "fd://4", "fd://6"]),
            (&["fd://*", "fd://web"], &["fd://5", "fd://6", "fd://3", "fd://4"]),
        ] {
            assert_eq!(resolved(given).unwrap(), expected, "{given:?}");
        }
        let none = resolve_among(&[Address::Passed(ALL.to_owned())], &[], &place_of).unwrap_err().to_string();
        assert!(none.contains("the service manager has passed no socket"), "{none}");
        let refused = resolved(&["fd://other"]).unwrap_err();
        assert!(refused.contains("fd://other") && refused.contains("web, web, admin, v6"), "{refused}");
    }

    #[test]
    fn an_address_that_a_passed_socket_is_bound_to_is_that_socket() {
        for (given, expected) in [
            ("127.0.0.1:8000", "fd://3"),
            ("localhost:8000", "fd://3"),
            ("127.0.0.1:8001", "127.0.0.1:8001"),
            ("127.0.0.2:8000", "127.0.0.2:8000"),
            ("0.0.0.0:8080", "fd://4"),
            ("[::]:8080", "fd://4"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:9000", "0.0.0.0:9000"),
            ("unix:/run/admin.sock", "fd://5"),
            ("unix:/run/other.sock", "unix:/run/other.sock"),
        ] {
            assert_eq!(resolved(&[given]).unwrap(), [expected], "{given}");
        }
    }

    #[test]
    fn a_passed_descriptor_that_was_not_inherited_is_named_with_its_variable() {
        let passed = |fd| PassedSocket { fd, name: "web".to_owned() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        descriptor::survive_exec(&[fd], true);
        assert!(require_inherited(&[passed(fd)]).is_ok());
        let refused = require_inherited(&[passed(fd), passed(99_999)]).unwrap_err().to_string();
        assert!(refused.contains("fd://web: LISTEN_FDS passes descriptor 99999"), "{refused}");
        // A file of this process has the number.
        descriptor::survive_exec(&[fd], false);
        assert!(require_inherited(&[passed(fd)]).is_err());
    }

    #[test]
    fn the_place_of_a_socket_is_read_from_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passed = |fd| PassedSocket { fd, name: String::new() };
        assert_eq!(place_of(&passed(listener.as_raw_fd())), Place::Tcp { address, is_dual: false });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(place_of(&passed(listener.as_raw_fd())), Place::Unix(path));
        assert_eq!(place_of(&passed(-1)), Place::Unknown);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let place = place_of(&passed(socket.as_raw_fd()));
        // A TCP address with the same number is another one.
        assert!(is_at(&format!("udp://{address}").parse().unwrap(), &place));
        assert!(!is_at(&address.to_string().parse().unwrap(), &place));
    }
}
