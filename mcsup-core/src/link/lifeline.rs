//! The worker's thread for orders: it reads them while the worker is busy, and notices within milliseconds
//! that its supervisor is gone, on every system and independent of the worker's code.
//!
//! It does no work of the worker: it raises the [`Phase`] and wakes the worker. When the supervisor is dead
//! it also releases the listeners, so that a new supervisor can bind the port at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::channel::WorkerEnd;
use super::message::Order;
use super::scoreboard::ScoreboardRow;
use super::stop_request::StopRequest;
use crate::listener::open::OpenSet;
use crate::policy::Drain;
use crate::sys::companion::Companion;
use crate::sys::{caught, descriptor, fork};

/// The stage of a worker's life. It only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Accept and serve.
    Serving,
    /// Accept and serve, and report the coming end to health checks. A load balancer can then redirect its
    /// clients.
    LameDuck,
    /// Stop accepting, finish, end: a newer generation serves the listeners.
    Retiring,
    /// Accept the queued connections, then stop accepting, finish, end.
    Draining,
    /// End now.
    Quitting,
}

impl Phase {
    /// Whether the worker accepts new connections.
    pub fn accepts(self) -> bool {
        self <= Phase::LameDuck
    }
}

/// The state of a worker's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Released {
    No,
    /// Nothing arrives at them.
    Silent,
    /// They refer to /dev/null, as no descriptor was left.
    Noisy,
}

/// The worker's phase and its other controls. The worker, its lifeline and its signal handlers share them.
#[derive(Debug)]
pub(crate) struct WorkerControl {
    phase: AtomicU8,
    log_epoch: AtomicU32,
    has_begun: AtomicBool,
    released: AtomicU8,
    is_broken: AtomicBool,
    broken: Mutex<Option<Arc<str>>>,
    wake_read: OwnedFd,
    wake_write: OwnedFd,
    /// Wakes the futures that wait for a change: one that empties the pipe hides the change from others.
    #[cfg(feature = "tokio")]
    changed: tokio::sync::Notify,
    /// Notes the sender of a signal, once signals are joined.
    row: OnceLock<ScoreboardRow>,
    is_noted: AtomicBool,
}

impl WorkerControl {
    pub(crate) fn new() -> io::Result<Self> {
        let (wake_read, wake_write) = descriptor::pipe(true)?;
        Ok(Self {
            phase: AtomicU8::new(Phase::Serving as u8),
            log_epoch: AtomicU32::new(0),
            has_begun: AtomicBool::new(false),
            released: AtomicU8::new(Released::No as u8),
            is_broken: AtomicBool::new(false),
            broken: Mutex::new(None),
            wake_read,
            wake_write,
            #[cfg(feature = "tokio")]
            changed: tokio::sync::Notify::new(),
            row: OnceLock::new(),
            is_noted: AtomicBool::new(false),
        })
    }

    /// Lets SIGTERM drain and SIGUSR1 reopen logs, as counted by `sys/caught`. Notes the sender of a SIGTERM
    /// at `row`.
    pub(crate) fn join_signals(&self, row: ScoreboardRow) {
        if self.row.set(row).is_ok() {
            // A worker has no other pipe of this kind, so there is room for it.
            let _ = caught::wake_by(self.wake_write.as_fd());
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        let phase = match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::LameDuck,
            2 => Phase::Retiring,
            3 => Phase::Draining,
            _ => Phase::Quitting,
        };
        if self.is_terminated() { phase.max(Phase::Draining) } else { phase }
    }

    fn is_terminated(&self) -> bool {
        let Some(row) = self.row.get().filter(|_| caught::count(libc::SIGTERM) > 0) else { return false };
        if !self.is_noted.swap(true, Ordering::Relaxed) {
            if let Some(origin) = caught::origin(libc::SIGTERM) {
                row.signalled(libc::SIGTERM, origin.pid);
            }
        }
        true
    }

    pub(crate) fn raise(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.wake();
    }

    pub(crate) fn log_epoch(&self) -> u32 {
        let asked = self.row.get().map_or(0, |_| caught::count(libc::SIGUSR1));
        self.log_epoch.load(Ordering::Acquire).wrapping_add(asked)
    }

    pub(crate) fn reopen_logs(&self) {
        self.log_epoch.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.wake();
    }

