//! The accept loop of a worker: the handover first, then each listener, as its phase allows.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::context::WorkerContext;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::link::lifeline::Phase;
use crate::listener::{AcceptFailure, Connection, Listener};

/// The pause in accepting after a shortage of descriptors or memory.
pub(super) const REST: Duration = Duration::from_millis(50);
/// The most pauses of a worker that is to end.
const MOST_SHORTAGES: u32 = 20;

const MOST_LOST: u32 = AcceptFailure::MOST_LOST;

/// The result of one attempt to take a connection.
pub(super) enum Tried<T> {
    Taken(T),
    /// A connection was there and failed; others may wait behind it.
    Lost(io::Error),
    /// Every queue is empty.
    Empty,
    /// A connection may be there, but descriptors or memory are short.
    Short(io::Error),
}

/// The attempts to take one connection, as far as they have failed.
#[derive(Default)]
pub(super) struct Attempts {
    shortages: u32,
    lost: u32,
}

/// The step after an attempt.
pub(super) enum Next<T> {
    Return(T),
    /// The worker should finish.
    End,
    Again,
    /// The same after [`REST`].
    Rest,
}

impl Attempts {
    /// The step after `tried`.
    pub(super) fn next<T>(&mut self, tried: Tried<T>, is_draining: bool) -> Next<T> {
        match tried {
            Tried::Taken(connection) => return Next::Return(connection),
            Tried::Empty if is_draining => return Next::End,
            Tried::Empty => self.lost = 0,
            Tried::Lost(_) if self.lost < MOST_LOST => self.lost += 1,
            Tried::Short(_) | Tried::Lost(_) if is_draining && self.shortages >= MOST_SHORTAGES => {
                return Next::End;
            }
            Tried::Short(error) | Tried::Lost(error) => {
                self.lost = 0;
                if self.shortages == 0 {
                    log::error!("cannot accept connections for a moment: {error}");
                }
                self.shortages += 1;
                return Next::Rest;
            }
        }
        Next::Again
    }
}

/// Whether a worker in this phase only takes the queued connections; `None`: it takes none.
pub(super) fn only_queued(phase: Phase) -> Option<bool> {
    match phase {
        Phase::Serving | Phase::LameDuck => Some(false),
        Phase::Retiring | Phase::Quitting => None,
        Phase::Draining => Some(true),
    }
}

impl WorkerContext {
    /// Waits for a connection at the listeners and in the handover; `None`: the worker should finish and
    /// return.
    ///
    /// While it waits it shows signs of life. In [`Phase::Draining`] it takes the queued connections, and
    /// returns `None` when every queue is empty. In a shortage of descriptors or memory it waits for its end, in
    /// [`Phase::Draining`] for a second at most: the code that accepts may be the one that closes connections. The
    /// clients that are still queued then are reset when the last process closes the listener.
    /// It closes a connection that another worker has [handed over](Self::hand_over) with bytes: a pool that
    /// sends bytes receives them by [`take_handed_over`](Self::take_handed_over).
    ///
    /// # Errors
    /// An error of poll(2) or accept(2), unless it concerns one connection or a shortage of descriptors or
    /// memory.
    pub fn accept(&self) -> Result<Option<Connection>> {
        let mut attempts = Attempts::default();
        loop {
            self.beat();
            let Some(is_draining) = only_queued(self.phase()) else { return Ok(None) };
            let ready = ready(self, is_draining)?;
            let tried = take(self, |source| ready.get(source) == Some(&true), &|connection, bytes| {
                without_bytes(connection, &bytes)
            })?;
            match attempts.next(tried, is_draining) {
                Next::Return(connection) => return Ok(Some(connection)),
                Next::End => return Ok(None),
                Next::Again => {}
                Next::Rest => rest(self)?,
            }
        }
    }
}

/// A blocking connection without bytes from another worker.
fn without_bytes(connection: Connection, bytes: &[u8]) -> io::Result<Connection> {
    if !bytes.is_empty() {
        log::error!("a connection was handed over with {} bytes: it is closed", bytes.len());
        return Err(io::ErrorKind::InvalidData.into());
    }
    // BSD sockets inherit the listener's non-blocking mode.
    connection.set_nonblocking(false)?;
    Ok(connection)
}

/// Makes a connection and the bytes that came with it the caller's.
type Adopt<'a, T> = &'a dyn Fn(Connection, Vec<u8>) -> io::Result<T>;

