//! The listening sockets of this host, and the processes that have them open. Uses /proc; without it, there are
//! none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::processes;
use super::relatives::Relative;
use crate::sys::kernel_text;

/// The place that a socket listens at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A stream socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListeningSocket {
    /// Its place.
    pub place: Place,
    /// The processes that have it open, as far as this user may see; the lowest pid first.
    pub pids: Vec<i32>,
}

/// All listening sockets of this network namespace.
pub fn listening() -> Vec<ListeningSocket> {
    let tcp = processes::listening_sockets().into_iter().map(|(address, inode)| (Place::Tcp(address), inode));
    let mut sockets: BTreeMap<u64, ListeningSocket> = tcp
        .chain(unix_sockets())
        .map(|(place, inode)| (inode, ListeningSocket { place, pids: Vec::new() }))
        .collect();
    let mut pids = processes::all_pids();
    pids.sort_unstable();
    for pid in pids {
        let open: BTreeSet<u64> = processes::sockets_of(pid).into_iter().collect();
        for inode in open {
            if let Some(socket) = sockets.get_mut(&inode) {
                socket.pids.push(pid);
            }
        }
    }
    let mut sockets: Vec<ListeningSocket> = sockets.into_values().collect();
    sockets.sort_by(|one, other| one.place.cmp(&other.place));
    sockets
}

/// The listening stream sockets of proc_net(5), `unix`, that have a path.
fn unix_sockets() -> Vec<(Place, u64)> {
    let text = kernel_text::read("/proc/net/unix").unwrap_or_default();
    text.lines().filter_map(unix_line).collect()
}

/// Parses `NUM: REFCOUNT PROTOCOL FLAGS TYPE STATE INODE PATH`. Flag 0x10000: it accepts connections.
fn unix_line(line: &str) -> Option<(Place, u64)> {
    const ACCEPTS: u32 = 0x10000;
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..7 {
        let (field, behind) = rest.trim_start().split_once(' ')?;
        fields.push(field);
        rest = behind;
    }
    let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
    let path = rest.trim_start();
    let is_listed = flags & ACCEPTS != 0 && path.starts_with('/');
    is_listed.then_some((Place::Unix(path.into()), fields.get(6)?.parse().ok()?))
}

/// The evidence that a server has left a process behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Evidence {
    /// None: its parent or the leader of its group lives, or it has children at the same socket.
    None,
    /// It is an orphan without its group's leader, and so is a daemon that has forked twice (daemon(7)).
    Weak,
    /// It shares its socket with such an orphan of the same group: their parent has ended.
    Strong,
}

/// The evidence that the server of process `pid` is gone, with the listening sockets of this host.
pub fn left_behind(pid: i32, sockets: &[ListeningSocket]) -> Evidence {
    let Some(process) = Relative::find(pid).filter(is_without_leader) else { return Evidence::None };
    let shared = sockets.iter().filter(|socket| socket.pids.contains(&pid));
    let others: Vec<Relative> =
        shared.flat_map(|socket| &socket.pids).copied().filter_map(Relative::find).collect();
    judge(&process, &others, is_without_leader)
}

/// Judges an orphan by the processes at its sockets.
fn judge(process: &Relative, others: &[Relative], is_orphan: impl Fn(&Relative) -> bool) -> Evidence {
    let is_sibling =
        |other: &Relative| other.pid != process.pid && other.group == process.group && is_orphan(other);
    if others.iter().any(|other| other.parent == process.pid) {
        // It is a server with its workers.
        Evidence::None
    } else if others.iter().any(is_sibling) {
        Evidence::Strong
    } else {
        Evidence::Weak
    }
}

/// Whether a process is an orphan, and the leader of its group has ended.
fn is_without_leader(process: &Relative) -> bool {
    let lives = |leader: Relative| !leader.is_zombie;
    let has_leader = process.group == process.pid || Relative::find(process.group).is_some_and(lives);
    !process.is_zombie && !has_leader && (process.parent <= 1 || adopts_orphans(process.parent))
}

/// Whether a process is the first one, or a service manager of a user, which adopts orphans too.
fn adopts_orphans(pid: i32) -> bool {
    pid == 1 || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "systemd")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn our_own_sockets_are_found_with_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.sock");
        let (tcp, _unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
        let sockets = listening();
        for place in [Place::Tcp(tcp.local_addr().unwrap()), Place::Unix(path)] {
            let socket = sockets.iter().find(|socket| socket.place == place).unwrap();
            assert!(socket.pids.contains(&processes::own_pid()), "{socket:?}");
        }
    }

    #[test]
    fn a_line_of_a_connected_or_abstract_socket_is_no_place() {
        let line = |flags: &str, path: &str| {
            unix_line(&format!("0000000000000000: 00000002 00000000 {flags} 0001 01 24712 {path}"))
        };
        assert_eq!(line("00010000", "/run/a.sock"), Some((Place::Unix("/run/a.sock".into()), 24712)));
        assert_eq!((line("00000000", "/run/a.sock"), line("00010000", "@a")), (None, None));
        assert_eq!(unix_line("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_process_with_its_parent_is_not_left_behind() {
        for pid in [processes::own_pid(), i32::MAX] {
            assert_eq!(left_behind(pid, &listening()), Evidence::None);
        }
    }

    #[test]
    fn a_daemon_is_no_leftover_and_workers_without_their_server_are() {
        let process = |pid, parent| Relative { pid, parent, ..Relative::find(processes::own_pid()).unwrap() };
        let foreign = Relative { group: 1, ..process(8, 1) };
        for (others, expected) in [
            (&[][..], Evidence::Weak),
            // The server of some workers.
            (&[process(8, 7), process(9, 7)], Evidence::None),
            (&[process(8, 1)], Evidence::Strong),
            (&[foreign], Evidence::Weak),
            (&[process(8, 9)], Evidence::Weak),
        ] {
            let all: Vec<Relative> = others.iter().copied().chain([process(7, 1)]).collect();
            assert_eq!(judge(&process(7, 1), &all, |other| other.parent == 1), expected, "{others:?}");
        }
    }
}
