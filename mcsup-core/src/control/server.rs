//! The supervisor's end of the control protocol: accepts clients, reads requests, sends replies.
//!
//! A client connects to the control socket, or comes from a [`Handle`](super::Handle) of the program.
//!
//! It never blocks, except for the bounded [`Server::finish`], and no client can make the supervisor fail.
//! The caller decides what a request means.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::handle_end::HandleEnd;
use super::protocol::{Outcome, Reply, Request};
use super::session::{Session, SessionRecord};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::listener::unix::{self, UnixKind};
use crate::sys::{credentials, descriptor};

/// The most clients that are connected at once.
const MAX_CLIENTS: usize = 64;

/// The length of the kernel's queue of clients that are not accepted yet.
const BACKLOG: i32 = 128;

/// The longest wait for another instance's lock on the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The pause in accepting clients after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The longest wait of an ending supervisor for clients to take their last replies.
const FINAL_FLUSH: Duration = Duration::from_millis(200);

/// Identifies a client, also across an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ClientId(pub(crate) u64);

/// The clients, and where they come from.
#[derive(Debug, Default)]
pub(crate) struct Server {
    socket: Option<ControlSocket>,
    /// The ends of the program's handles.
    handles: Vec<HandleEnd>,
    clients: BTreeMap<ClientId, Session>,
    next: u64,
    /// The end of a pause in accepting clients.
    paused_until: Option<Duration>,
    has_warned: bool,
    has_parent_ended: bool,
}

/// The listening control socket.
#[derive(Debug)]
struct ControlSocket {
    listening: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file that this process bound.
    bound: (u64, u64),
    /// The process that removes the path. Its forked children do not.
    owner: u32,
}

/// A [`Server`] as one image of the supervisor passes it to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    #[serde(with = "crate::host::recorded_path")]
    path: PathBuf,
    bound: (u64, u64),
    /// `None`: there are handles only.
    listening: Option<RawFd>,
    #[serde(default)]
    handles: Vec<RawFd>,
    /// The one of the handles that is of the program which has spawned the supervisor.
    #[serde(default)]
    parent: Option<RawFd>,
    clients: Vec<(ClientId, SessionRecord)>,
    next: u64,
}

impl ServerRecord {
    /// The descriptors that must stay open over the exec.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let clients = self.clients.iter().map(|(_, client)| client.fd);
        clients.chain(self.listening).chain(self.handles.iter().copied())
    }
}

