//! The spare thread, which has no permit: it watches over the absence of a leader, and sees to what may wait for a disk.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Leader, Shared, Spare, State};
use crate::net::poller::Batch;

/// A leader that has been away for so long is replaced: soon where another permit may be free, later where all that waits
/// are clients. The spare looks as often while there are requests.
const PATIENCE: Duration = Duration::from_millis(1);
const PATIENCE_OF_ONE: Duration = Duration::from_millis(5);
/// The spare goes to sleep after this number of looks without a request.
const QUIET_LOOKS: u32 = 100;

impl<'a> Shared<'a> {
    /// The loop of the spare.
    pub(super) fn stand_by(&self) {
        let (mut batch, mut quiet, mut seen) = (Batch::default(), 0, 0);
        self.spare.begin();
        // After a fork this one goes on with what another was doing. The next fork may follow before it has been patient.
        let mut wait = if self.is_leader_missed() { Duration::ZERO } else { self.patience() };
        loop {
            if quiet < QUIET_LOOKS {
                thread::park_timeout(std::mem::replace(&mut wait, self.patience()));
            } else {
                self.spare_sleeps.store(true, Ordering::SeqCst);
                if self.away_since.load(Ordering::SeqCst) == 0 {
                    thread::park();
                }
                self.spare_sleeps.store(false, Ordering::SeqCst);
                quiet = 0;
            }
            let requests = self.requests.load(Ordering::Relaxed);
            quiet =
                if requests == seen && self.away_since.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
            seen = requests;
            if self.is_over() || self.spare.is_away() {
                return;
            }
            if self.files_wait.load(Ordering::SeqCst) {
                self.see_to_files(&mut batch);
            }
            if self.is_leader_missed() {
                self.stand_in(&mut batch);
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.permits == 1 { PATIENCE_OF_ONE } else { PATIENCE }
    }

    fn is_leader_missed(&self) -> bool {
        let since = self.away_since.load(Ordering::Relaxed);
        let patience = u64::try_from(self.patience().as_micros()).unwrap_or(u64::MAX);
        since != 0 && self.micros(Instant::now()).saturating_sub(since) > patience
    }

    /// Has a parked follower lead, or leads until a permit is free again.
    fn stand_in(&self, batch: &mut Batch) {
        self.send_held();
        let mut state = self.lock();
        if state.leader != Leader::None {
            return;
        }
        if state.parked.count() > 0 {
            return self.wake_parked(&mut state, 1);
        }
        state.leader = Leader::Spare;
        state.table.no_permit_is_free();
        let mut file_first = false;
        while state.leader == Leader::Spare && !self.is_over() && !self.spare.is_away() {
            state.table.offer_waiting(false);
            (state, _) = self.turn(state, Leader::Spare, batch, Duration::MAX);
            while state.leader == Leader::Spare && !state.queue_time.is_zero() {
                // Either queue may never end.
                let next = if file_first {
                    state.table.next_with_file().or_else(|| state.table.next_in_queue())
                } else {
                    state.table.next_in_queue().or_else(|| state.table.next_with_file())
                };
                let Some(next) = next else { break };
                file_first = !file_first;
                (state, _) = self.give_turn(state, next, Instant::now(), None);
            }
            if !state.table.ready.is_empty() {
                self.wake_parked(&mut state, 1);
            }
        }
        // Where it was sent away it leads no more, even if it was called back since.
        if !self.is_over() {
            self.relieve_spare(&mut state);
        }
        self.spare_waker.acknowledge();
        // The permit that leads now may be waiting for news that went to us.
        self.waker.wake();
        if self.is_over() {
            self.wake_all_parked();
        }
    }

    /// The spare sees to those that may wait for a disk, until there are none.
    fn see_to_files(&self, batch: &mut Batch) {
        let mut state = self.lock();
        while !self.is_over() && !self.spare.is_away() {
            let Some(next) = state.table.next_with_file() else {
                self.files_wait.store(false, Ordering::SeqCst);
                return;
            };
            // The leader of a moment ago may be in the application for long, and this thread in a write for longer.
            if state.leader == Leader::None {
                self.wake_parked(&mut state, 1);
            }
            state.spare_works = true;
            state = self.have_turn(state, next, Instant::now(), None);
            state.spare_works = false;
            if state.table.has_work() && state.leader == Leader::Permit {
                // It waits for news of the poller.
                self.waker.wake();
            }
            drop(state);
            // Where this is the permit's processor too, the kernel would let it wait for some milliseconds.
            thread::yield_now();
            if self.is_leader_missed() {
                self.stand_in(batch);
            }
            state = self.lock();
        }
    }

    /// Whether something may wait for a disk that the spare does not know of.
    pub(super) fn is_to_call_for_files(&self, state: &State<'a>) -> bool {
        !state.table.files.is_empty() && !self.files_wait.load(Ordering::SeqCst)
    }

    /// Wakes the spare where something may wait for a disk.
    pub(super) fn call_for_files(&self, state: &State<'a>, spare: &Spare) {
        if !state.table.files.is_empty() && !self.files_wait.swap(true, Ordering::SeqCst) {
            spare.unpark();
        }
    }
}
