//! The sockets of a TCP address with one socket for each slot (SO_REUSEPORT).
//!
//! The supervisor holds them all, so that the queue of a socket outlives the worker that accepts from it: the
//! slot's next worker has the same socket.
//!
//! The kernel keeps the sockets of a port in a row, in the order in which they began to listen. When one
//! closes, the last one takes its place. So sockets are only added and closed at the end, and both rows stay
//! equal. The kernel never moves a connection to another socket: a socket with a queued connection or an
//! unfinished handshake must not close. Hence a slot begins and ends in two steps each:
//!
//! | | |
//! |---|---|
//! | [`PerSlot::resized`] | its socket listens, and gets no connections while it has no worker |
//! | [`PerSlot::aim_at`] | its worker is ready: it gets its share |
//! | [`PerSlot::aim_at`] | it gets no new connections; its worker accepts the queued and the unfinished ones |
//! | [`PerSlot::end_leaving`] | no connection is coming ([`PerSlot::is_settled`]), its worker has ended: it closes |

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tcp::TcpListening;
use super::{Connection, Listener, Local};
use crate::error::{Error, Result};
use crate::host::handshakes;
use crate::sys::accept_error::AcceptFailure;
use crate::sys::listening;

/// The sockets of one address. Clones share them and the kernel's target.
#[derive(Debug, Clone)]
pub(crate) struct PerSlot {
    /// In the kernel's order. The sockets after the first `slots` are leaving.
    sockets: Vec<Arc<dyn Listener>>,
    slots: usize,
    backlog: i32,
    aim: Arc<Mutex<Aim>>,
}

/// The current target of new connections in the kernel.
#[derive(Debug, Default)]
struct Aim {
    /// The number of sockets, from the first, that get new connections; `None`: all of them.
    at: Option<usize>,
    /// Clients with an unfinished handshake when sockets were last excluded; `None`: unknown.
    handshakes: Option<HashSet<SocketAddr>>,
    /// A leaving socket could not be emptied, and this is logged.
    is_stuck: bool,
}

impl PerSlot {
    /// Opens further sockets on the port of `first`, so that there are `slots`.
    pub(crate) fn beside(first: Arc<dyn Listener>, slots: usize, backlog: i32) -> Result<Self> {
        let mut sockets = vec![first];
        add_sockets(&mut sockets, slots, backlog)?;
        Ok(Self { sockets, slots: slots.max(1), backlog, aim: Arc::default() })
    }

    /// Adopts the sockets of the previous image, in its order.
    pub(crate) fn adopt(sockets: Vec<Arc<dyn Listener>>, slots: usize, at: usize, backlog: i32) -> Self {
        let handshakes = if sockets.len() > slots { handshakes_with(&sockets).ok() } else { None };
        Self {
            sockets,
            slots,
            backlog,
            aim: Arc::new(Mutex::new(Aim { at: Some(at), handshakes, is_stuck: false })),
        }
    }

    /// The same sockets for another number of slots. Opens further ones if needed. The target of new
    /// connections stays.
    pub(crate) fn resized(&self, slots: usize) -> Result<Self> {
        let mut resized = Self { slots: slots.max(1), ..self.clone() };
        if slots > self.sockets.len() {
            self.aim_at(self.aimed_at())?;
            add_sockets(&mut resized.sockets, slots, self.backlog)?;
        }
        Ok(resized)
    }

    /// Directs new connections to the first `slots` sockets, at least to one.
    pub(crate) fn aim_at(&self, slots: usize) -> Result<()> {
        let slots = slots.clamp(1, self.slots.min(self.sockets.len()));
        let mut aim = self.aim();
        let count = u32::try_from(slots).unwrap_or(u32::MAX);
        listening::aim(self.sockets[0].as_fd(), count)
            .map_err(|error| Error::system(format!("spread connections over {}", self.local()), error))?;
        if slots < aim.at.unwrap_or(self.sockets.len()) {
            listening::let_packets_pass();
            aim.handshakes = handshakes_with(&self.sockets).ok();
        }
        aim.at = Some(slots);
        Ok(())
    }

    /// Whether the leaving sockets will get no further connection.
    ///
    /// They are excluded from new ones, and all handshakes from before that have ended. `false` while the
    /// kernel cannot be asked.
    pub(crate) fn is_settled(&self) -> bool {
        if self.sockets.len() <= self.slots {
            return true;
        }
        let mut aim = self.aim();
        if aim.at.unwrap_or(self.sockets.len()) > self.slots {
            return false;
        }
        if aim.handshakes.as_ref().is_some_and(HashSet::is_empty) {
            return true;
        }
        let Ok(now) = handshakes_with(&self.sockets) else { return false };
        match &mut aim.handshakes {
            Some(handshakes) => handshakes.retain(|client| now.contains(client)),
            // Later handshakes are among them: the wait is longer than necessary, and still bounded.
            unknown => *unknown = Some(now),
        }
        aim.handshakes.as_ref().is_some_and(HashSet::is_empty)
    }

