//! Listeners that the service manager stores, so that their queues outlive a supervisor that crashes.
//!
//! The name of a stored socket (`FDNAME=`, sd_pid_notify_with_fds(3)) holds all that its next supervisor needs.

use std::os::fd::{AsFd, BorrowedFd};

use super::open::OpenSet;
use super::record::ListenerRecord;
use super::unix::Bound;
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
        let record = parse(name, *fd).filter(|record| record.bound.as_ref().is_none_or(Bound::is_present));
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
    use super::*;
    use crate::listener::{Address, Options};
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
}