/// Takes a queued connection from a source that `may_have` one: the handover, which is number 0, or one of the
/// [`connecting`] listeners, counted from 1.
pub(super) fn take<T>(
    worker: &WorkerContext,
    may_have: impl Fn(usize) -> bool,
    adopt: Adopt<'_, T>,
) -> Result<Tried<T>> {
    let mut lost = None;
    // Connections in the handover have already waited at another worker.
    if may_have(0) {
        match from_handover(worker, adopt)? {
            Tried::Lost(error) => lost = Some(error),
            Tried::Empty => {}
            taken_or_short => return Ok(taken_or_short),
        }
    }
    for (listener, _) in connecting(worker).zip(1..).filter(|(_, source)| may_have(*source)) {
        match from_listener(worker, &**listener, adopt)? {
            Tried::Lost(error) => lost = Some(error),
            Tried::Empty => {}
            taken_or_short => return Ok(taken_or_short),
        }
    }
    Ok(lost.map_or(Tried::Empty, Tried::Lost))
}

/// Takes a connection from the handover.
pub(super) fn from_handover<T>(worker: &WorkerContext, adopt: Adopt<'_, T>) -> Result<Tried<T>> {
    match worker.handover().take_with_room() {
        Ok(Some((connection, bytes))) => {
            let connection = Connection::adopt(connection).and_then(|connection| adopt(connection, bytes));
            Ok(connection.map_or_else(Tried::Lost, Tried::Taken))
        }
        Ok(None) => Ok(Tried::Empty),
        Err(error) => match AcceptFailure::of(&error) {
            AcceptFailure::Lost => Ok(Tried::Lost(error)),
            AcceptFailure::Short => Ok(Tried::Short(error)),
            _ => Err(Error::system("take a connection that was handed over", error)),
        },
    }
}

fn from_listener<T>(
    worker: &WorkerContext,
    listener: &dyn Listener,
    adopt: Adopt<'_, T>,
) -> Result<Tried<T>> {
    match listener.accept() {
        Ok(connection) => Ok(adopt(connection, Vec::new()).map_or_else(Tried::Lost, Tried::Taken)),
        Err(error) => match AcceptFailure::of(&error) {
            AcceptFailure::Empty => Ok(Tried::Empty),
            AcceptFailure::Lost => Ok(Tried::Lost(error)),
            AcceptFailure::Short => Ok(Tried::Short(error)),
            // The worker has released its listeners, for example because the supervisor is dead.
            AcceptFailure::Broken if worker.has_released() || !worker.phase().accepts() => Ok(Tried::Empty),
            AcceptFailure::Broken => {
                let step = format!("accept on {}", listener.local());
                Err(Error::system(step, error).of_kind(ErrorKind::Worker))
            }
        },
    }
}

/// The listeners that clients connect to; none once they are released.
pub(super) fn connecting(worker: &WorkerContext) -> impl Iterator<Item = &Arc<dyn Listener>> {
    let is_open = !worker.has_released();
    worker.listeners().iter().filter(move |listener| is_open && listener.has_connections())
}

/// Whether the handover and each of the [`connecting`] listeners may have a connection.
///
/// It waits for one or for a change, a second at most, so that beats go on; `at_once`: it does not wait.
pub(super) fn ready(worker: &WorkerContext, at_once: bool) -> Result<Vec<bool>> {
    let sources = [worker.wake_fd(), worker.handed_over_fd()];
    let sources = sources.into_iter().chain(connecting(worker).map(|listener| listener.as_fd()));
    let mut sources: Vec<_> = sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let limit = if at_once { Duration::ZERO } else { Duration::from_secs(1) };
    if !wait(&mut sources, limit)? {
        // A signal ended the wait, and poll(2) reported nothing: all of them are tried.
        return Ok(vec![true; sources.len() - 1]);
    }
    worker.acknowledge();
    Ok(sources[1..].iter().map(|source| !source.revents().is_empty()).collect())
}

/// Waits for the end of a shortage, or for a change of the phase.
fn rest(worker: &WorkerContext) -> Result<()> {
    wait(&mut [PollFd::from_borrowed_fd(worker.wake_fd(), PollFlags::IN)], REST).map(drop)
}

