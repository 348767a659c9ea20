//! Unix sockets: streams, datagrams and seqpackets, with an exact mode. A live server keeps its path.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::local::abstract_name;
use super::options::Options;
use super::{Connection, Listener, Local};
use crate::error::{Error, ErrorKind, Result};
use crate::host::processes;
use crate::sys::held_file::HeldFile;

/// The types of Unix sockets (unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnixKind {
    Stream,
    Datagram,
    Seqpacket,
}

impl UnixKind {
    fn socket_type(self) -> Type {
        match self {
            UnixKind::Stream => Type::STREAM,
            UnixKind::Datagram => Type::DGRAM,
            UnixKind::Seqpacket => Type::SEQPACKET,
        }
    }

    fn local(self, path: PathBuf) -> Local {
        match self {
            UnixKind::Stream => Local::Unix(path),
            UnixKind::Datagram => Local::UnixDatagram(path),
            UnixKind::Seqpacket => Local::UnixSeqpacket(path),
        }
    }
}

/// A bound Unix socket, which listens unless it is for datagrams. Only `withdraw` removes its path, and only while the path is ours.
#[derive(Debug)]
pub(crate) struct UnixListening {
    socket: Socket,
    local: Local,
    /// The socket file that this process bound; `None`: it has none, or the socket was inherited and its
    /// path is not ours.
    bound: Option<Bound>,
}

/// A socket file: its path, its identity, and its owner before it was given away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    /// Absolute, so that it can be unlinked after a change of directory.
    #[serde(with = "crate::host::recorded_path")]
    path: PathBuf,
    device: u64,
    inode: u64,
    uid: u32,
    gid: u32,
}

/// Mode, user and group of a socket file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl UnixListening {
    /// Binds and listens. Replaces the file of a dead server. An abstract name has no file and no mode.
    ///
    /// # Errors
    /// A live server has the path (the error names it), or a system call fails.
    pub(crate) fn open(path: &Path, kind: UnixKind, options: &Options) -> Result<Self> {
        let name = kind.local(path.to_owned());
        let fail = |error: io::Error| {
            Error::new(ErrorKind::Bind, format!("cannot listen on {name}")).caused_by(error)
        };
        let is_abstract = abstract_name(path).is_some();
        let way = if is_abstract { require_abstract_names() } else { make_way(path, kind) };
        way.map_err(|why| Error::new(ErrorKind::Bind, format!("cannot listen on {name}: {why}")))?;
        let socket = Socket::new(Domain::UNIX, kind.socket_type(), None).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        bind(&socket, path, options.unix_mode).map_err(|error| match holder_of_name(path, kind, &error) {
            Some(holder) => {
                Error::new(ErrorKind::Bind, format!("cannot listen on {name}: the name is held by {holder}"))
            }
            None => fail(error),
        })?;
        if is_abstract {
            listen(&socket, kind, options.backlog).map_err(fail)?;
            return Ok(Self { socket, local: name, bound: None });
        }
        let given = listen(&socket, kind, options.backlog).and_then(|()| give(path, options.unix_owner));
        let bound = given.map_err(|error| {
            // A failed start leaves no file behind.
            let _ = fs::remove_file(path);
            fail(error)
        })?;
        Ok(Self { socket, local: kind.local(bound.path.clone()), bound: Some(bound) })
    }

    /// Wraps a socket that is already bound.
    pub(crate) fn adopt(socket: Socket) -> Result<Self> {
        let step = |error| Error::system("adopt a listening Unix socket", error);
        socket.set_nonblocking(true).map_err(step)?;
        let local = Local::of(&socket).ok_or_else(|| step(io::Error::other("its kind is unknown")))?;
        Ok(Self { socket, local, bound: None })
    }

    /// Wraps a socket that the previous image bound, with its path.
    pub(crate) fn adopt_bound(socket: Socket, bound: Bound) -> Result<Self> {
        let adopted = Self::adopt(socket)?;
        let path = bound.path.clone();
        let local = match adopted.local {
            Local::UnixDatagram(_) => Local::UnixDatagram(path),
            Local::UnixSeqpacket(_) => Local::UnixSeqpacket(path),
            _ => Local::Unix(path),
        };
        Ok(Self { local, bound: Some(bound), ..adopted })
    }

    /// The socket file, if it is ours.
    pub(crate) fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// Gives the socket file, while it is ours, the mode and owner of new options. On an error it keeps its
    /// own.
    pub(crate) fn refit(&self, options: &Options) -> Result<()> {
        let Some(bound) = &self.bound else { return Ok(()) };
        let Some((held, file)) = bound.hold() else { return Ok(()) };
        let before = Access { mode: file.mode() & 0o7777, uid: file.uid(), gid: file.gid() };
        let (uid, gid) = options.unix_owner;
        let wanted =
            Access { mode: options.unix_mode, uid: uid.unwrap_or(bound.uid), gid: gid.unwrap_or(bound.gid) };
        if before == wanted {
            return Ok(());
        }
        change(&held, before, wanted).map_err(|error| {
            let _ = change(&held, before, before);
            let step = format!("cannot change mode and owner of {}", self.local);
            Error::new(ErrorKind::Bind, step).caused_by(error)
        })
    }
}

