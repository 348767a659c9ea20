//! Listeners that the service manager stores, so that their queues outlive a supervisor that crashes.
//!
//! The name of a stored socket (`FDNAME=`, sd_pid_notify_with_fds(3)) holds all that its next supervisor needs. Each
//! process that may notify the service manager chooses names and sockets, also a worker with fewer rights. So the
//! socket itself must confirm its name.

use std::os::fd::{AsFd, BorrowedFd};

use super::activation::is_host;
use super::open::OpenSet;
use super::record::ListenerRecord;
use super::{Address, Local};
use crate::host::service_manager::{PassedSocket, STORED};
use crate::sys::{descriptor, listening};

/// The longest name of a stored socket.
const LONGEST: usize = 255;

/// The sockets of an earlier supervisor.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// The usable ones, each with the name in the store.
    pub(crate) set: OpenSet,
    /// The names of the others, which are closed.
    pub(crate) unusable: Vec<String>,
}

/// The sockets of `set` that can be stored, with their names.
///
/// Passed sockets are the service manager's already, and own listeners are opened by the program. Sockets of slots are
/// not stored: the kernel would go on to give connections to those of slots that the next supervisor lacks.
pub(crate) fn storable(set: &OpenSet) -> Vec<(String, BorrowedFd<'_>)> {
    let records = set.describe().into_iter().filter(|record| record.slot.is_none() && !record.is_own);
    let named = records.filter(|record| !record.address.starts_with("fd://"));
    named.filter_map(|record| Some((name_of(&record)?, set.descriptor(record.fd)?))).collect()
}

/// Adopts the sockets of an earlier supervisor, and closes those that are of no use.
pub(crate) fn adopt(stored: &[PassedSocket]) -> Adopted {
    let mut adopted = Adopted::default();
    for PassedSocket { fd, name } in stored {
        let record = parse(name, *fd).and_then(confirmed);
        let opened = record.and_then(|record| OpenSet::adopt(&[record], &[]).ok());
        match opened {
            Some(set) if !adopted.set.shares_any_with(&set) => {
                accept_new(&set);
                adopted.set.extend(set);
            }
            opened => {
                // The set closes its socket itself.
                if opened.is_none() {
                    drop(descriptor::take_recorded(*fd));
                }
                log::warn!("The stored socket {name:?} is of no use: it is closed");
                adopted.unusable.push(name.clone());
            }
        }
    }
    adopted
}

/// Lets new clients into the queues of `set`: the earlier supervisor may have been killed while it stopped.
fn accept_new(set: &OpenSet) {
    for listener in set.iter() {
        if let Err(error) = listening::accept_new(listener.as_fd()) {
            log::warn!("Cannot let new clients connect to {}: {error}", listener.local());
        }
    }
}

/// The name of a socket in the store.
fn name_of(record: &ListenerRecord) -> Option<String> {
    let mut name = format!("{STORED}{}", encoded(&record.address));
    if let Some(bound) = &record.bound {
        name = format!("{name},{}", encoded(&serde_json::to_string(bound).ok()?));
    }
    let is_short = name.len() <= LONGEST;
    if !is_short {
        log::debug!("{} is not stored: its name is too long", record.address);
    }
    is_short.then_some(name)
}

fn parse(name: &str, fd: i32) -> Option<ListenerRecord> {
    let mut parts = name.strip_prefix(STORED)?.split(',').map(decoded);
    let address = parts.next()??;
    let bound = match parts.next() {
        Some(text) => Some(serde_json::from_str(&text?).ok()?),
        None => None,
    };
    parts.next().is_none().then_some(ListenerRecord { address, is_own: false, fd, slot: None, bound })
}

/// The record of a socket that this user has opened at the recorded address, with the owner of its file.
fn confirmed(record: ListenerRecord) -> Option<ListenerRecord> {
    let read = |socket: socket2::SockRef<'_>| Ok(Local::of(&socket).filter(|_| is_ours(socket.as_fd())));
    let local = descriptor::inspect(record.fd, read).ok()??;
    if !is_at(&record.address.parse().ok()?, &local) {
        return None;
    }
    let bound = match (record.bound, local.file()) {
        (None, None) => None,
        (Some(bound), Some(path)) => Some(bound.confirmed(path)?),
        _ => return None,
    };
    Some(ListenerRecord { bound, ..record })
}