    /// Stops the leaving sockets in all processes and returns their queued connections.
    ///
    /// Called when they are settled and no process accepts from them any more.
    pub(crate) fn end_leaving(&mut self) -> Vec<Connection> {
        let mut waited = Vec::new();
        if self.aimed_at() > self.slots {
            return waited;
        }
        while self.sockets.len() > self.slots {
            let Some(last) = self.sockets.last() else { break };
            let outcome = accept_all(&**last, &mut waited);
            let was_stuck = std::mem::replace(&mut self.aim().is_stuck, outcome.is_err());
            if let Err(error) = outcome {
                if !was_stuck {
                    log::warn!("cannot accept what waits on {}: {error}; again later", last.local());
                }
                break;
            }
            end(&**last);
            self.sockets.pop();
        }
        waited
    }

    /// Stops the unused sockets that `other` lacks, after a failed change.
    pub(crate) fn stop_unless_in(&self, other: &Self) {
        let used = self.aimed_at().max(other.sockets.len());
        self.sockets.iter().skip(used).rev().for_each(|socket| end(&**socket));
    }

    /// The socket of a slot, also of a leaving one. A slot beyond the last gets some socket: every worker has
    /// one.
    pub(crate) fn of_slot(&self, slot: usize) -> &Arc<dyn Listener> {
        self.sockets.get(slot).unwrap_or_else(|| &self.sockets[slot % self.slots.min(self.sockets.len())])
    }

    /// All sockets, the leaving ones last.
    pub(crate) fn sockets(&self) -> &[Arc<dyn Listener>] {
        &self.sockets
    }

    pub(crate) fn local(&self) -> &Local {
        self.sockets[0].local()
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn backlog(&self) -> i32 {
        self.backlog
    }

    /// Sets the backlog of further sockets. `OpenSet` changes the existing ones.
    pub(crate) fn set_backlog(&mut self, backlog: i32) {
        self.backlog = backlog;
    }

    /// The number of sockets, from the first, that get new connections.
    pub(crate) fn aimed_at(&self) -> usize {
        self.aim().at.unwrap_or(self.sockets.len())
    }

    fn aim(&self) -> MutexGuard<'_, Aim> {
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds sockets at the end until there are `count`.
fn add_sockets(sockets: &mut Vec<Arc<dyn Listener>>, count: usize, backlog: i32) -> Result<()> {
    while let (Local::Tcp(address), true) = (sockets[0].local(), sockets.len() < count) {
        let socket = TcpListening::beside(*address, backlog)?;
        sockets.push(Arc::new(socket));
    }
    Ok(())
}

fn handshakes_with(sockets: &[Arc<dyn Listener>]) -> io::Result<HashSet<SocketAddr>> {
    match sockets.first().map(|socket| socket.local()) {
        Some(Local::Tcp(address)) => handshakes::handshakes_with(address.port()),
        _ => Ok(HashSet::new()),
    }
}

/// The most failures in a row. If a system call filter or the network refuses each accept(2), the error
/// persists and the queue never ends.
const FAILURES: u32 = 64;

/// Accepts all queued connections and skips failed ones.
///
/// # Errors
/// No descriptor or memory is left for a connection, or [`FAILURES`] in a row have failed.
fn accept_all(socket: &dyn Listener, waited: &mut Vec<Connection>) -> io::Result<()> {
    let mut failures = 0;
    loop {
        match socket.accept() {
            Ok(connection) => {
                failures = 0;
                waited.push(connection);
            }
            // It does not listen any more.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            Err(error) => match AcceptFailure::of(&error) {
                AcceptFailure::Empty => return Ok(()),
                AcceptFailure::Lost if failures < FAILURES => failures += 1,
                _ => return Err(error),
            },
        }
    }
}

/// Stops listening in all processes. After a mere close the socket would stay in the kernel's row until every
/// process has closed its copy.
fn end(socket: &dyn Listener) {
    let _ = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Each accept(2) fails with the same error, as under a filter of system calls.
    #[derive(Debug)]
    struct Failing(Arc<dyn Listener>, AtomicU32);

    impl AsFd for Failing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Listener for Failing {
        fn local(&self) -> &Local {
            self.0.local()
        }

        fn accept(&self) -> io::Result<Connection> {
            let calls = self.1.fetch_add(1, Relaxed);
            assert!(calls < 10_000, "there is no end to it");
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }

        fn with_socket(&self, _: std::os::fd::OwnedFd) -> io::Result<Arc<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn an_error_of_every_accept_ends_the_emptying_of_a_queue() {
        let socket: Arc<dyn Listener> =
            Arc::new(TcpListening::beside(([127, 0, 0, 1], 0).into(), 8).unwrap());
        let mut waited = Vec::new();
        let error = accept_all(&Failing(socket, AtomicU32::new(0)), &mut waited).unwrap_err();
        assert_eq!((error.raw_os_error(), waited.len()), (Some(libc::EPERM), 0));
    }
}