    /// Waits until the supervisor has confirmed that the worker is ready; `false`: the worker is to end.
    ///
    /// An order to drain may follow at once. The worker runs then too: the supervisor counts on it for the
    /// queued connections.
    pub(crate) fn may_begin(&self) -> bool {
        loop {
            self.acknowledge();
            // The phase first: the confirmation precedes each order to drain.
            let is_ending = !self.phase().accepts();
            let has_begun = self.has_begun.load(Ordering::Acquire);
            if is_ending || has_begun {
                return has_begun;
            }
            // A persistent error would recur at once. Only an interruption by a signal is temporary.
            let _ = poll(&mut [PollFd::new(&self.wake_read, PollFlags::IN)], None);
        }
    }

    /// The reason why the next generation does not boot. Costs one load if there is none.
    pub(crate) fn broken(&self) -> Option<Arc<str>> {
        if !self.is_broken.load(Ordering::Acquire) {
            return None;
        }
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_broken(&self, text: String) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
        self.is_broken.store(true, Ordering::Release);
    }

    /// Releases the listeners of the worker.
    pub(crate) fn release(&self, listeners: &OpenSet) {
        self.released.store(Released::Silent as u8, Ordering::Release);
        if !listeners.release() {
            self.released.store(Released::Noisy as u8, Ordering::Release);
        }
    }

    /// Whether the listeners are released, so that an error of accept(2) is none.
    pub(crate) fn has_released(&self) -> bool {
        self.released.load(Ordering::Acquire) != Released::No as u8
    }

    /// Whether released listeners are readable for ever.
    pub(crate) fn is_noisy(&self) -> bool {
        self.released.load(Ordering::Acquire) == Released::Noisy as u8
    }

    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake_read.as_fd()
    }

    /// Both ends of the pipe.
    pub(crate) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.wake_read.as_fd(), self.wake_write.as_fd()]
    }

    /// Empties the pipe, so that `wake_fd` becomes readable at the next change.
    pub(crate) fn acknowledge(&self) {
        let (mut bytes, mut has_changed) = ([0; 64], false);
        while let Ok(1..) = rustix::io::read(&self.wake_read, &mut bytes) {
            has_changed = true;
        }
        if has_changed {
            self.wake_futures();
        }
    }

    /// Resolves at the next change after it was enabled, if one future acknowledges the changes.
    #[cfg(feature = "tokio")]
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn wake(&self) {
        // A full pipe wakes the worker already.
        let _ = rustix::io::write(&self.wake_write, &[0]);
        self.wake_futures();
    }

    fn wake_futures(&self) {
        #[cfg(feature = "tokio")]
        self.changed.notify_waiters();
    }
}

impl Drop for WorkerControl {
    fn drop(&mut self) {
        if self.row.get().is_some() {
            caught::stop_waking(self.wake_write.as_fd());
        }
    }
}

/// The name of the thread. Every worker has one; no process that the application starts does.
pub const THREAD_NAME: &str = "lifeline";

/// The end of a worker whose supervisor is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alone {
    /// The longest time to finish.
    pub(crate) patience: Duration,
    /// Whether it may have clients while it boots. One that has none ends at once.
    pub(crate) serves_while_booting: bool,
}

/// The time of a worker that serves while it boots to end its processes, after its own time.
const TO_END_PROCESSES: Duration = Duration::from_secs(1);

/// Starts the thread.
pub(crate) fn start(
    end: WorkerEnd,
    control: Arc<WorkerControl>,
    listeners: Arc<OpenSet>,
    alone: Alone,
) -> io::Result<Companion> {
    let lifeline = Lifeline {
        end,
        control,
        listeners,
        alone,
        stop_request: StopRequest::new()?,
        orphaned: OnceLock::new(),
    };
    let lifeline = Arc::new(lifeline);
    let asked = Arc::clone(&lifeline);
    let ask = move |stop_request| asked.stop_request.ask(stop_request);
    Companion::start(THREAD_NAME, 128 * 1024, move || lifeline.listen(), ask)
}

struct Lifeline {
    end: WorkerEnd,
    control: Arc<WorkerControl>,
    listeners: Arc<OpenSet>,
    alone: Alone,
    stop_request: StopRequest,
    /// The time at which the supervisor was found to be gone.
    orphaned: OnceLock<Instant>,
}

impl Lifeline {
    /// Reads orders until the supervisor is gone or a fork sends the thread away.
    fn listen(&self) {
        while self.orphaned.get().is_none() {
            if !self.wait_for_order() {
                return;
            }
            match self.end.receive() {
                Some(order) => self.obey(order),
                None => self.be_orphaned(),
            }
        }
        self.wait_for_end();
    }

