//! The supervisor's end of the control socket: accepts, reads requests, sends replies.
//!
//! It never waits (but for the bounded [`Server::finish`]) and never fails the supervisor: whatever a client does, the
//! worst that becomes of it is that client's end. What a request means is not decided here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::protocol::{MAX_REQUEST, Outcome, Reply, Request};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::listener::unix;
use crate::sys::{credentials, descriptor};

/// How many clients are heard at once.
const MAX_CLIENTS: usize = 64;

/// How many more the kernel keeps until they are welcomed or sent away.
const BACKLOG: i32 = 128;

/// How many requests of one client may be without an answer.
const MAX_OPEN: usize = 16;

/// How many bytes of replies may wait for a client that does not read.
const MAX_UNSENT: usize = 1 << 20;

/// How long another instance may hold the directory while it looks who lives there.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long nobody is accepted after the descriptors ran out.
const DEAF: Duration = Duration::from_millis(200);

/// How long a supervisor that ends waits for clients to take their last replies.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A connection, over an upgrade too. A reply is for a client: one that asks for two things at once is told of them in
/// the order of their completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ClientId(pub(crate) u64);

/// A control socket that is listened on.
#[derive(Debug)]
pub(crate) struct Server {
    listening: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file that we bound.
    bound: (u64, u64),
    /// The process that removes the path: not its forked children.
    owner: u32,
    clients: BTreeMap<ClientId, Conversation>,
    next: u64,
    /// Until when nobody is accepted, because there are no descriptors left.
    deaf_until: Option<Duration>,
    has_warned: bool,
}

/// One client.
#[derive(Debug)]
struct Conversation {
    stream: UnixStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Requests that were passed on and not answered yet.
    open: usize,
    state: State,
}

/// How far a conversation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Requests may come.
    Talking,
    /// The client asks nothing more: it is closed when it has all its answers.
    Asked,
    /// Nothing more is said to it than what is unsent.
    Dismissed,
    /// It is gone.
    Gone,
}

/// What the next image needs to go on with the same clients: descriptors by number, and whatever is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    #[serde(with = "crate::host::recorded_path")]
    path: PathBuf,
    bound: (u64, u64),
    listening: RawFd,
    clients: Vec<ClientRecord>,
    next: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ClientRecord {
    id: ClientId,
    fd: RawFd,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    open: usize,
    state: State,
}

impl ServerRecord {
    /// All of them.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.clients.iter().map(|client| client.fd).chain([self.listening])
    }
}