/// Whether a supervisor of this user has opened `socket`: the kernel notes the user (sock_alloc in net/socket.c), and
/// only root can change it.
#[cfg(target_os = "linux")]
fn is_ours(socket: BorrowedFd<'_>) -> bool {
    let user = rustix::process::geteuid().as_raw();
    rustix::fs::fstat(socket).is_ok_and(|status| status.st_uid == user)
}

/// Unknown here.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: BorrowedFd<'_>) -> bool {
    true
}

/// Whether a socket of ours at `local` can be that of `address`. The kernel has chosen the port of port 0.
fn is_at(address: &Address, local: &Local) -> bool {
    match (address, local) {
        (Address::Tcp { host, port }, Local::Tcp(bound))
        | (Address::Udp { host, port }, Local::Udp(bound)) => {
            [0, bound.port()].contains(port) && is_host(host, *bound, false)
        }
        (Address::Unix(path), Local::Unix(bound))
        | (Address::UnixDatagram(path), Local::UnixDatagram(bound))
        | (Address::UnixSeqpacket(path), Local::UnixSeqpacket(bound)) => path == bound,
        (Address::Vsock { cid, port }, Local::Vsock { cid: bound, port: bound_port }) => {
            (cid, port) == (bound, bound_port)
        }
        _ => false,
    }
}