    fn obey(&self, order: Order) {
        let control = &self.control;
        match order {
            Order::Begin => control.begin(),
            Order::LameDuck => control.raise(Phase::LameDuck),
            Order::Drain(Drain::Retire) => control.raise(Phase::Retiring),
            Order::Drain(Drain::Stop) => control.raise(Phase::Draining),
            Order::Quit => control.raise(Phase::Quitting),
            Order::ReopenLogs => control.reopen_logs(),
            Order::Broken(text) => control.set_broken(text),
        }
    }

    /// Waits for an order; `false`: the thread is to end.
    fn wait_for_order(&self) -> bool {
        loop {
            if self.stop_request.is_asked() {
                return false;
            }
            if self.stop_request.wait(Some(self.end.as_fd()), None) {
                return true;
            }
        }
    }

    fn be_orphaned(&self) {
        if !self.control.has_begun.load(Ordering::Acquire) && !self.alone.serves_while_booting {
            // The worker serves no request yet, and no process would learn that it is ready.
            fork::exit_now(1);
        }
        self.orphaned.get_or_init(Instant::now);
        // Before the worker is woken, whose code may then close its duplicates.
        self.control.release(&self.listeners);
        self.control.raise(Phase::Draining);
        // Last: the log may block.
        log::warn!("the supervisor is gone: finishing what has arrived");
    }

    /// Ends the process if the worker does not finish in time without a supervisor.
    fn wait_for_end(&self) {
        let begin = *self.orphaned.get_or_init(Instant::now);
        let Alone { patience, serves_while_booting } = self.alone;
        let for_processes = if serves_while_booting { TO_END_PROCESSES } else { Duration::ZERO };
        let limit = patience.saturating_add(for_processes);
        while !self.stop_request.is_asked() {
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                log::error!("not finished {patience:?} after the supervisor's end: giving up");
                fork::exit_now(1);
            }
            self.stop_request.wait(None, Some(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_serves_only_when_its_supervisor_has_confirmed_that_it_is_ready() {
        let control = Arc::new(WorkerControl::new().unwrap());
        let waits = Arc::clone(&control);
        let worker = std::thread::spawn(move || waits.may_begin());
        control.reopen_logs();
        control.begin();
        assert!(worker.join().unwrap());
        let unwanted = WorkerControl::new().unwrap();
        unwanted.raise(Phase::Retiring);
        assert!(!unwanted.may_begin());
    }

    #[test]
    fn a_worker_whose_drain_follows_its_confirmation_at_once_serves_the_queue() {
        let control = WorkerControl::new().unwrap();
        control.begin();
        control.raise(Phase::Draining);
        assert!(control.may_begin());
    }

    #[test]
    fn a_phase_only_rises() {
        use Phase::{Draining, LameDuck, Quitting, Retiring, Serving};
        let control = WorkerControl::new().unwrap();
        for phase in [Serving, LameDuck, Retiring, Draining, Quitting] {
            control.raise(phase);
            control.raise(Serving);
            assert_eq!(control.phase(), phase);
            assert_eq!(phase.accepts(), phase == Serving || phase == LameDuck);
        }
    }

    #[test]
    fn a_signal_drains_or_reopens_logs_and_its_sender_is_noted() {
        use crate::sys::caught::Act;
        use rustix::process::{Signal, getpid, kill_process};
        let row = crate::link::scoreboard::Scoreboard::new(1).unwrap().take().unwrap();
        let control = WorkerControl::new().unwrap();
        caught::install(&[(libc::SIGTERM, Act::Count), (libc::SIGUSR1, Act::Count)]).unwrap();
        control.join_signals(row.clone());
        let epoch = control.log_epoch();
        let arrives = |signal| {
            kill_process(getpid(), signal).unwrap();
            // Another thread may have received it.
            poll(&mut [PollFd::new(&control.wake_read, PollFlags::IN)], None).unwrap();
            control.acknowledge();
        };
        arrives(Signal::USR1);
        assert_eq!((control.phase(), control.log_epoch()), (Phase::Serving, epoch + 1));
        arrives(Signal::TERM);
        assert_eq!(control.phase(), Phase::Draining);
        assert_eq!(row.last_sender().map(|sender| sender.pid), Some(getpid().as_raw_nonzero().get()));
        control.raise(Phase::Quitting);
        assert_eq!(control.phase(), Phase::Quitting);
    }
}
