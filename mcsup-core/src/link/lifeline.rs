//! The worker's listening thread: hears orders while the worker itself is busy, and notices within milliseconds
//! that its supervisor is gone, on every system and whatever the worker's code does.
//!
//! It never touches the worker's work: it raises the [`Phase`], wakes the worker, and when the supervisor is dead
//! lets go of the listeners, so that a new supervisor can have the port at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::channel::WorkerEnd;
use super::message::Order;
use super::scoreboard::Seat;
use crate::listener::open::OpenSet;
use crate::policy::Drain;
use crate::sys::{caught, descriptor, fork, signal};

/// What a worker is to do. Only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Accept and serve.
    Serving,
    /// Go on accepting and serving, but say to whoever asks that this will end: a load balancer has the time to send its
    /// clients elsewhere.
    LameDuck,
    /// Accept no more, finish, end: a newer generation serves the listeners.
    Retiring,
    /// Accept what is queued, then no more, finish, end.
    Draining,
    /// End now.
    Quitting,
}

impl Phase {
    /// Whether connections are still accepted as they come.
    pub fn accepts(self) -> bool {
        self <= Phase::LameDuck
    }
}

/// The phase and what else may change from outside: shared by the worker and its lifeline, joined to the signals that the
/// process counts.
#[derive(Debug)]
pub(crate) struct Duty {
    phase: AtomicU8,
    log_epoch: AtomicU32,
    has_begun: AtomicBool,
    becomes_mold: AtomicBool,
    has_run: AtomicBool,
    is_broken: AtomicBool,
    broken: Mutex<Option<Arc<str>>>,
    wake_read: OwnedFd,
    wake_write: OwnedFd,
    /// Where the sender of a signal is noted, once signals count.
    seat: OnceLock<Seat>,
    is_noted: AtomicBool,
}

impl Duty {
    pub(crate) fn new() -> io::Result<Self> {
        let (wake_read, wake_write) = descriptor::pipe(true)?;
        Ok(Self {
            phase: AtomicU8::new(Phase::Serving as u8),
            log_epoch: AtomicU32::new(0),
            has_begun: AtomicBool::new(false),
            becomes_mold: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            broken: Mutex::new(None),
            wake_read,
            wake_write,
            seat: OnceLock::new(),
            is_noted: AtomicBool::new(false),
        })
    }

    /// From now on SIGTERM, which drains, and SIGUSR1, which reopens logs, count: those that `sys/caught` counts. The sender
    /// of a SIGTERM is noted at `seat`.
    pub(crate) fn join_signals(&self, seat: Seat) {
        if self.seat.set(seat).is_ok() {
            caught::wake_by(self.wake_write.as_fd());
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
        let Some(seat) = self.seat.get().filter(|_| caught::count(libc::SIGTERM) > 0) else { return false };
        if !self.is_noted.swap(true, Ordering::Relaxed) {
            if let Some(origin) = caught::origin(libc::SIGTERM) {
                seat.signalled(libc::SIGTERM, (origin.pid, origin.uid));
            }
        }
        true
    }

    pub(crate) fn raise(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.wake();
    }

    pub(crate) fn log_epoch(&self) -> u32 {
        let asked = self.seat.get().map_or(0, |_| caught::count(libc::SIGUSR1));
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

    /// Waits until the supervisor knows that the worker is ready; `false`: it is not wanted.
    pub(crate) fn may_begin(&self) -> bool {
        loop {
            self.acknowledge();
            if !self.phase().accepts() || self.has_begun.load(Ordering::Acquire) {
                return self.phase().accepts();
            }
            // An error, other than that a signal came, would come at once again.
            let _ = poll(&mut [PollFd::new(&self.wake_read, PollFlags::IN)], None);
        }
    }

    /// Whether the worker is to become a mold when it has finished.
    pub(crate) fn becomes_mold(&self) -> bool {
        self.becomes_mold.load(Ordering::Acquire) && self.phase() <= Phase::Retiring
    }

    /// It has finished, and the process goes on: its lifeline ends.
    pub(crate) fn has_run(&self) {
        self.has_run.store(true, Ordering::Release);
    }

    fn promote(&self) {
        self.becomes_mold.store(true, Ordering::Release);
        self.raise(Phase::Retiring);
    }

    /// Why what should have followed does not boot. Costs a load while it does.
    pub(crate) fn broken(&self) -> Option<Arc<str>> {
        if !self.is_broken.load(Ordering::Acquire) {
            return None;
        }
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_broken(&self, text: String) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
        self.is_broken.store(true, Ordering::Release);
    }

    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake_read.as_fd()
    }

    /// Both ends of the pipe.
    pub(crate) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.wake_read.as_fd(), self.wake_write.as_fd()]
    }

    /// Empties the pipe, so that `wake_fd` is readable again at the next change only.
    pub(crate) fn acknowledge(&self) {
        let mut bytes = [0; 64];
        while let Ok(1..) = rustix::io::read(&self.wake_read, &mut bytes) {}
    }

    fn wake(&self) {
        // Full means that a wake-up is on its way already.
        let _ = rustix::io::write(&self.wake_write, &[0]);
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.seat.get().is_some() {
            caught::stop_waking();
        }
    }
}