/// Waits on `sources`; `false`: a signal ended the wait early.
pub(super) fn wait(sources: &mut [PollFd<'_>], limit: Duration) -> Result<bool> {
    match poll(sources, Some(&clock::wait_of(limit))) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(Error::system("wait for a connection", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::with_max_requests;
    use super::*;
    use crate::link::channel::SupervisorEnd;
    use std::io::{Read, Write};
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    /// Fails with each error in turn, from the last; then it has one connection, and then none. Always ready.
    #[derive(Debug)]
    struct Failing {
        ready: OwnedFd,
        errors: Mutex<Vec<i32>>,
        local: crate::listener::Local,
    }

    impl Listener for Failing {
        fn local(&self) -> &crate::listener::Local {
            &self.local
        }

        fn accept(&self) -> io::Result<Connection> {
            let mut errors = self.errors.lock().unwrap();
            if let Some(number) = errors.pop() {
                return Err(io::Error::from_raw_os_error(number));
            }
            errors.push(libc::EAGAIN);
            Ok(Connection::Unix(UnixStream::pair().unwrap().0))
        }

        fn with_socket(&self, _: OwnedFd) -> io::Result<Arc<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl AsFd for Failing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.ready.as_fd()
        }
    }

    /// A worker whose only listener fails with `errors`.
    fn failing(errors: &[i32]) -> (WorkerContext, SupervisorEnd) {
        let ready = std::fs::File::open("/dev/null").unwrap().into();
        let local = crate::listener::Local::Unix("/none".into());
        let errors = Mutex::new(errors.to_vec());
        let (worker, supervisor) = with_max_requests(None);
        (worker.with_listener(Arc::new(Failing { ready, errors, local })), supervisor)
    }

    /// The client of a connection whose other end was handed over to `worker` with `bytes`.
    fn handed_over(worker: &WorkerContext, bytes: &[u8]) -> UnixStream {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        worker.hand_over(server.as_fd(), bytes).unwrap();
        client
    }

    const OF_ONE_CONNECTION: [i32; 14] = [
        libc::EINTR,
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENOPROTOOPT,
        libc::ENOTCONN,
        libc::EOPNOTSUPP,
        libc::EPERM,
        libc::EPIPE,
        libc::EPROTO,
        libc::ETIMEDOUT,
    ];

    #[test]
    fn errors_of_single_connections_do_not_end_a_worker() {
        let (worker, _supervisor) = failing(&OF_ONE_CONNECTION);
        assert!(worker.accept().unwrap().is_some());
        let (worker, _supervisor) = failing(&[libc::ENOTSOCK]);
        assert!(worker.accept().is_err());
    }

    #[test]
    fn a_drain_goes_on_behind_each_connection_that_has_failed() {
        for error in OF_ONE_CONNECTION {
            let (worker, _supervisor) = failing(&[error]);
            worker.raise(Phase::Draining);
            assert!(worker.accept().unwrap().is_some(), "error {error}");
            assert!(worker.accept().unwrap().is_none(), "error {error}");
        }
        let (worker, _supervisor) = failing(&[libc::EAGAIN]);
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn a_drain_goes_on_after_a_handed_over_connection_that_cannot_be_served() {
        let (worker, _supervisor) = with_max_requests(None);
        worker.raise(Phase::Draining);
        let _with_bytes = handed_over(&worker, b"bytes");
        let no_socket = std::fs::File::open("/dev/null").unwrap();
        worker.hand_over(no_socket.as_fd(), &[]).unwrap();
        let mut client = handed_over(&worker, &[]);
        worker.accept().unwrap().unwrap().write_all(b"hello").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn a_worker_without_a_free_descriptor_rests_and_goes_on() {
        let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let (worker, _supervisor) = failing(&errors);
        let begin = std::time::Instant::now();
        assert!(worker.accept().unwrap().is_some());
        assert!(begin.elapsed() >= REST * 4);
        // A worker that is to end does not wait forever.
        let (worker, _supervisor) = failing(&[libc::EMFILE; 1000]);
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn a_worker_whose_connections_all_fail_pauses_and_still_drains() {
        let refused = |count: u32| failing(&vec![libc::EPERM; usize::try_from(count).unwrap()]);
        let (worker, _supervisor) = refused(3 * (MOST_LOST + 1));
        let begin = std::time::Instant::now();
        assert!(worker.accept().unwrap().is_some());
        assert!(begin.elapsed() >= REST * 3);
        // The connection is behind more failures than a drain waits for.
        let (worker, _supervisor) = refused((MOST_SHORTAGES + 2) * (MOST_LOST + 1));
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
    }

    #[test]
    fn a_handed_over_connection_is_accepted() {
        let (worker, _supervisor) = with_max_requests(None);
        let _other = handed_over(&worker, b"for another kind of worker");
        let mut client = handed_over(&worker, &[]);
        worker.accept().unwrap().unwrap().write_all(b"hello").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        worker.hand_over(client.as_fd(), &[]).unwrap();
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_some() && worker.accept().unwrap().is_none());
    }
}
