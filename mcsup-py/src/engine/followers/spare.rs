//! The spare thread, which has no permit: it replaces a leader that is missing, and does turns that may wait for a disk.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::{Leader, Locked, Shared};
use crate::net::poller::Batch;

/// A leader that is missing for longer is replaced: soon if another permit may be free, later if only clients wait. The
/// spare looks as often while there are requests.
const PATIENCE: Duration = Duration::from_millis(1);
const PATIENCE_OF_ONE: Duration = Duration::from_millis(5);
/// The spare lets other threads run after this time. Each yield also lets every other process of the machine run.
const MOST_AT_ONCE: Duration = Duration::from_millis(2);
/// The spare goes to sleep after this number of looks without a request.
const QUIET_LOOKS: u32 = 100;

/// The thread without a permit, and the values that it watches. Each fork of the application may replace the thread.
#[derive(Default)]
pub(super) struct Spare {
    thread: Mutex<Option<Thread>>,
    /// Its thread is to end, until the application has forked.
    is_suspended: AtomicBool,
    sleeps: AtomicBool,
    /// It has been called for turns that may wait for a disk.
    files_wait: AtomicBool,
    /// When the leader left to work, in microseconds since the start; 0: a thread leads.
    pub(super) leaderless_since: AtomicU64,
    /// How often one has left.
    departures: AtomicU64,
}

