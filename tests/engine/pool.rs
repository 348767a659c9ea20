//! What several engines share: a listener, what each knows of the others, and the queue of connections that change hands.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mcsup_py::engine::Siblings;

use crate::fixture::listen;

/// The supervisor's part, as far as engines can tell.
pub(crate) struct Pool {
    pub listener: TcpListener,
    lines: Vec<Line>,
    queue: Mutex<VecDeque<(OwnedFd, Vec<u8>)>>,
    /// Holds one byte for each connection in the queue.
    pub bell: (OwnedFd, OwnedFd),
    /// How many connections the queue takes.
    pub room: AtomicUsize,
    /// What was said of each connection that was handed over.
    handed: Mutex<Vec<Vec<u8>>>,
}

/// What an engine lets its siblings know.
#[derive(Default)]
pub(crate) struct Line {
    pub permits: AtomicUsize,
    pub running: AtomicUsize,
    pub connections: AtomicUsize,
}

/// An engine's place in a pool.
pub(crate) struct Seat {
    pub pool: Arc<Pool>,
    index: usize,
}

impl Pool {
    /// For a number of engines, none of which runs yet.
    pub(crate) fn of(engines: usize) -> Arc<Self> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        Arc::new(Self {
            listener: listen(),
            lines: (0..engines).map(|_| Line::default()).collect(),
            queue: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            bell: rustix::pipe::pipe_with(flags).unwrap(),
            handed: Mutex::default(),
        })
    }

    pub(crate) fn seat(self: &Arc<Self>, index: usize) -> Option<Seat> {
        Some(Seat { pool: Arc::clone(self), index })
    }

    pub(crate) fn line(&self, index: usize) -> &Line {
        &self.lines[index]
    }

    /// What was said of the connections that were handed over until now.
    pub(crate) fn handed(&self) -> Vec<Vec<u8>> {
        self.handed.lock().unwrap().clone()
    }

    pub(crate) fn give(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        // As the real one.
        if bytes.len() > 16 * 1024 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let connection = connection.try_clone_to_owned()?;
        let mut queue = self.queue.lock().unwrap();
        if queue.len() >= self.room.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        queue.push_back((connection, bytes.to_vec()));
        drop(queue);
        self.handed.lock().unwrap().push(bytes.to_vec());
        rustix::io::write(&self.bell.1, &[0])?;
        Ok(())
    }

    pub(crate) fn take(&self) -> Option<(OwnedFd, Vec<u8>)> {
        match rustix::io::read(&self.bell.0, &mut [0]) {
            Ok(1) => self.queue.lock().unwrap().pop_front(),
            _ => None,
        }
    }
}

impl Seat {
    pub(crate) fn own(&self) -> &Line {
        self.pool.line(self.index)
    }

    pub(crate) fn siblings(&self) -> Siblings {
        let mut all = Siblings::default();
        for (index, line) in self.pool.lines.iter().enumerate() {
            let permits = line.permits.load(Ordering::SeqCst);
            if index == self.index || permits == 0 {
                continue;
            }
            let free = permits.saturating_sub(line.running.load(Ordering::SeqCst));
            all.count += 1;
            all.free += free;
            if free > 0 {
                all.fewest = all.fewest.min(line.connections.load(Ordering::SeqCst));
            }
        }
        all
    }
}
