//! The process that calls the hooks of gunicorn's master: its start, its events, its end.
//!
//! Two sockets lead to it: one for events, and one on which it reports how many of these it has begun. So the events
//! that it has not seen are known when it ends.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mcsup_core::Error;
use mcsup_core::host::helper::{AtSignals, Helper};
use mcsup_py::conf::{MasterEvent, MasterHooks};
use mcsup_py::python::fork;

use super::beats::Beats;

/// The longest time of a hook.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The time beyond that limit in which the process itself ends.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// A process that ends sooner is not started again until the next reload.
const TOO_SOON: Duration = Duration::from_secs(5);
/// The time for the exit status of a process whose socket is closed.
const STATUS: Duration = Duration::from_millis(20);
/// The interval between checks of a process that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The process, and the sockets to it.
pub(super) struct Process {
    helper: Helper,
    events: UnixStream,
    progress: UnixStream,
    since: Instant,
    /// The bytes of an event for which the socket had no room.
    rest: Vec<u8>,
    /// The number of events that the process has begun.
    begun: u64,
    /// The events that it has not begun.
    waiting: VecDeque<MasterEvent>,
    /// Events that found the socket full.
    lost: usize,
}

/// The result of [`Process::send`].
pub(super) enum Sent {
    /// The process will read it, or has.
    Yes,
    /// The process is busy, and its socket full.
    Lost,
    /// The process has ended, as the text tells.
    Ended(String),
}

impl Process {
    /// Forks the process. `hooks` runs in it; `kept` is a further descriptor that it has.
    pub(super) fn start(kept: i32, hooks: impl FnOnce() -> MasterHooks) -> mcsup_core::Result<Self> {
        let failed = |error| Error::system("make a socket to the process of hooks", error);
        let (events, theirs) = UnixStream::pair().map_err(failed)?;
        let (progress, to_progress) = UnixStream::pair().map_err(failed)?;
        for socket in [&events, &progress, &to_progress] {
            socket.set_nonblocking(true).map_err(failed)?;
        }
        let kept = [theirs.as_raw_fd(), to_progress.as_raw_fd(), kept];
        let helper = Helper::start(AtSignals::GoOn, &kept, around_fork, || {
            let (Ok(events), Ok(progress)) = (theirs.try_clone(), to_progress.try_clone()) else { return 1 };
            hooks().run(events.into(), progress.into())
        })?;
        Ok(Self {
            helper,
            events,
            progress,
            since: Instant::now(),
            rest: Vec::new(),
            begun: 0,
            waiting: VecDeque::new(),
            lost: 0,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.helper.pid()
    }

    /// How it has ended, in words; `None`: it runs.
    pub(super) fn end(&mut self) -> Option<String> {
        self.helper.end()
    }

    /// Whether it has ended so soon after its start that another one would too.
    pub(super) fn is_new(&self) -> bool {
        self.since.elapsed() < TOO_SOON
    }

    /// Writes an event to the socket, without a wait.
    pub(super) fn send(&mut self, event: &MasterEvent) -> Sent {
        self.read_progress();
        if let Some(end) = self.helper.end() {
            return Sent::Ended(end);
        }
        match self.write(event) {
            Ok(()) => {
                if self.lost > 0 {
                    log::warn!("Hooks were not called for {} events: their process was busy", self.lost);
                    self.lost = 0;
                }
                self.waiting.push_back(event.clone());
                Sent::Yes
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if self.lost == 0 {
                    log::warn!("The process of the hooks is busy: events are lost ({})", event.hook());
                }
                self.lost += 1;
                Sent::Lost
            }
            Err(error) => {
                // A process that has closed its socket gets no event any more.
                if !self.helper.wait(STATUS) {
                    self.helper.kill();
                }
                self.read_progress();
                Sent::Ended(self.helper.end().unwrap_or_else(|| error.to_string()))
            }
        }
    }

    /// Writes the rest of the last event and the first bytes at least of this one, or nothing of it.
    fn write(&mut self, event: &MasterEvent) -> std::io::Result<()> {
        self.write_rest()?;
        self.rest = event.line().into_bytes();
        let whole = self.rest.len();
        match self.write_rest() {
            Err(error) if self.rest.len() == whole => {
                self.rest.clear();
                Err(error)
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn write_rest(&mut self) -> std::io::Result<()> {
        while !self.rest.is_empty() {
            match self.events.write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Forgets the events that the process has begun. Each report is a number of 8 bytes, written at once.
    fn read_progress(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = self.progress.read(&mut bytes) {
            let last = length.checked_sub(8).and_then(|from| bytes[from..length].first_chunk());
            let Some(begun) = last.map(|number| u64::from_le_bytes(*number)) else { return };
            let more = usize::try_from(begun.saturating_sub(self.begun)).unwrap_or(usize::MAX);
            self.waiting.drain(..more.min(self.waiting.len()));
            self.begun = begun;
        }
    }

    /// The events that a process which has ended has not begun.
    pub(super) fn missed(&mut self) -> Vec<MasterEvent> {
        // It may have begun some right before its end.
        self.read_progress();
        std::mem::take(&mut self.waiting).into()
    }

    /// Logs the number of those events.
    pub(super) fn warn_of_missed(&mut self) {
        self.read_progress();
        let missed = self.waiting.len();
        if missed > 0 {
            log::warn!("Hooks were not called for {missed} events: their process has ended");
        }
    }

    /// Waits until it has begun each event, for the longest time of a hook, or has ended.
    pub(super) fn wait_until_idle(&mut self, beats: &mut Beats) {
        let begin = Instant::now();
        self.read_progress();
        while !self.waiting.is_empty()
            && begin.elapsed() < LIMIT + GRACE
            && !self.helper.wait(LOOK_EVERY / 10)
        {
            beats.beat();
            self.read_progress();
        }
    }

    /// Ends it, after `on_exit` if it is to be called, within the longest time of a hook.
    pub(super) fn finish(mut self, calls_on_exit: bool, beats: &mut Beats) {
        let begin = Instant::now();
        let is_in_time = || begin.elapsed() < LIMIT + GRACE;
        if calls_on_exit {
            while matches!(self.send(&MasterEvent::OnExit {}), Sent::Lost) && is_in_time() {
                beats.beat();
                self.helper.wait(LOOK_EVERY);
            }
        }
        if !calls_on_exit {
            // With an open socket it would wait for events. With a closed one `on_exit` would have less time.
            let _ = self.events.shutdown(Shutdown::Both);
        }
        while !self.helper.wait(LOOK_EVERY) {
            if !is_in_time() {
                log::error!("The process of the hooks ({}) does not end: it is killed", self.pid());
                self.helper.kill();
                break;
            }
            beats.beat();
        }
        self.warn_of_missed();
    }
}

fn around_fork(after_in_child: Option<bool>) {
    match after_in_child {
        None => fork::before(),
        Some(true) => fork::after_in_child(),
        Some(false) => fork::after_in_parent(),
    }
}