/// Percent-encodes the bytes that a name cannot contain, and the comma.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',' | b'%');
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        rest = escaped.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::unix::Bound;
    use super::*;
    use crate::listener::Options;
    use std::os::fd::AsRawFd;

    fn open(addresses: &[&str], reuse_port: bool) -> OpenSet {
        let addresses: Vec<Address> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        OpenSet::open(&addresses, &Options { reuse_port, ..Options::default() }, 2).unwrap()
    }

    /// The store as the service manager passes it to the next supervisor.
    fn passed(set: &OpenSet) -> Vec<PassedSocket> {
        let copy = |fd: BorrowedFd<'_>| rustix::io::dup(fd).unwrap();
        let stored = storable(set).into_iter();
        stored
            .map(|(name, fd)| PassedSocket { fd: std::os::fd::IntoRawFd::into_raw_fd(copy(fd)), name })
            .collect()
    }

    #[test]
    fn stored_sockets_are_the_same_ones_again_at_the_same_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("unix:{}/a,b: 1%.sock", directory.path().display());
        let set = open(&["127.0.0.1:0", &path], false);
        let stored = passed(&set);
        assert!(
            stored.iter().all(|socket| !socket.name.contains(':') && socket.name.is_ascii()),
            "{stored:?}"
        );
        let adopted = adopt(&stored);
        assert_eq!(adopted.unusable, [""; 0]);
        let same = |set: &OpenSet| -> Vec<_> {
            set.iter().map(|listener| descriptor::inode(std::os::fd::AsFd::as_fd(listener))).collect()
        };
        assert_eq!(same(&adopted.set), same(&set));
        assert!(adopted.set.contains(&path.parse().unwrap()));
        adopted.set.withdraw();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_stored_socket_that_refused_new_clients_at_a_stop_accepts_them_again() {
        let set = open(&["127.0.0.1:0"], false);
        let stored = passed(&set);
        set.refuse_new_where_lacking(&OpenSet::default());
        drop(set);
        let adopted = adopt(&stored).set;
        let crate::listener::Local::Tcp(address) = adopted[0].local() else { panic!("not TCP") };
        // A refused one would try again after a second.
        let limit = std::time::Duration::from_millis(500);
        std::net::TcpStream::connect_timeout(address, limit).unwrap();
        // A socket without a filter is no error.
        listening::accept_new(adopted[0].as_fd()).unwrap();
    }

    #[test]
    fn sockets_of_slots_are_not_stored() {
        if crate::sys::listening::SPREADS {
            assert_eq!(passed(&open(&["127.0.0.1:0"], true)), []);
        }
    }

    #[test]
    fn a_stored_socket_of_no_use_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("unix:{}/a.sock", directory.path().display());
        let set = open(&["127.0.0.1:0", &path], false);
        let mut stored = passed(&set);
        // The same again, a path that is gone, and a name of another version.
        stored.extend(passed(&set).into_iter().take(1));
        set.withdraw();
        let other = std::fs::File::open("/dev/null").unwrap();
        stored.push(PassedSocket {
            fd: std::os::fd::IntoRawFd::into_raw_fd(other),
            name: format!("{STORED}127.0.0.1%3A1,x"),
        });
        let adopted = adopt(&stored);
        assert_eq!(adopted.unusable.len(), 3);
        let kept: Vec<i32> =
            adopted.set.iter().map(|listener| std::os::fd::AsFd::as_fd(listener).as_raw_fd()).collect();
        assert_eq!(kept, [stored[0].fd]);
        for closed in &stored[1..] {
            assert!(descriptor::identity(closed.fd).is_err(), "{closed:?}");
        }
    }

    /// A store with one socket, to which a process of the pool has given another name.
    fn renamed(set: &OpenSet, name: &str) -> Vec<PassedSocket> {
        let mut stored = passed(set);
        assert_eq!(stored.len(), 1);
        stored[0].name = name.to_owned();
        stored
    }

    fn name_with(address: &str, bound: &Bound) -> String {
        format!("{STORED}{},{}", encoded(address), encoded(&serde_json::to_string(bound).unwrap()))
    }

    #[test]
    fn a_name_in_the_store_leads_to_no_file_but_that_of_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let address = format!("unix:{}", file("a.sock").display());
        let set = open(&[&address], false);
        let tcp = open(&["127.0.0.1:0"], false);
        std::fs::write(file("victim"), "").unwrap();
        let _server = std::os::unix::net::UnixListener::bind(file("server.sock")).unwrap();
        for victim in ["victim", "server.sock"] {
            let bound = Bound::at(&file(victim)).unwrap();
            let at_victim = format!("unix:{}", file(victim).display());
            for (set, address) in [(&set, &address), (&set, &at_victim), (&tcp, &at_victim)] {
                let adopted = adopt(&renamed(set, &name_with(address, &bound)));
                adopted.set.withdraw();
                assert_eq!(adopted.unusable.len(), 1, "{address} with {victim}");
                assert!(file(victim).exists() && file("a.sock").exists());
            }
        }
        // Nor is the file of the socket forgotten.
        assert_eq!(adopt(&renamed(&set, &format!("{STORED}{}", encoded(&address)))).unusable.len(), 1);
    }

    #[test]
    fn a_stored_socket_is_not_taken_for_one_at_another_address() {
        let set = open(&["127.0.0.1:0"], false);
        let crate::listener::Local::Tcp(own) = set[0].local() else { panic!("not TCP") };
        let other = |ip: &str, port: u16| format!("{STORED}{}", encoded(&format!("{ip}:{port}")));
        for name in [
            other("127.0.0.1", own.port() ^ 1),
            other("127.0.0.2", own.port()),
            other("127.0.0.2", 0),
            other("udp://127.0.0.1", own.port()),
            other("unix", own.port()),
            format!("{STORED}{}", encoded("fd://3")),
        ] {
            let adopted = adopt(&renamed(&set, &name));
            assert_eq!((adopted.set.len(), adopted.unusable), (0, vec![name]));
        }
        for address in ["127.0.0.1", "localhost"] {
            assert_eq!(adopt(&renamed(&set, &other(address, own.port()))).unusable, [""; 0]);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_that_another_user_has_opened_is_of_no_use() {
        let set = open(&["127.0.0.1:0"], false);
        // Only root can make a socket that of another user.
        if rustix::fs::fchown(&set[0], Some(rustix::fs::Uid::from_raw(4711)), None).is_ok() {
            assert_eq!(adopt(&passed(&set)).unusable.len(), 1);
        }
    }

    #[test]
    fn the_owner_of_a_stored_socket_file_is_that_of_the_file_and_not_of_the_name() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let address = format!("unix:{}", path.display());
        let set = open(&[&address], false);
        let owners = || std::fs::metadata(&path).map(|file| (file.uid(), file.gid())).unwrap();
        let before = owners();
        let name = name_with(&address, &Bound::at(&path).unwrap());
        let forged = ["uid", "gid"].iter().fold(name, |name, field| {
            let number = if *field == "uid" { before.0 } else { before.1 };
            let given = encoded(&format!("\"{field}\":{number}"));
            assert!(name.contains(&given), "{name}");
            name.replace(&given, &encoded(&format!("\"{field}\":4711")))
        });
        let mut adopted = adopt(&renamed(&set, &forged));
        assert_eq!(adopted.unusable, [""; 0]);
        adopted.set.apply(&Options::default());
        assert_eq!(owners(), before);
    }
}
