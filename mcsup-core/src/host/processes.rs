//! Descriptions of other processes: the holder of a port, parents and children. Uses /proc; without it,
//! results are empty.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::relatives::Relative;
use crate::sys::{kernel_text, signal};

/// The pid of this process.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Whether the numbers in /proc belong to this process's PID namespace.
///
/// A process in a new namespace may see the /proc of the old one, with numbers of other processes.
pub(super) fn numbers_are_ours() -> bool {
    let ours = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|number| number.as_os_str() == ours.as_str())
}

/// The path of a file of a process in /proc; `None`: /proc belongs to another PID namespace.
pub(super) fn file_of(pid: i32, name: &str) -> Option<PathBuf> {
    numbers_are_ours().then(|| format!("/proc/{pid}/{name}").into())
}

/// Whether a process is ending or has ended (proc_pid_stat(5): state and flags).
pub(crate) fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u64 = 4;
    let stat = file_of(pid, "stat").and_then(|file| kernel_text::read(file).ok()).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return true };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
    matches!(fields.first(), Some(&("Z" | "X"))) || flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// The entries of a folder of a process in /proc.
pub(super) fn entries_of(pid: i32, name: &str) -> Option<fs::ReadDir> {
    fs::read_dir(file_of(pid, name)?).ok()
}

/// A process, described for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its command line, shortened.
    pub command: String,
    /// The name (or number) of its user.
    pub user: String,
}

impl Process {
    /// Looks a process up; `None`: it does not exist, or is not visible.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let uid = fs::metadata(file_of(pid, "")?).ok()?.uid();
        Some(Self { pid, parent: parent_of(pid)?, command: command_of(pid), user: user_of(uid) })
    }

    /// Whether the first process has adopted it: it is a daemon, or its parent has died.
    pub(crate) fn is_orphan(&self) -> bool {
        self.parent == 1
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({}) of user {}", self.pid, self.command, self.user)
    }
}

/// Describes a process, by its pid alone if nothing else is known.
pub fn describe(pid: i32) -> String {
    Process::find(pid).map_or_else(|| format!("pid {pid}"), |process| process.to_string())
}

/// Describes a process briefly, as the sender of a signal. Does not read its memory, which may be swapped
/// out, or locked by a hanging process.
pub(crate) fn name(pid: i32) -> String {
    let name = file_of(pid, "comm").and_then(|file| kernel_text::read(file).ok());
    let uid = file_of(pid, "").and_then(|folder| Some(fs::metadata(folder).ok()?.uid()));
    match (name, uid) {
        (Some(name), Some(uid)) => format!("pid {pid} ({}) of user {}", name.trim_end(), user_of(uid)),
        _ => format!("pid {pid}"),
    }
}

/// The name of a local user, or its number. Does not ask a directory service, which may be slow.
pub fn user_of(uid: u32) -> String {
    let users = kernel_text::read("/etc/passwd").unwrap_or_default();
    users.lines().find_map(|line| name_in(line, uid)).map_or_else(|| uid.to_string(), str::to_owned)
}

/// Parses a line of passwd(5): name, password, user id, …
fn name_in(line: &str, uid: u32) -> Option<&str> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let number: u32 = fields.nth(1)?.parse().ok()?;
    (number == uid).then_some(name)
}

/// Describes the process that listens where `address` would: the first one, the number of those that share its
/// socket, and whether they are a server of mcsup.
pub(crate) fn holder_of_port(address: SocketAddr) -> Option<String> {
    let sockets: HashSet<u64> = listening_sockets()
        .into_iter()
        .filter(|(other, _)| collides(address, *other))
        .map(|(_, inode)| inode)
        .collect();
    let mut holders = if sockets.is_empty() { Vec::new() } else { holders_of(&sockets) };
    holders.sort_unstable();
    let first =
        *holders.iter().find(|pid| !parent_of(**pid).is_some_and(|parent| holders.contains(&parent)))?;
    let others = holders.len() - 1;
    let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
    // The supervisor of a daemon is an orphan, and nothing is wrong with it.
    let kind = if holders.iter().any(|pid| Relative::find(*pid).is_some_and(|it| it.has_scoreboard())) {
        ", a server of mcsup"
    } else if Process::find(first).is_some_and(|process| process.is_orphan()) {
        ", whose parent is gone (unless it is a daemon)"
    } else {
        ""
    };
    Some(format!("{}{more}{kind}", describe(first)))
}