impl Server {
    /// Listens at `path`, for this process's user and root alone.
    ///
    /// The socket of a dead server is replaced.
    ///
    /// # Errors
    /// Another server listens there (the error names it), or a system call fails.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Absolute, so that it can be removed after a change of directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let refuse = |why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Bind, format!("cannot open the control socket {}: {why}", path.display()))
        };
        // Held until the socket listens: until then another instance would take it for a dead server's.
        let _lock = lock_directory_of(&path).map_err(|why| refuse(&why))?;
        unix::make_way(&path, UnixKind::Stream).map_err(|why| refuse(&why))?;
        let listening = listen(&path).map_err(|error| refuse(&error))?;
        let bound = identity(&path).ok_or_else(|| refuse(&"it was removed at once"))?;
        let socket = ControlSocket { listening, path, bound, owner: std::process::id() };
        Ok(Self { socket: Some(socket), ..Self::default() })
    }

    /// The path of the control socket, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.socket.as_ref().map(|socket| socket.path.as_path())
    }

    /// Takes requests of the program's handles too.
    pub(crate) fn serve(&mut self, mut handles: HandleEnd) {
        handles.share();
        self.handles.push(handles);
    }

    /// The end of the program that has spawned this process.
    pub(crate) fn parent(&self) -> Option<&HandleEnd> {
        self.handles.iter().find(|end| end.is_of_parent())
    }

    /// Whether the program that has spawned this process has ended since the last call, or dropped its last handle.
    pub(crate) fn take_parents_end(&mut self) -> bool {
        std::mem::take(&mut self.has_parent_ended)
    }

    /// Whether `client` is the program itself.
    pub(crate) fn is_the_program(&self, client: ClientId) -> bool {
        self.clients.get(&client).is_some_and(Session::is_the_programs)
    }

    /// The descriptors to poll, for writing if the flag is set, otherwise for reading.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let listening = self.socket.iter().map(|socket| socket.listening.as_fd());
        let entrances = listening.chain(self.handles.iter().map(AsFd::as_fd)).map(|fd| (fd, false));
        let entrances = entrances.filter(|_| self.paused_until.is_none());
        entrances.chain(self.clients.values().filter_map(Session::interest))
    }

    /// The time to call [`receive`](Self::receive) at without an event.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.clients.values().any(Session::has_line) { Some(Duration::ZERO) } else { self.paused_until }
    }

    /// Accepts clients and returns the next request of each. Malformed ones are answered here.
    pub(crate) fn receive(&mut self) -> Vec<(ClientId, Request)> {
        self.flush();
        self.accept();
        let clients = self.clients.iter_mut();
        let received: Vec<_> = clients.filter_map(|(id, client)| Some((*id, client.receive()?))).collect();
        self.clients.retain(|id, client| {
            client.flush();
            // One that has not waited stays until its answer: it shows where the request comes from.
            !client.is_over() || received.iter().any(|(asked, _)| asked == id)
        });
        received
    }

    /// Sends the reply to the request of `client`, if it is still connected.
    pub(crate) fn answer(&mut self, client: ClientId, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.reply(reply);
        }
        self.flush();
    }

    /// Sends queued replies and drops the clients that are gone.
    pub(crate) fn flush(&mut self) {
        self.clients.retain(|_, client| {
            client.flush();
            !client.is_over()
        });
    }

    /// Sends the last replies of an ending supervisor, within [`FINAL_FLUSH`].
    pub(crate) fn finish(&mut self) {
        let deadline = clock::now() + FINAL_FLUSH;
        self.flush();
        loop {
            let mut sources: Vec<PollFd<'_>> = self
                .clients
                .values()
                .filter(|client| !client.unsent.is_empty())
                .map(|client| PollFd::new(client, PollFlags::OUT))
                .collect();
            let left = deadline.saturating_sub(clock::now());
            if sources.is_empty() || left.is_zero() {
                return;
            }
            let timeout = clock::wait_of(left);
            if poll(&mut sources, Some(&timeout)).is_err_and(|error| error != Errno::INTR) {
                return;
            }
            self.flush();
        }
    }

    /// Closes the descriptors in a forked child and leaves the path to its owner.
    pub(crate) fn close_in_child(mut self) {
        if let Some(socket) = &mut self.socket {
            socket.owner = 0;
        }
    }

    /// Records the server for the next image.
    pub(crate) fn describe(&self) -> ServerRecord {
        let clients = self.clients.iter().map(|(id, client)| (*id, client.record()));
        let socket = self.socket.as_ref();
        ServerRecord {
            path: socket.map(|socket| socket.path.clone()).unwrap_or_default(),
            bound: socket.map(|socket| socket.bound).unwrap_or_default(),
            listening: socket.map(|socket| socket.listening.as_raw_fd()),
            handles: self.handles.iter().map(|end| end.as_fd().as_raw_fd()).collect(),
            parent: self.parent().map(|end| end.as_fd().as_raw_fd()),
            clients: clients.collect(),
            next: self.next,
        }
    }

    /// The recorded server. A client whose descriptor is not open is dropped.
    pub(crate) fn adopt(record: ServerRecord) -> io::Result<Self> {
        let ServerRecord { path, bound, .. } = record;
        let mut server = Self { next: record.next, ..Self::default() };
        if let Some(listening) = record.listening {
            let listening = UnixListener::from(descriptor::take_recorded(listening)?);
            listening.set_nonblocking(true)?;
            server.socket = Some(ControlSocket { listening, path, bound, owner: std::process::id() });
        }
        for number in record.handles {
            let end = HandleEnd::from(descriptor::take_recorded(number)?);
            let is_of_parent = record.parent == Some(number);
            server.handles.push(if is_of_parent { end.of_parent() } else { end });
        }
        let clients = record.clients.into_iter();
        server.clients.extend(clients.filter_map(|(id, client)| Some((id, Session::adopt(client)?))));
        Ok(server)
    }

    fn accept(&mut self) {
        if self.paused_until.is_some_and(|until| clock::now() < until) {
            return;
        }
        self.paused_until = None;
        if let Err(error) = self.accept_from_handles() {
            return self.pause(&error);
        }
        // Bounded, so that a flood of clients does not occupy the supervisor.
        for _ in 0..BACKLOG {
            let Some(socket) = &self.socket else { return };
            match socket.listening.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == IoKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), IoKind::Interrupted | IoKind::ConnectionAborted) => {}
                Err(error) => return self.pause(&error),
            }
        }
    }

    /// Accepts no client for a time: out of descriptors, the sources stay readable, and poll(2) would return at once.
    fn pause(&mut self, error: &io::Error) {
        log::debug!("The control socket cannot accept: {error}");
        self.paused_until = Some(clock::now() + ACCEPT_PAUSE);
    }

    fn admit(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if let Some(why) = self.refusal(&stream) {
            // A socket that nothing was written to has room for a line.
            let _ = (&stream).write(&Reply::new(Outcome::Refused, why).to_line());
            return;
        }
        self.join(Session::new(stream));
    }

    /// Adopts the clients that the program's handles have sent. A handle that has ended is closed.
    ///
    /// # Errors
    /// No descriptor is free for the next client, which waits.
    fn accept_from_handles(&mut self) -> io::Result<()> {
        let mut arrived = Vec::new();
        let mut has_parent_ended = false;
        let mut received = Ok(());
        self.handles.retain_mut(|end| {
            if let Err(error) = end.receive(&mut arrived) {
                received = Err(error);
            }
            has_parent_ended |= end.is_of_parent() && end.has_ended();
            !end.has_ended()
        });
        self.has_parent_ended |= has_parent_ended;
        for stream in arrived {
            self.join(Session::of_the_program(stream));
        }
        received
    }

    fn join(&mut self, client: Session) {
        self.clients.insert(ClientId(self.next), client);
        self.next += 1;
    }

    /// The reason to refuse a client; `None`: it is admitted.
    fn refusal(&mut self, stream: &UnixStream) -> Option<String> {
        let ours = rustix::process::geteuid().as_raw();
        match credentials::peer(stream.as_fd()).map(|peer| peer.uid) {
            Ok(peer) if may_command(peer, ours) => {}
            Ok(peer) => {
                if !self.has_warned {
                    let path = self.path().unwrap_or(Path::new(""));
                    log::warn!("User id {peer} tried the control socket {} and was refused", path.display());
                    self.has_warned = true;
                }
                return Some(format!("user id {peer} may not command a server of user id {ours}"));
            }
            Err(error) => return Some(format!("the user of the client is unknown: {error}")),
        }
        let is_full = self.clients.len() >= MAX_CLIENTS;
        is_full.then(|| format!("{MAX_CLIENTS} clients are connected already"))
    }
}

impl Drop for ControlSocket {
    /// Removes the path while the socket still listens: no other server can have replaced it.
    fn drop(&mut self) {
        if self.owner == std::process::id() && identity(&self.path) == Some(self.bound) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether user `peer` may command a server of user `ours`.
fn may_command(peer: u32, ours: u32) -> bool {
    peer == ours || peer == 0
}

/// Locks the directory of `path` until the result is dropped. Leaves no lock file.
fn lock_directory_of(path: &Path) -> std::result::Result<File, String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let file = File::open(directory).map_err(|error| match error.kind() {
        IoKind::NotFound => format!("there is no directory {}", directory.display()),
        _ => format!("the directory {} cannot be opened ({error})", directory.display()),
    })?;
    let deadline = clock::now() + LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if clock::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(Errno::INTR) => {}
            // Any process that can read the directory can hold this lock, and must not prevent a start by it.
            // Without the lock only two starts at the same moment can collide.
            Err(Errno::WOULDBLOCK) => return Ok(file),
            Err(error) => {
                return Err(format!("the directory {} cannot be locked ({error})", directory.display()));
            }
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    unix::bind(&socket, path, 0o600)?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Device and inode of the file at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