impl Bound {
    /// Describes the file at `path`.
    #[cfg(test)]
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(path, &fs::symlink_metadata(path)?))
    }

    /// Describes the socket file at `path`.
    fn of(path: &Path, file: &fs::Metadata) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { path, device: file.dev(), inode: file.ino(), uid: file.uid(), gid: file.gid() }
    }

    /// The description with the owner that the file has, if it is that of a socket which is bound to `path`.
    pub(super) fn confirmed(self, path: &Path) -> Option<Self> {
        let is_same = std::path::absolute(path).is_ok_and(|path| path == self.path);
        let file = self.file().filter(|file| is_same && file.nlink() == 1)?;
        Some(Self { uid: file.uid(), gid: file.gid(), ..self })
    }

    /// The file at the path, while it is ours.
    fn file(&self) -> Option<fs::Metadata> {
        fs::symlink_metadata(&self.path).ok().filter(|file| self.is(file))
    }

    /// The same file, held: the owner of the folder may rename files in it at any moment.
    fn hold(&self) -> Option<(HeldFile<'_>, fs::Metadata)> {
        let held = HeldFile::at(&self.path).ok()?;
        let file = held.metadata().ok().filter(|file| self.is(file))?;
        Some((held, file))
    }

    fn is(&self, file: &fs::Metadata) -> bool {
        // A file system gives the number of a removed file to another one.
        file.file_type().is_socket() && file.dev() == self.device && file.ino() == self.inode
    }
}

/// Listens, if sockets of `kind` have connections.
fn listen(socket: &Socket, kind: UnixKind, backlog: i32) -> io::Result<()> {
    if kind == UnixKind::Datagram { Ok(()) } else { socket.listen(backlog) }
}

/// Gives the socket file that was just bound at `path` to its owner.
///
/// It is held and checked first: the owner of the folder may have replaced it, or added a hard link.
fn give(path: &Path, (uid, gid): (Option<u32>, Option<u32>)) -> io::Result<Bound> {
    let held = HeldFile::at(path)?;
    let file = held.metadata()?;
    let changes = uid.is_some() || gid.is_some();
    let is_ours = !changes || file.uid() == rustix::process::geteuid().as_raw();
    if !file.file_type().is_socket() || file.nlink() != 1 || !is_ours {
        return Err(io::Error::other("another file has taken the place of the socket"));
    }
    let bound = Bound::of(path, &file);
    if changes {
        held.change_owner(uid.unwrap_or(bound.uid), gid.unwrap_or(bound.gid))?;
    }
    Ok(bound)
}

/// Changes mode and owner. The file is never more open than before or than wanted.
fn change(file: &HeldFile<'_>, before: Access, wanted: Access) -> io::Result<()> {
    file.change_mode(before.mode & wanted.mode)?;
    file.change_owner(wanted.uid, wanted.gid)?;
    file.change_mode(wanted.mode)
}

impl Listener for UnixListening {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        if !self.local.has_connections() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let socket = OwnedFd::from(self.socket.accept()?.0);
        Ok(match self.local {
            Local::Unix(_) => Connection::Unix(UnixStream::from(socket)),
            _ => Connection::Other(socket),
        })
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        Ok(Arc::new(Self::adopt(socket.into()).map_err(io::Error::other)?))
    }

    fn withdraw(&self) {
        if let Some(bound) = self.bound.as_ref().filter(|bound| bound.file().is_some()) {
            let _ = fs::remove_file(&bound.path);
        }
    }
}

