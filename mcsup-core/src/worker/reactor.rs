//! The sources of a worker in a tokio runtime: one registration each for its changes and for its connections.
//!
//! A runtime registers no listener itself, but pollers that watch them (`sys/poller`). The lifeline and
//! [`WorkerContext::close_listeners`] redirect the numbers of listeners; such a number in the runtime's own
//! poller would be reported for ever, and could not be removed.

use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustix::event::PollFlags;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};
use tokio::sync::futures::Notified;

use super::accepting::{connecting, ready};
use super::context::WorkerContext;
use crate::error::{Error, ErrorKind, Result};
use crate::link::lifeline::WorkerControl;
use crate::sys::poller::Poller;

/// The interval between signs of life of a worker that waits.
const BEAT: Duration = Duration::from_secs(1);

/// The reactors of a worker, by runtime.
#[derive(Debug, Default)]
pub(super) struct Reactors(Mutex<Vec<(Id, Arc<Reactor>)>>);

impl Reactors {
    /// The reactor of the current runtime.
    ///
    /// # Errors
    /// There is no runtime, or no descriptor is left.
    pub(super) fn here(&self, worker: &WorkerContext) -> Result<Arc<Reactor>> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Setting, "a worker can wait in a tokio runtime only").caused_by(error)
        })?;
        let mut reactors = self.all();
        if let Some((_, reactor)) = reactors.iter().find(|(id, _)| *id == runtime.id()) {
            return Ok(Arc::clone(reactor));
        }
        let reactor = Reactor::new(worker).map_err(|error| Error::system("register listeners", error))?;
        reactors.push((runtime.id(), Arc::clone(&reactor)));
        Ok(reactor)
    }

    /// Forgets a reactor that has failed: another runtime may have the number of one that has ended.
    pub(super) fn forget(&self, reactor: &Arc<Reactor>) {
        self.all().retain(|(_, other)| !Arc::ptr_eq(other, reactor));
    }

    /// Ends all registrations, before listeners close.
    pub(super) fn forget_all(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, Vec<(Id, Arc<Reactor>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registrations in one runtime.
#[derive(Debug)]
pub(super) struct Reactor {
    changes: AsyncFd<Poller>,
    /// Watches the handover and the listeners.
    sources: AsyncFd<Poller>,
}

impl Reactor {
    fn new(worker: &WorkerContext) -> io::Result<Arc<Self>> {
        let sources = Poller::new()?;
        sources.add(worker.handed_over_fd(), PollFlags::IN)?;
        for listener in connecting(worker) {
            match sources.add(listener.as_fd(), PollFlags::IN) {
                // This process has closed it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                added => added?,
            }
        }
        // A poller of its own, so that the embedder can register the worker's descriptor as well.
        let changes = Poller::new()?;
        changes.add(worker.wake_fd(), PollFlags::IN)?;
        Ok(Arc::new(Self { changes: changes.register()?, sources: sources.register()? }))
    }

    /// Waits for a change of the worker. `changed` was enabled before the state was read.
    pub(super) async fn change(
        &self,
        control: &WorkerControl,
        mut changed: Pin<&mut Notified<'_>>,
    ) -> io::Result<()> {
        let mut readable = pin!(self.changes.readable());
        std::future::poll_fn(|context| {
            if changed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            readable.as_mut().poll(context).map_ok(|mut guard| {
                control.acknowledge();
                guard.clear_ready();
            })
        })
        .await
    }

    /// Waits for sources that may have a connection, as [`ready`] returns them; empty: the worker has changed, or
    /// a sign of life is due.
    pub(super) async fn connection(
        &self,
        worker: &WorkerContext,
        changed: Pin<&mut Notified<'_>>,
    ) -> Result<Vec<bool>> {
        let failed = |error| Error::system("wait for a connection", error);
        let mut change = pin!(self.change(worker.control(), changed));
        let mut found = pin!(self.source(worker));
        let mut beat = pin!(tokio::time::sleep(BEAT));
        std::future::poll_fn(|context| {
            if let Poll::Ready(changed) = change.as_mut().poll(context) {
                return Poll::Ready(changed.map(|()| Vec::new()).map_err(failed));
            }
            if let Poll::Ready(found) = found.as_mut().poll(context) {
                return Poll::Ready(found);
            }
            beat.as_mut().poll(context).map(|()| Ok(Vec::new()))
        })
        .await
    }

    async fn source(&self, worker: &WorkerContext) -> Result<Vec<bool>> {
        loop {
            let guard = self.sources.readable().await;
            let mut guard = guard.map_err(|error| Error::system("wait for a connection", error))?;
            let found = ready(worker, true)?;
            if found.contains(&true) {
                return Ok(found);
            }
            guard.clear_ready();
        }
    }
}
