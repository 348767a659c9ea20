//! The facts of this host.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use mcsup_core::Address;
use mcsup_core::host::kernel::Kernel;
use mcsup_core::host::ports::{self, ListeningSocket, Place};
use mcsup_core::host::processes;
use mcsup_core::host::relatives::Relative;
use rustix::process::{Resource, getrlimit};

use crate::doctor::mistakes::Unit;
use crate::doctor::{self, Facts, LeftBehind, Pool, Taken};
use crate::settings::Settings;

/// The bit of CAP_NET_BIND_SERVICE, capabilities(7).
const MAY_BIND: u64 = 1 << 10;

/// Collects all facts for a server with these settings.
pub(super) fn collect(settings: &Settings, units: Vec<Unit>) -> Facts {
    let (kernel, limit, sockets) = (Kernel::probe(), getrlimit(Resource::Nofile), ports::listening());
    Facts {
        kernel: doctor::Kernel {
            name: kernel.name,
            is_linux: cfg!(target_os = "linux"),
            has_pidfd: kernel.has_pidfd,
            has_subreaper: kernel.has_subreaper,
            has_exclusive_wakeups: kernel.has_exclusive_wakeups,
            has_reuse_port: kernel.has_reuse_port,
            has_sealed_memory: kernel.has_sealed_memory,
            migrates_requests: kernel.migrates_requests,
            backlog_limit: kernel.backlog_limit,
            first_free_port: kernel.first_free_port,
            has_own_proc: kernel.has_own_proc,
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
        ports: settings.binds.value.iter().filter_map(port).collect(),
        reuse_port: settings.reuse_port.value,
        backlog: u64::try_from(settings.backlog.value).unwrap_or_default(),
        connections: settings.limits.connections.value as u64,
    }
}

/// Why no file can be written where large request bodies go.
fn temporary_file_error() -> Option<String> {
    let folder = std::env::temp_dir();
    let path = folder.join(format!(".mcsup-doctor-{}", std::process::id()));
    let written = std::fs::File::create_new(&path).and_then(|mut file| file.write_all(b"doctor"));
    let removed = std::fs::remove_file(&path);
    let error = written.and(removed).err()?;
    Some(format!("{}: {error}", folder.display()))
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
    let wanted = match address {
        Address::Tcp { port: 0, .. } => return None,
        Address::Tcp { host, port } => (host.as_str(), *port).to_socket_addrs().ok()?.collect(),
        _ => Vec::new(),
    };
    let path = match address {
        Address::Unix(path) => Some(std::path::absolute(path).ok()?),
        _ => None,
    };
    let is_there = |socket: &&ListeningSocket| match &socket.place {
        Place::Tcp(other) => wanted.iter().any(|wanted| collides(*wanted, *other)),
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
    Some(Taken {
        address: address.to_string(),
        is_ours: pids.iter().any(|pid| is_of_mcsup(*pid)),
        is_left_behind: !pids.is_empty() && pids.iter().all(|pid| ports::is_left_behind(*pid)),
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

/// Whether two listeners conflict: equal ports, and equal or unspecified addresses.
fn collides(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || is_any)
}

/// All processes with a listening socket that their server has left behind.
fn left_behind(sockets: &[ListeningSocket]) -> Vec<LeftBehind> {
    let mut places: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for socket in sockets {
        for pid in &socket.pids {
            places.entry(*pid).or_default().push(socket.place.to_string());
        }
    }
    let processes = places.into_iter().filter(|(pid, _)| ports::is_left_behind(*pid));
    processes
        .map(|(pid, addresses)| LeftBehind { pid, description: processes::describe(pid), addresses })
        .collect()
}

/// Whether a path is in a directory that `PrivateTmp=` replaces.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.starts_with("/tmp") || path.starts_with("/var/tmp")
}