/// The TCP addresses on which process `pid` listens.
pub fn listening_addresses(pid: i32) -> Vec<SocketAddr> {
    let sockets = sockets_of(pid);
    let listening = listening_sockets().into_iter();
    listening.filter(|(_, inode)| sockets.contains(inode)).map(|(address, _)| address).collect()
}

/// Makes the status of each child of this process available, where its parent has had SIGCHLD ignored.
///
/// An exec keeps a signal ignored, and the kernel then reaps each child itself (sigaction(2)):
/// [`std::process::Command`] reports an error although the command has run.
pub fn keep_statuses_of_children() {
    signal::stop_ignoring(rustix::process::Signal::CHILD.as_raw());
}

/// The children of process `pid`.
pub fn children_of(pid: i32) -> Vec<i32> {
    all_pids().into_iter().filter(|child| parent_of(*child) == Some(pid)).collect()
}

pub(super) fn all_pids() -> Vec<i32> {
    if !numbers_are_ours() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The pid of the parent: the second field after the command's closing parenthesis in proc_pid_stat(5).
fn parent_of(pid: i32) -> Option<i32> {
    let stat = kernel_text::read(file_of(pid, "stat")?).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The command line of a process, shortened, on one line.
pub(super) fn command_of(pid: i32) -> String {
    let line = file_of(pid, "cmdline").and_then(|file| fs::read(file).ok()).unwrap_or_default();
    let words: Vec<_> =
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    let command = if words.is_empty() {
        let name = file_of(pid, "comm").and_then(|file| kernel_text::read(file).ok());
        name.unwrap_or_default().trim_end().to_owned()
    } else {
        words.join(" ")
    };
    let command = command.replace(char::is_control, " ");
    // Long enough for two paths into a virtual environment, `.../bin/python3 .../bin/mcsup`, and some
    // arguments.
    match command.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command,
    }
}

/// The pids that have one of `sockets` open, as far as this user may see.
fn holders_of(sockets: &HashSet<u64>) -> Vec<i32> {
    all_pids().into_iter().filter(|pid| !sockets_of(*pid).is_disjoint(sockets)).collect()
}

/// The inode numbers of the sockets of `pid`.
pub(super) fn sockets_of(pid: i32) -> HashSet<u64> {
    let Some(entries) = entries_of(pid, "fd") else { return HashSet::new() };
    entries.flatten().filter_map(|entry| socket_of(&fs::read_link(entry.path()).ok()?)).collect()
}

/// The inode number of the socket behind a link in /proc/PID/fd.
pub(super) fn socket_of(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The clients with an unfinished handshake on the TCP port `port`: no listener's queue contains them yet.
pub(super) fn handshakes_by_text(port: u16) -> io::Result<HashSet<SocketAddr>> {
    const SYN_RECV: &str = "03";
    let clients = tcp_table()?
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let ours = fields.get(3) == Some(&SYN_RECV) && hex_socket(fields.get(1)?)?.port() == port;
            if ours { hex_socket(fields.get(2)?) } else { None }
        })
        .collect();
    Ok(clients)
}