impl Spare {
    pub(super) fn unpark(&self) {
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    fn is_suspended(&self) -> bool {
        self.is_suspended.load(Ordering::Acquire)
    }
}

impl<'a> Shared<'a> {
    /// No thread leads from `now` on: has the spare watch.
    pub(super) fn leave_lead(&self, now: Instant) {
        self.spare.departures.fetch_add(1, Ordering::Relaxed);
        self.spare.leaderless_since.store(self.micros(now).max(1), Ordering::SeqCst);
        if self.spare.sleeps.load(Ordering::SeqCst) && self.spare.sleeps.swap(false, Ordering::SeqCst) {
            self.spare.unpark();
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from((now - self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// The loop of the spare.
    pub(super) fn stand_by(&self) {
        let (spare, mut batch, mut quiet, mut seen) = (&self.spare, Batch::default(), 0, 0);
        *spare.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        // After a fork it continues the work of the thread before. The next fork may follow before it has been patient.
        let mut wait = if self.is_leader_missed() { Duration::ZERO } else { self.patience() };
        loop {
            if quiet < QUIET_LOOKS {
                thread::park_timeout(std::mem::replace(&mut wait, self.patience()));
            } else {
                spare.sleeps.store(true, Ordering::SeqCst);
                if spare.leaderless_since.load(Ordering::SeqCst) == 0 {
                    thread::park();
                }
                spare.sleeps.store(false, Ordering::SeqCst);
                quiet = 0;
            }
            let before = std::mem::replace(&mut seen, spare.departures.load(Ordering::Relaxed));
            let is_quiet = seen == before && spare.leaderless_since.load(Ordering::Relaxed) == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if self.is_over() || spare.is_suspended() {
                return;
            }
            if spare.files_wait.load(Ordering::SeqCst) {
                self.do_file_turns(&mut batch);
            }
            if self.is_leader_missed() {
                self.replace_leader(&mut batch);
            }
        }
    }

    /// Has the spare's thread end soon, without any lock, or permits the next one.
    pub(super) fn suspend_spare(&self, suspend: bool) {
        self.spare.is_suspended.store(suspend, Ordering::Release);
        if !suspend {
            return;
        }
        // Only a spare that leads acknowledges the waker.
        let state = self.lock();
        if state.leader == Leader::Spare {
            self.spare_waker.wake();
        }
        drop(state);
        self.spare.unpark();
    }

    /// Relieves a spare that leads: a permit is free. At once, and not only when nothing waits: under load that would be
    /// never, and until then nothing would be accepted, and every request would cost a wake-up.
    pub(super) fn relieve_spare(&self, state: &mut Locked<'a>) {
        if state.leader == Leader::Spare {
            state.leader = Leader::None;
            state.table.acceptor.permit_is_free();
            self.spare_waker.wake();
        }
    }

    fn patience(&self) -> Duration {
        if self.permits.len() == 1 { PATIENCE_OF_ONE } else { PATIENCE }
    }

    fn is_leader_missed(&self) -> bool {
        let since = self.spare.leaderless_since.load(Ordering::Relaxed);
        let patience = u64::try_from(self.patience().as_micros()).unwrap_or(u64::MAX);
        since != 0 && self.micros(Instant::now()).saturating_sub(since) > patience
    }

    /// Has a parked follower lead, or leads until a permit is free again.
    fn replace_leader(&self, batch: &mut Batch) {
        self.send_held();
        let mut state = self.lock();
        if state.leader != Leader::None || self.wake_parked(&mut state, 1) {
            return;
        }
        state.leader = Leader::Spare;
        state.table.acceptor.no_permit_is_free();
        let mut spare_first = false;
        while state.leader == Leader::Spare && !self.is_over() && !self.spare.is_suspended() {
            state.table.offer_waiting(false);
            (state, _) = self.round(state, Leader::Spare, batch, Duration::MAX);
            while state.leader == Leader::Spare && !state.queue_time.is_zero() {
                // Either queue may never end.
                let own = |state: &mut Locked<'a>| state.table.turns.next_for_spare();
                let next = if spare_first {
                    own(&mut state).or_else(|| state.table.next_in_queue())
                } else {
                    state.table.next_in_queue().or_else(|| own(&mut state))
                };
                let Some(next) = next else { break };
                spare_first = !spare_first;
                (state, _) = self.give_turn(state, next, Instant::now(), true);
                state.table.turns.spare_is_back();
            }
            if !state.table.ready.is_empty() {
                self.wake_parked(&mut state, 1);
            }
        }
        // A suspended spare leads no more, even if the next one was permitted since.
        if !self.is_over() {
            self.relieve_spare(&mut state);
        }
        self.spare_waker.acknowledge();
        // The permit that leads now may be waiting for an event that went to the spare.
        self.waker.wake();
        if self.is_over() {
            self.wake_all_parked();
        }
    }

    /// Does turns that may wait for a disk, until there are none.
    fn do_file_turns(&self, batch: &mut Batch) {
        let mut state = self.lock();
        let mut begun = Instant::now();
        while !self.is_over() && !self.spare.is_suspended() {
            let Some(next) = state.table.turns.next_for_spare() else {
                self.spare.files_wait.store(false, Ordering::SeqCst);
                return;
            };
            // The leader of a moment ago may be in the application for long, and this thread in a write for longer.
            if state.leader == Leader::None {
                self.wake_parked(&mut state, 1);
            }
            state.spare_works = true;
            if state.table.turns.has_for_permits() && state.leader == Leader::Permit {
                self.waker.wake();
            }
            state = self.have_turn(state, next, Instant::now(), true);
            state.spare_works = false;
            state.table.turns.spare_is_back();
            if state.table.has_work() && state.leader == Leader::Permit {
                // It waits for an event of the poller.
                self.waker.wake();
            }
            drop(state);
            // Where this is the permit's processor too, the kernel would let it wait for some milliseconds.
            if begun.elapsed() >= MOST_AT_ONCE {
                thread::yield_now();
                begun = Instant::now();
            }
            if self.is_leader_missed() {
                self.replace_leader(batch);
            }
            state = self.lock();
        }
    }

    /// Whether something may wait for a disk that the spare does not know of.
    pub(super) fn needs_spare_for_files(&self, state: &Locked<'a>) -> bool {
        state.table.turns.has_for_spare() && !self.spare.files_wait.load(Ordering::SeqCst)
    }

    /// Wakes the spare where something may wait for a disk.
    pub(super) fn wake_spare_for_files(&self, state: &Locked<'a>) {
        if state.table.turns.has_for_spare() && !self.spare.files_wait.swap(true, Ordering::SeqCst) {
            self.spare.unpark();
        }
    }
}
