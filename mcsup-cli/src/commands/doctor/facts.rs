//! The facts of this host.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use mcsup_core::Address;
use mcsup_core::host::kernel;
use mcsup_core::host::ports::{self, Evidence, ListeningSocket, Place};
use mcsup_core::host::processes;
use mcsup_core::host::relatives::Relative;
use rustix::process::{Resource, getrlimit};

use crate::doctor::mistakes::Unit;
use crate::doctor::{Facts, Kernel, LeftBehind, Pool, Taken};
use crate::settings::Settings;

/// The bit of CAP_NET_BIND_SERVICE, capabilities(7).
const MAY_BIND: u64 = 1 << 10;

/// Collects all facts for a server with these settings.
pub(super) fn collect(settings: &Settings, units: Vec<Unit>) -> Facts {
    let (limit, sockets) = (getrlimit(Resource::Nofile), ports::listening());
    Facts {
        kernel: Kernel {
            name: kernel::name(),
            is_linux: cfg!(target_os = "linux"),
            has_pidfd: kernel::has_pidfd(),
            has_subreaper: kernel::has_subreaper(),
            has_exclusive_wakeups: kernel::has_exclusive_wakeups(),
            has_reuse_port: kernel::has_reuse_port(),
            has_sealed_memory: kernel::has_sealed_memory(),
            migrates_requests: kernel::migrates_requests(),
            backlog_limit: kernel::backlog_limit(),
            first_free_port: kernel::first_free_port(),
            has_own_proc: kernel::has_own_proc(),
        },
        descriptors: (limit.current, limit.maximum),
        temporary_files: temporary_file_error(),
        may_bind_all_ports: may_bind_all_ports(),
        pool: pool(settings),
        taken: settings.binds.value.iter().flat_map(|address| taken(address, &sockets)).collect(),
        left_behind: left_behind(&sockets),
        units,
    }
}

fn pool(settings: &Settings) -> Pool {
    let port = |address: &Address| match address {
        Address::Tcp { port, .. } => Some(*port),
        _ => None,
    };
    Pool {
        workers: settings.workers.value,
        addresses: settings.binds.value.len(),
        unexamined: settings.binds.value.iter().filter(is_unexamined).map(Address::to_string).collect(),
        ports: settings.binds.value.iter().filter_map(port).collect(),
        reuse_port: settings.reuse_port.value,
        backlog: u64::try_from(settings.backlog.value).unwrap_or_default(),
        connections: settings.limits.connections.value as u64,
    }
}

/// Whether an address is one that [`taken`] knows nothing of. A socket that is passed has no other holder.
fn is_unexamined(address: &&Address) -> bool {
    match address {
        Address::Tcp { port, .. } => *port != 0 && resolved(address).is_empty(),
        Address::Inherited(_) | Address::Passed(_) => false,
        _ => path_of(address).is_none(),
    }
}

/// The TCP addresses of an address.
fn resolved(address: &Address) -> Vec<SocketAddr> {
    match address {
        Address::Tcp { host, port } => {
            (host.as_str(), *port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The file of a Unix socket to which clients connect; an abstract name has none.
fn path_of(address: &Address) -> Option<PathBuf> {
    match address {
        Address::Unix(path) | Address::UnixSeqpacket(path) if !is_abstract(path) => {
            std::path::absolute(path).ok()
        }
        _ => None,
    }
}

/// A name in the abstract namespace begins with a NUL byte.
fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(&[0])
}

/// Why no file can be written where large request bodies go.
fn temporary_file_error() -> Option<String> {
    let folder = std::env::temp_dir();
    let error = write_in(&folder.join(format!(".mcsup-doctor-{}", std::process::id()))).err()?;
    Some(format!("{}: {error}", folder.display()))
}

/// Makes a file, and removes it. One of that name that is there stays: it is of another process.
fn write_in(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    let written = file.write_all(b"doctor");
    std::fs::remove_file(path).and(written)
}

fn may_bind_all_ports() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) {
        Some(set) => set & MAY_BIND != 0,
        None => rustix::process::geteuid().is_root(),
    }
}

/// The sockets that listen where an address of the server would.
fn taken(address: &Address, sockets: &[ListeningSocket]) -> Option<Taken> {
    let mut wanted = resolved(address);
    // The kernel selects a free port.
    wanted.retain(|wanted| wanted.port() != 0);
    let path = path_of(address);
    let is_there = |socket: &&ListeningSocket| match &socket.place {
        Place::Tcp(other) => wanted.iter().any(|wanted| processes::collides(*wanted, *other)),
        Place::Unix(other) => path.as_deref() == Some(other.as_path()),
        _ => false,
    };
    let found: Vec<&ListeningSocket> = sockets.iter().filter(is_there).collect();
    if found.is_empty() {
        return None;
    }
    let mut pids: Vec<i32> = found.iter().flat_map(|socket| socket.pids.iter().copied()).collect();
    pids.sort_unstable();
    pids.dedup();
    // The first one is the parent of the others, where there is one.
    pids.sort_by_key(|pid| Relative::find(*pid).is_some_and(|process| pids_contain(&found, process.parent)));
    let evidence = pids.iter().map(|pid| ports::left_behind(*pid, sockets)).min().unwrap_or(Evidence::None);
    Some(Taken {
        address: address.to_string(),
        is_ours: pids.iter().any(|pid| is_of_mcsup(*pid)),
        is_left_behind: evidence == Evidence::Strong,
        may_be_left_behind: evidence == Evidence::Weak,
        holders: pids.into_iter().map(|pid| (pid, processes::describe(pid))).collect(),
    })
}

fn pids_contain(sockets: &[&ListeningSocket], pid: i32) -> bool {
    sockets.iter().any(|socket| socket.pids.contains(&pid))
}

/// Whether a process is of a pool of mcsup: its workers map a scoreboard, and so does their supervisor.
fn is_of_mcsup(pid: i32) -> bool {
    Relative::find(pid).is_some_and(|process| process.has_scoreboard())
}

/// All processes with a listening socket that their server has left behind.
fn left_behind(sockets: &[ListeningSocket]) -> Vec<LeftBehind> {
    let mut places: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for socket in sockets {
        for pid in &socket.pids {
            places.entry(*pid).or_default().push(socket.place.to_string());
        }
    }
    // A single process may be a daemon, which is in order.
    let processes =
        places.into_iter().filter(|(pid, _)| ports::left_behind(*pid, sockets) == Evidence::Strong);
    processes
        .map(|(pid, addresses)| LeftBehind { pid, description: processes::describe(pid), addresses })
        .collect()
}

/// Whether a path is in a directory that `PrivateTmp=` replaces.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.starts_with("/tmp") || path.starts_with("/var/tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_of_the_temporary_directory_removes_its_own_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_in(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "of another process").unwrap();
        assert!(write_in(&path).is_err());
        assert!(path.exists());
    }

    #[test]
    fn addresses_of_other_kinds_are_not_examined() {
        for (text, expected) in [
            ("127.0.0.1:80", false),
            ("127.0.0.1:0", false),
            ("name.invalid:80", true),
            ("unix:a.sock", false),
            ("unix-seqpacket:a.sock", false),
            ("unix:@a", true),
            ("unix-datagram:a.sock", true),
            ("udp://127.0.0.1:53", true),
            ("vsock:3:80", true),
            ("fd://3", false),
        ] {
            assert_eq!(is_unexamined(&&text.parse().unwrap()), expected, "{text}");
        }
    }
}