impl AsFd for UnixListening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Binds under a umask that yields exactly `mode`: the file is never more open than that.
pub(crate) fn bind(socket: &Socket, path: &Path, mode: u32) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
    let before = rustix::process::umask(Mode::from_raw_mode((0o777 & !mode) as _));
    let bound = socket.bind(&address);
    rustix::process::umask(before);
    bound
}

/// Removes the socket of a dead server at `path`, where a server of `kind` is to listen.
///
/// # Errors
/// A live server or another file has the path; the text names it.
pub(crate) fn make_way(path: &Path, kind: UnixKind) -> std::result::Result<(), String> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(_) => return Ok(()),
    };
    if !file.file_type().is_socket() {
        return Err("the path is taken by something that is no socket".to_owned());
    }
    match connect(path, kind) {
        Ok(socket) => Err(format!("the path is held by {}", holder(&socket, kind))),
        // A full queue, or a socket of another type: the server is alive.
        Err(error)
            if error.kind() == io::ErrorKind::WouldBlock
                || error.raw_os_error() == Some(libc::EPROTOTYPE) =>
        {
            Err("the path is held by another process".to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| format!("the socket of a dead server is there and cannot be removed ({error})")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("a socket is there that cannot be tried ({error})")),
    }
}

/// Connects without waiting for room in the queue: the server may be stopped.
pub(crate) fn try_to_connect(path: &Path) -> io::Result<UnixStream> {
    Ok(UnixStream::from(OwnedFd::from(connect(path, UnixKind::Stream)?)))
}

fn connect(path: &Path, kind: UnixKind) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind.socket_type(), None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn require_abstract_names() -> std::result::Result<(), String> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn require_abstract_names() -> std::result::Result<(), String> {
    Err("only Linux has abstract names".to_owned())
}

/// The process that holds an abstract name, after the error of bind(2) at it.
fn holder_of_name(path: &Path, kind: UnixKind, error: &io::Error) -> Option<String> {
    let is_held = abstract_name(path).is_some() && error.kind() == io::ErrorKind::AddrInUse;
    is_held.then(|| connect(path, kind).map_or_else(|_| OTHER.to_owned(), |socket| holder(&socket, kind)))
}

/// The name of a process that the kernel does not report.
const OTHER: &str = "another process";

/// The process that listens at the other end: the kernel keeps the credentials of the listen(2) caller.
fn holder(socket: &Socket, kind: UnixKind) -> String {
    #[cfg(target_os = "linux")]
    // A datagram socket has no such credentials.
    if kind != UnixKind::Datagram {
        if let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) {
            return processes::describe(peer.pid.as_raw_nonzero().get());
        }
    }
    let _ = (socket, kind, processes::describe);
    OTHER.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(path: &Path, mode: u32) -> Result<UnixListening> {
        UnixListening::open(path, UnixKind::Stream, &Options { unix_mode: mode, ..Options::default() })
    }

    #[test]
    fn the_socket_has_exactly_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o777] {
            let path = dir.path().join(format!("{mode:o}.sock"));
            let _listening = open(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn a_live_servers_path_is_not_stolen_and_a_dead_ones_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let first = open(&path, 0o600).unwrap();
        let refused = open(&path, 0o600).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        let second = open(&path, 0o600).unwrap();
        second.withdraw();
        assert!(!path.exists());
    }

    #[test]
    fn an_owner_is_given_to_the_socket_that_was_bound_and_to_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("a.sock"), dir.path().join("victim"));
        let owner = (Some(rustix::process::geteuid().as_raw()), None);
        let _other = open(&victim, 0o600).unwrap();
        // Files that may be there once the name was swapped.
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(give(&path, owner).unwrap_err().to_string().contains("taken the place"));
        assert!(open(&path, 0o600).unwrap_err().to_string().contains("no socket"));
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        assert!(give(&path, owner).unwrap_err().to_string().contains("taken the place"));
        fs::remove_file(&path).unwrap();
        assert!(give(&victim, owner).is_ok());
    }

    #[test]
    fn a_path_that_is_no_longer_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let ours = open(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "something else").unwrap();
        ours.withdraw();
        assert!(path.exists());
        assert!(open(&path, 0o600).unwrap_err().to_string().contains("no socket"));
    }
}