/// The name of the thread: every worker has one, and no process that the application starts.
pub const THREAD_NAME: &str = "lifeline";

/// Starts the thread. `patience`: how long a worker without a supervisor may go on finishing.
pub(crate) fn start(
    end: WorkerEnd,
    duty: Arc<Duty>,
    listeners: Arc<OpenSet>,
    patience: Duration,
) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(128 * 1024);
    // Signals are for the worker's main thread, whose system calls they should interrupt: a thread inherits the mask.
    let _blocked = signal::AllBlocked::new();
    builder.spawn(move || listen(&end, &duty, &listeners, patience))
}

/// How often the thread looks whether it is to end, once it may have to.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn listen(end: &WorkerEnd, duty: &Duty, listeners: &OpenSet, patience: Duration) {
    loop {
        // Elsewhere the process ends, and the thread with it.
        while duty.becomes_mold.load(Ordering::Acquire) && !end.wait(LOOK_EVERY) {
            if duty.has_run.load(Ordering::Acquire) {
                return;
            }
        }
        let Some(order) = end.hear() else { break };
        match order {
            Order::Begin => duty.begin(),
            Order::LameDuck => duty.raise(Phase::LameDuck),
            Order::Drain(Drain::Retire) => duty.raise(Phase::Retiring),
            Order::Drain(Drain::Stop) => duty.raise(Phase::Draining),
            Order::Promote => duty.promote(),
            Order::Quit => duty.raise(Phase::Quitting),
            Order::ReopenLogs => duty.reopen_logs(),
            Order::Broken(text) => duty.set_broken(text),
        }
    }
    if !duty.has_begun.load(Ordering::Acquire) {
        // Nothing is being served, and no process would hear that this worker is ready.
        fork::exit_now(1);
    }
    log::warn!("the supervisor is gone: finishing what has arrived");
    duty.raise(Phase::Draining);
    for listener in listeners.iter() {
        let _ = descriptor::let_go(listener.as_fd());
    }
    if finishes_within(patience, duty) {
        return;
    }
    log::error!("not finished {patience:?} after the supervisor's end: giving up");
    fork::exit_now(1);
}

/// Waits for `patience`; less where the worker has finished and its process goes on.
fn finishes_within(patience: Duration, duty: &Duty) -> bool {
    if !duty.becomes_mold.load(Ordering::Acquire) {
        std::thread::sleep(patience);
        return false;
    }
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if duty.has_run.load(Ordering::Acquire) {
            return true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_serves_only_when_it_is_told_that_it_is_known_to_be_ready() {
        let duty = Arc::new(Duty::new().unwrap());
        let waits = Arc::clone(&duty);
        let worker = std::thread::spawn(move || waits.may_begin());
        duty.reopen_logs();
        duty.begin();
        assert!(worker.join().unwrap());
        let unwanted = Duty::new().unwrap();
        unwanted.raise(Phase::Retiring);
        unwanted.begin();
        assert!(!unwanted.may_begin());
    }

    #[test]
    fn a_phase_only_rises_and_is_what_it_was_raised_to() {
        use Phase::{Draining, LameDuck, Quitting, Retiring, Serving};
        let duty = Duty::new().unwrap();
        for phase in [Serving, LameDuck, Retiring, Draining, Quitting] {
            duty.raise(phase);
            duty.raise(Serving);
            assert_eq!(duty.phase(), phase);
            assert_eq!(phase.accepts(), phase == Serving || phase == LameDuck);
        }
    }

    #[test]
    fn a_signal_drains_or_reopens_logs_and_its_sender_is_noted() {
        use crate::sys::caught::Act;
        use rustix::process::{Signal, getpid, kill_process};
        let seat = crate::link::scoreboard::Scoreboard::new(1).unwrap().take().unwrap();
        let duty = Duty::new().unwrap();
        caught::take_over(&[(libc::SIGTERM, Act::Count), (libc::SIGUSR1, Act::Count)]).unwrap();
        duty.join_signals(seat.clone());
        let epoch = duty.log_epoch();
        let arrives = |signal| {
            kill_process(getpid(), signal).unwrap();
            // Another thread may have it.
            poll(&mut [PollFd::new(&duty.wake_read, PollFlags::IN)], None).unwrap();
            duty.acknowledge();
        };
        arrives(Signal::USR1);
        assert_eq!((duty.phase(), duty.log_epoch()), (Phase::Serving, epoch + 1));
        arrives(Signal::TERM);
        assert_eq!(duty.phase(), Phase::Draining);
        assert_eq!(seat.last_sender().map(|sender| sender.pid), Some(getpid().as_raw_nonzero().get()));
        duty.raise(Phase::Quitting);
        assert_eq!(duty.phase(), Phase::Quitting);
    }
}
