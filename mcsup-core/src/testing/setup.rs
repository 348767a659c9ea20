//! The place of a worker without a fork: its listeners, slot and limits.

use std::sync::Arc;
use std::time::Duration;

use super::remote::Remote;
use super::running::RunningWorker;
use crate::error::{Error, Result};
use crate::link::channel;
use crate::link::handover::Handover;
use crate::link::lifeline::WorkerControl;
use crate::link::scoreboard::Scoreboard;
use crate::listener::open::OpenSet;
use crate::listener::{Address, Listener, Options, own};
use crate::policy::Policy;
use crate::worker::{Worker, WorkerContext};

/// The most siblings of a worker in a test.
const MOST_SIBLINGS: usize = 63;

/// The settings of a worker in the test's own process.
#[derive(Debug)]
pub struct WorkerSetup {
    addresses: Vec<Address>,
    listeners: Vec<Arc<dyn Listener>>,
    options: Options,
    slot: usize,
    max_requests: Option<u64>,
    graceful_timeout: Duration,
    mistake: Option<Error>,
}

impl Default for WorkerSetup {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            listeners: Vec::new(),
            options: Options::default(),
            slot: 0,
            max_requests: None,
            graceful_timeout: Policy::default().graceful_timeout,
            mistake: None,
        }
    }
}

impl WorkerSetup {
    /// The worker of slot 0, without a listener.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address to listen on. `127.0.0.1:0` is a free port, which [`Remote::address`] returns.
    #[must_use]
    pub fn bind(mut self, address: &str) -> Self {
        match address.parse() {
            Ok(address) => self.addresses.push(address),
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }

    /// Adds a listener of the program's own, as [`Prefork::listener`](crate::Prefork::listener) does.
    #[must_use]
    pub fn listener(mut self, listener: impl Listener + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// How to listen.
    #[must_use]
    pub fn listener_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The slot of the worker.
    #[must_use]
    pub fn slot(mut self, slot: usize) -> Self {
        self.slot = slot;
        self
    }

    /// The number of requests after which it asks for a successor.
    #[must_use]
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.max_requests = Some(requests);
        self
    }

    /// The time of the longest drain, on the clock of [`Remote::pass`].
    #[must_use]
    pub fn graceful_timeout(mut self, time: Duration) -> Self {
        self.graceful_timeout = time;
        self
    }

    /// Opens the listeners. Returns the context of the worker, and the remote that plays its supervisor.
    ///
    /// The context has no lifeline thread and handles no signal of the process.
    ///
    /// # Errors
    /// An address is invalid or cannot be bound, or no memory or descriptor is left.
    pub fn context(self) -> Result<(WorkerContext, Remote)> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let failed = |step: &'static str| move |error: std::io::Error| Error::system(step, error);
        let mut board = Scoreboard::new(MOST_SIBLINGS + 1).map_err(failed("map the scoreboard"))?;
        let row = board.take().ok_or_else(|| failed("take a row")(std::io::ErrorKind::OutOfMemory.into()))?;
        let (end, theirs) = channel::pair().map_err(failed("make a link"))?;
        let control = Arc::new(WorkerControl::new().map_err(failed("make a pipe"))?);
        let handover = Arc::new(Handover::new().map_err(failed("make the handover queue"))?);
        own::prepare(&self.listeners)?;
        let opened = OpenSet::open(&self.addresses, &self.options, self.slot + 1)?;
        let opened = opened.with_own(&self.listeners);
        let listeners = Arc::new(opened.for_slot(self.slot));
        let place = (self.slot, 1, self.max_requests);
        let context = WorkerContext::new(
            place,
            Arc::clone(&listeners),
            Arc::clone(&control),
            row.clone(),
            Arc::clone(&handover),
            theirs,
        );
        let context = context.with_graceful_timeout(self.graceful_timeout);
        let links = (end, handover);
        Ok((context, Remote::new((control, row, board), links, opened, self.graceful_timeout)))
    }

    /// Loads and boots `worker` on a thread, and runs it there.
    ///
    /// # Errors
    /// Those of [`context`](Self::context), and those of [`Worker::load`] and [`Worker::boot`].
    ///
    /// # Panics
    /// If `load` or `boot` panics.
    pub fn run<W>(
        self,
        worker: W,
    ) -> std::result::Result<RunningWorker, Box<dyn std::error::Error + Send + Sync>>
    where
        W: Worker + Send + 'static,
    {
        let (context, remote) = self.context()?;
        RunningWorker::start(worker, context, remote)
    }
}
