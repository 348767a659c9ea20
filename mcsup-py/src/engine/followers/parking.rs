//! Followers without work wait here.
//!
//! The first one runs the host's signal handlers. It waits in poll(2), which a signal ends; a wait on a condition of the
//! standard library would continue. The other followers wait on a condition.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, PoisonError};
use std::time::{Duration, Instant};

use super::super::waker::{Waited, Waker};
use super::{Follower, Guard, Leader, Locked, Shared};

/// The longest time until the first follower looks for a signal that arrived between two waits, and so ended none.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Where followers park, and whether the first one is to look for signals.
pub(super) struct Parking {
    /// Followers other than the first park here.
    condition: Condvar,
    /// Wakes the first follower.
    first_waker: Waker,
    /// A signal handler has left work to the first follower's thread.
    interrupted: AtomicBool,
    /// A signal handler may have left work to the first follower's thread.
    must_look: AtomicBool,
}

impl Parking {
    pub(super) fn new() -> io::Result<Self> {
        let (interrupted, must_look) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { condition: Condvar::new(), first_waker: Waker::new()?, interrupted, must_look })
    }
}

/// Which followers are parked, and which of them are to go on.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// How many of the others are parked and were not woken.
    others: usize,
    /// How many were woken and have not gone on yet.
    woken: usize,
    /// Whether the first is parked and was not woken.
    first: bool,
}

impl<'a> Shared<'a> {
    /// Waits until this follower is woken. The first one also returns at a signal, and once after its last work.
    pub(super) fn park<'g>(&'g self, mut state: Guard<'g, 'a>, follower: &Follower<'_>) -> Guard<'g, 'a> {
        if follower.permit != 0 {
            state.parked.others += 1;
            while state.parked.woken == 0 && !self.is_over() {
                state = self.parking.condition.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.parked.woken = state.parked.woken.saturating_sub(1);
            return state;
        }
        state.parked.first = true;
        drop(state);
        match self.parking.first_waker.wait(follower.worked.then_some(LOOK_AFTER)) {
            Waited::Woken => self.parking.first_waker.acknowledge(),
            Waited::Late => self.look_for_signals(),
            Waited::Interrupted => self.parking.interrupted.store(true, Ordering::Release),
        }
        let mut state = self.lock();
        state.parked.first = false;
        state
    }

    /// Wakes up to `count` parked followers, the first one last, since it costs more; `false`: none is parked.
    pub(super) fn wake_parked(&self, state: &mut Locked<'a>, count: usize) -> bool {
        let others = count.min(state.parked.others);
        for _ in 0..others {
            state.parked.others -= 1;
            state.parked.woken += 1;
            self.parking.condition.notify_one();
        }
        let wakes_first = count > others && std::mem::take(&mut state.parked.first);
        if wakes_first {
            self.parking.first_waker.wake();
        }
        others > 0 || wakes_first
    }

    /// Has the first follower look for signals.
    pub(super) fn look_for_signals(&self) {
        self.parking.must_look.store(true, Ordering::Release);
    }

    /// Wakes all, at the end.
    pub(super) fn wake_all_parked(&self) {
        self.parking.condition.notify_all();
        self.parking.first_waker.wake();
    }

    /// A signal has ended a wait of this thread. Its handler may have left work to the first follower's thread.
    pub(super) fn note_signal(&self, state: &mut Locked<'a>) {
        self.parking.interrupted.store(true, Ordering::Release);
        if std::mem::take(&mut state.parked.first) {
            self.parking.first_waker.wake();
        }
    }

    /// A follower has been at work, and not in the application: if it is the first, it looks for a signal now and then.
    pub(super) fn note_work(&self, follower: &mut Follower<'_>, now: Instant) {
        if follower.permit != 0 {
            return;
        }
        follower.worked = true;
        if now.saturating_duration_since(*follower.looked_for_signals.get_or_insert(now)) >= LOOK_AFTER {
            self.look_for_signals();
        }
    }

    /// `Some`: the first follower has to [run signal handlers](Self::run_signal_handlers). `true`: it has to look again soon,
    /// since a further signal may arrive meanwhile.
    pub(super) fn signals_are_due(&self) -> Option<bool> {
        if !(self.parking.interrupted.load(Ordering::Acquire)
            || self.parking.must_look.load(Ordering::Acquire))
        {
            return None;
        }
        let interrupted = self.parking.interrupted.swap(false, Ordering::AcqRel);
        let must_look = self.parking.must_look.swap(false, Ordering::AcqRel);
        (interrupted || must_look).then_some(interrupted)
    }

    /// In the first follower, without the lock: the host does the work that a signal handler has left. As in the
    /// application it may take long, and the spare watches over the leader's absence.
    pub(super) fn run_signal_handlers<'g>(&'g self, mut state: Guard<'g, 'a>) -> Guard<'g, 'a> {
        let led = state.leader == Leader::Permit;
        self.leave_queue(&mut state, led);
        let leads = state.leader == Leader::None;
        drop(state);
        if leads {
            self.leave_lead(Instant::now());
        }
        self.host.interrupted();
        self.lock()
    }
}