impl Server {
    /// Listens at `path`, for the own user and root alone. A dead server's socket is replaced; a live one keeps its path
    /// and is named.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Absolute, so that it can be removed after a change of directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let refuse = |why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Bind, format!("cannot open the control socket {}: {why}", path.display()))
        };
        // Held until we listen, so that nobody takes a socket that is bound and not yet listened on for a dead one.
        let _lock = lock_directory_of(&path).map_err(|why| refuse(&why))?;
        unix::make_way(&path).map_err(|why| refuse(&why))?;
        let listening = listen(&path).map_err(|error| refuse(&error))?;
        let bound = identity(&path).ok_or_else(|| refuse(&"it was removed at once"))?;
        Ok(Self::with(listening, path, bound))
    }

    fn with(listening: UnixListener, path: PathBuf, bound: (u64, u64)) -> Self {
        Self {
            listening,
            path,
            bound,
            owner: std::process::id(),
            clients: BTreeMap::new(),
            next: 0,
            deaf_until: None,
            has_warned: false,
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What to wait for: room to write where the flag says so, otherwise something to read, never both. A client that
    /// does not take its replies is not asked for more requests.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let listening = self.deaf_until.is_none().then(|| (self.listening.as_fd(), false));
        let clients = self.clients.values().filter_map(|client| {
            let wants_write = !client.unsent.is_empty();
            // The end of its requests would be reported for ever.
            let listens = wants_write || client.state == State::Talking;
            listens.then(|| (client.stream.as_fd(), wants_write))
        });
        listening.into_iter().chain(clients)
    }

    /// When [`hear`](Self::hear) is to be called although nothing has come.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deaf_until
    }

    /// Accepts and reads what has come. What is no request is answered here.
    pub(crate) fn hear(&mut self) -> Vec<(ClientId, Request)> {
        self.flush();
        self.accept();
        let mut heard = Vec::new();
        for (id, client) in &mut self.clients {
            client.hear(|request| heard.push((*id, request)));
        }
        self.flush();
        heard
    }

    /// Answers a request of `client`; one that is gone does not need it.
    pub(crate) fn answer(&mut self, client: ClientId, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.open = client.open.saturating_sub(1);
            client.say(reply);
        }
        self.flush();
    }

    /// Sends what can be sent, and closes whoever is gone.
    pub(crate) fn flush(&mut self) {
        self.clients.retain(|_, client| {
            client.flush();
            !client.is_over()
        });
    }

    /// The last flush of a supervisor that ends: waits a little for clients that are slow.
    pub(crate) fn finish(&mut self) {
        let deadline = clock::now() + LAST_WORDS;
        self.flush();
        loop {
            let mut sources: Vec<PollFd<'_>> = self
                .clients
                .values()
                .filter(|client| !client.unsent.is_empty())
                .map(|client| PollFd::new(&client.stream, PollFlags::OUT))
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

    /// For a forked child: closes everything; the path stays its owner's.
    pub(crate) fn let_go(mut self) {
        self.owner = 0;
    }

    /// What the next image needs; the descriptors stay ours.
    pub(crate) fn describe(&self) -> ServerRecord {
        let clients = self.clients.iter().map(|(id, client)| ClientRecord {
            id: *id,
            fd: client.stream.as_raw_fd(),
            unread: client.unread.clone(),
            unsent: client.unsent.clone(),
            open: client.open,
            state: client.state,
        });
        ServerRecord {
            path: self.path.clone(),
            bound: self.bound,
            listening: self.listening.as_raw_fd(),
            clients: clients.collect(),
            next: self.next,
        }
    }

    /// Goes on where the last image stopped. A client whose descriptor did not come along is gone.
    pub(crate) fn adopt(record: ServerRecord) -> io::Result<Self> {
        let listening = UnixListener::from(descriptor::take_recorded(record.listening)?);
        listening.set_nonblocking(true)?;
        let mut server = Self::with(listening, record.path, record.bound);
        server.next = record.next;
        for client in record.clients {
            if let Ok(fd) = descriptor::take_recorded(client.fd) {
                server.clients.insert(
                    client.id,
                    Conversation {
                        stream: UnixStream::from(fd),
                        unread: client.unread,
                        unsent: client.unsent,
                        open: client.open,
                        state: client.state,
                    },
                );
            }
        }
        Ok(server)
    }

    fn accept(&mut self) {
        if self.deaf_until.is_some_and(|until| clock::now() < until) {
            return;
        }
        self.deaf_until = None;
        // Bounded: whoever connects all the time does not keep the supervisor from its work.
        for _ in 0..BACKLOG {
            match self.listening.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == IoKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), IoKind::Interrupted | IoKind::ConnectionAborted) => {}
                Err(error) => {
                    // Out of descriptors: the listener stays readable, and waiting for it would not be waiting.
                    log::debug!("The control socket cannot accept: {error}");
                    self.deaf_until = Some(clock::now() + DEAF);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if let Some(why) = self.objection(&stream) {
            // There is room for a line in a socket that nothing was written to.
            let _ = (&stream).write(&Reply::new(Outcome::Refused, why).to_line());
            return;
        }
        self.clients.insert(ClientId(self.next), Conversation::new(stream));
        self.next += 1;
    }

    /// Why a client is not heard, if so.
    fn objection(&mut self, stream: &UnixStream) -> Option<String> {
        let ours = rustix::process::geteuid().as_raw();
        match credentials::peer(stream.as_fd()).map(|peer| peer.uid) {
            Ok(peer) if may_command(peer, ours) => {}
            Ok(peer) => {
                if !self.has_warned {
                    log::warn!(
                        "User id {peer} tried the control socket {} and was refused",
                        self.path.display()
                    );
                    self.has_warned = true;
                }
                return Some(format!("user id {peer} may not command a server of user id {ours}"));
            }
            Err(error) => return Some(format!("who is there? {error}")),
        }
        let is_full = self.clients.len() >= MAX_CLIENTS;
        is_full.then(|| format!("{MAX_CLIENTS} clients are connected already"))
    }
}

impl Drop for Server {
    /// Removes the path while we still listen, so that nobody has taken it for a dead server's.
    fn drop(&mut self) {
        if self.owner == std::process::id() && identity(&self.path) == Some(self.bound) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Conversation {
    fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new(), unsent: Vec::new(), open: 0, state: State::Talking }
    }

    /// Reads what has come, in pieces that leave the supervisor time for others, and passes on whole requests.
    fn hear(&mut self, mut pass_on: impl FnMut(Request)) {
        if self.state != State::Talking || !self.unsent.is_empty() {
            return;
        }
        let mut piece = [0; 16 * 1024];
        for _ in 0..4 {
            match (&self.stream).read(&mut piece) {
                Ok(0) => self.state = State::Asked,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => return,
                Err(_) => self.state = State::Gone,
            }
            self.understand(&mut pass_on);
            if self.state != State::Talking {
                return;
            }
        }
    }

    /// Takes whole lines out of what was read.
    fn understand(&mut self, pass_on: &mut impl FnMut(Request)) {
        let unread = std::mem::take(&mut self.unread);
        let mut lines = unread.split_inclusive(|byte| *byte == b'\n');
        for line in lines.by_ref() {
            // The last words of a client that ends are a line without its end.
            if !line.ends_with(b"\n") && self.state != State::Asked {
                self.unread = line.to_vec();
                break;
            }
            self.take(line, pass_on);
        }
        if self.unread.len() > MAX_REQUEST {
            self.take(&unread[unread.len() - self.unread.len()..], pass_on);
        }
    }

    fn take(&mut self, line: &[u8], pass_on: &mut impl FnMut(Request)) {
        if matches!(self.state, State::Dismissed | State::Gone) || line.trim_ascii().is_empty() {
            return;
        }
        if line.len() > MAX_REQUEST {
            let why = format!("a request is at most {MAX_REQUEST} bytes");
            self.say(&Reply::new(Outcome::Mistaken, why));
            self.dismiss();
            return;
        }
        match Request::from_line(line) {
            Ok(_) if self.open >= MAX_OPEN => {
                let why = format!("{MAX_OPEN} requests of this client are not answered yet");
                self.say(&Reply::new(Outcome::Refused, why));
            }
            Ok(request) => {
                self.open += 1;
                pass_on(request);
            }
            Err(mistake) => self.say(&Reply::new(Outcome::Mistaken, mistake.to_string())),
        }
    }

    fn say(&mut self, reply: &Reply) {
        if matches!(self.state, State::Dismissed | State::Gone) {
            return;
        }
        let line = reply.to_line();
        // One reply alone may be longer: a client that reads is not lost for a long traceback.
        if !self.unsent.is_empty() && self.unsent.len() + line.len() > MAX_UNSENT {
            log::debug!("A client of the control socket does not read, and is closed");
            self.state = State::Gone;
            return;
        }
        self.unsent.extend(line);
        self.flush();
    }

    /// Says nothing more than what is unsent.
    fn dismiss(&mut self) {
        self.unread = Vec::new();
        if self.state != State::Gone {
            self.state = State::Dismissed;
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() && self.state != State::Gone {
            match (&self.stream).write(&self.unsent) {
                Ok(count @ 1..) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => return,
                _ => self.state = State::Gone,
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.state {
            State::Talking => false,
            State::Asked => self.unsent.is_empty() && (self.open == 0 || self.has_hung_up()),
            State::Dismissed => self.unsent.is_empty(),
            State::Gone => true,
        }
    }

    /// Whether a client that asks nothing more does not listen either.
    fn has_hung_up(&self) -> bool {
        let mut source = [PollFd::new(&self.stream, PollFlags::empty())];
        let gone = PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut source, Some(&Timespec::default())), Ok(1..))
            && source[0].revents().intersects(gone)
    }
}

/// Whether a user may command a server of user `ours`.
fn may_command(peer: u32, ours: u32) -> bool {
    peer == ours || peer == 0
}

/// Locks the directory that `path` is in, until the result is dropped; nothing is left behind. Another process's lock is
/// waited for only for so long.
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
            // Every process that can read the directory can hold this lock, and must not keep us out by it. What is at
            // risk without the lock is the moment of two starts at once.
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

/// Device and inode of what is at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
