//! The sockets of a TCP address that has one for each slot (SO_REUSEPORT). The supervisor holds them all, so that what is
//! queued on one outlives the worker that accepts from it: the slot's next worker has the same socket.
//!
//! The kernel keeps the sockets of a port in a row, in the order in which they began to listen, and puts the last one in
//! the place of one that closes. So sockets are only ever added behind the others and ended from the end, and the row is
//! the same here and there. The kernel never moves a connection from one to another: a socket on which one waits, or with
//! which a handshake is under way, must not close. Hence a slot begins and ends in two steps each:
//!
//! | | |
//! |---|---|
//! | [`PerSlot::resized`] | its socket listens, and gets nothing as long as nobody would accept it |
//! | [`PerSlot::aim`] | its worker is ready: it gets its share |
//! | [`PerSlot::aim`] | it gets nothing new; its worker goes on accepting what has come or is coming |
//! | [`PerSlot::end_leaving`] | nothing is coming ([`PerSlot::is_settled`]), its worker has ended: it closes |

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

/// The sockets of one address. Clones share them, and know where the kernel sends connections.
#[derive(Debug, Clone)]
pub(crate) struct PerSlot {
    /// In the kernel's order. Those behind the first `slots` are leaving.
    sockets: Vec<Arc<dyn Listener>>,
    slots: usize,
    backlog: i32,
    aim: Arc<Mutex<Aim>>,
}

/// What the kernel was told about new connections.
#[derive(Debug, Default)]
struct Aim {
    /// How many sockets, from the first, get some; `None`: all that there are.
    at: Option<usize>,
    /// The clients with which a handshake was under way when sockets were last taken out; `None`: not known yet.
    handshakes: Option<HashSet<SocketAddr>>,
    /// A leaving socket could not be emptied, and the log says so already.
    is_stuck: bool,
}

impl PerSlot {
    /// Puts further sockets beside the one that has the port to itself by now.
    pub(crate) fn beside(first: Arc<dyn Listener>, slots: usize, backlog: i32) -> Result<Self> {
        let mut sockets = vec![first];
        add_sockets(&mut sockets, slots, backlog)?;
        Ok(Self { sockets, slots: slots.max(1), backlog, aim: Arc::default() })
    }

    /// Takes over the sockets of our predecessor, in its order.
    pub(crate) fn adopt(sockets: Vec<Arc<dyn Listener>>, slots: usize, at: usize, backlog: i32) -> Self {
        let handshakes = if sockets.len() > slots { handshakes_with(&sockets).ok() } else { None };
        Self {
            sockets,
            slots,
            backlog,
            aim: Arc::new(Mutex::new(Aim { at: Some(at), handshakes, is_stuck: false })),
        }
    }

    /// The same sockets for another number of slots, and further ones where there are too few. New connections go where
    /// they went before.
    pub(crate) fn resized(&self, slots: usize) -> Result<Self> {
        let mut resized = Self { slots: slots.max(1), ..self.clone() };
        if slots > self.sockets.len() {
            self.aim_at(self.aimed_at())?;
            add_sockets(&mut resized.sockets, slots, self.backlog)?;
        }
        Ok(resized)
    }

    /// From now on new connections go to the first `slots` sockets, at least to one.
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

    /// Whether nothing more will come to the sockets that are leaving: they get nothing new, and all handshakes that
    /// were under way when that began are over. They are not while the kernel cannot be asked.
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
            // Those that have begun since are among them: their wait is longer than it must be, and ends.
            unknown => *unknown = Some(now),
        }
        aim.handshakes.as_ref().is_some_and(HashSet::is_empty)
    }

    /// Ends the sockets that are leaving, for whoever may still hold them, and returns what still waited on them. To be
    /// called when they are settled, and nobody accepts from them any more.
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

    /// Ends the sockets that `other` lacks and that have never got anything: a change that was not to be.
    pub(crate) fn end_what_is_not_in(&self, other: &Self) {
        let used = self.aimed_at().max(other.sockets.len());
        self.sockets.iter().skip(used).rev().for_each(|socket| end(&**socket));
    }

    /// A slot's socket, also while it is leaving. A slot beyond those that there are gets one all the same: no worker is deaf.
    pub(crate) fn of_slot(&self, slot: usize) -> &Arc<dyn Listener> {
        self.sockets.get(slot).unwrap_or_else(|| &self.sockets[slot % self.slots.min(self.sockets.len())])
    }

    /// All of them, those that are leaving last.
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

    /// What further sockets are to have; see `OpenSet` for those that there are.
    pub(crate) fn set_backlog(&mut self, backlog: i32) {
        self.backlog = backlog;
    }

    /// How many sockets, from the first, get new connections.
    pub(crate) fn aimed_at(&self) -> usize {
        self.aim().at.unwrap_or(self.sockets.len())
    }

    fn aim(&self) -> MutexGuard<'_, Aim> {
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds sockets behind the others until there are `count`.
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

/// How many connections in a row may fail. Where a filter of system calls or the network refuses each accept(2), the
/// error stays, and the queue never ends.
const FAILURES: u32 = 64;

/// Accepts the connections that wait; one that has failed is passed over.
///
/// # Errors
/// The system has no room for a connection, or [`FAILURES`] in a row have failed.
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

/// Stops listening, whoever else holds the socket: to close our copy would leave it in the kernel's row for as long as
/// that somebody lives.
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