/// The inode number of the TCP socket at `local` that is connected to `remote`; 0: no process has accepted it.
/// `None`: there is none in this network namespace.
///
/// # Errors
/// The kernel's table cannot be read.
pub(crate) fn socket_between(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u64>> {
    let is_same = |text: &str, address: SocketAddr| {
        // A socket for both families shows an IPv4 address as an IPv6 one.
        let found = hex_socket(text).map(|found| (found.ip().to_canonical(), found.port()));
        found == Some((address.ip().to_canonical(), address.port()))
    };
    let table = tcp_table()?;
    let mut found = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = is_same(fields.get(1)?, local) && is_same(fields.get(2)?, remote);
        if is_it { fields.get(9)?.parse().ok() } else { None }
    });
    Ok(found.next())
}

/// All listening TCP sockets of this network namespace with their inode numbers (proc_net(5)).
pub(super) fn listening_sockets() -> Vec<(SocketAddr, u64)> {
    tcp_table().unwrap_or_default().lines().filter_map(listening_line).collect()
}

/// The kernel's table of TCP sockets, of both families. Header lines do not parse as sockets.
///
/// # Errors
/// A table that this user may see cannot be read.
fn tcp_table() -> io::Result<String> {
    let mut all = String::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match kernel_text::read(table) {
            Ok(text) => all.push_str(&text),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn listening_line(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.get(3) != Some(&LISTEN) {
        return None;
    }
    let inode = fields.get(9)?.parse().ok()?;
    Some((hex_socket(fields.get(1)?)?, inode))
}

fn hex_socket(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    Some(SocketAddr::new(hex_address(ip)?, u16::from_str_radix(port, 16).ok()?))
}

/// Parses an address: 32-bit words in the machine's byte order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let words: Option<Vec<u32>> =
        (0..text.len() / 8).map(|i| u32::from_str_radix(text.get(i * 8..i * 8 + 8)?, 16).ok()).collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// Whether two listeners conflict: equal ports, and equal or unspecified addresses.
///
/// `[::]` is every address of IPv4 too (ipv6(7)). No text of the kernel shows a socket whose program has set
/// IPV6_V6ONLY, so it counts as any other.
pub fn collides(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let includes = |any: IpAddr, ip: IpAddr| any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4());
    one.port() == other.port()
        && (one_ip == other_ip || includes(one_ip, other_ip) || includes(other_ip, one_ip))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let ours = std::process::id();
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let holder = holder_of_port(listener.local_addr().unwrap()).unwrap();
            assert!(holder.starts_with(&format!("pid {ours} (")), "{holder}");
        }
    }

    #[test]
    fn listeners_conflict_at_one_address_and_where_one_of_them_includes_the_other() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "[::1]:80", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((collides(one, other), collides(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn a_user_is_named_by_the_local_file_or_by_number() {
        assert_eq!((user_of(0), user_of(4_000_000_000)), ("root".to_owned(), "4000000000".to_owned()));
        assert_eq!(name_in("app:x:1000:1000::/:/bin/sh", 1000), Some("app"));
        for other in ["app:x:1000", "app:x:70:7", "+::::::", "", "app"] {
            assert_eq!(name_in(other, 7), None, "{other}");
        }
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(name(ours).starts_with(&format!("pid {ours} (")) && name(ours).contains(") of user "));
        assert_eq!(name(i32::MAX), format!("pid {}", i32::MAX));
    }

    #[test]
    fn the_status_of_a_child_is_known_where_a_parent_has_ignored_its_signal() {
        crate::sys::fork::in_a_process(|| {
            let ignored = signal::Disposition::ignored();
            signal::dispose(rustix::process::Signal::CHILD.as_raw(), &ignored).unwrap();
            let status = || std::process::Command::new("true").status();
            assert_eq!(status().unwrap_err().raw_os_error(), Some(libc::ECHILD));
            keep_statuses_of_children();
            assert!(status().unwrap().success());
        });
    }

    #[test]
    fn our_own_listeners_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(listening_addresses(ours).contains(&listener.local_addr().unwrap()));
    }

    #[test]
    fn a_child_is_found_and_described() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(children_of(ours).contains(&pid));
        assert!(describe(pid).contains(&format!("pid {pid} (")));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
