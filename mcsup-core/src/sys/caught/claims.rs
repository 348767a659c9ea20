//! The signals that pools of this process have claimed: each pool counts them by itself, and the last one gives them back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Act, Entry, OWNER, Origin, SIGNALS, WAKES, entry, ours, stop_waking, wake_by};
use crate::sys::descriptor;
use crate::sys::signal::{Disposition, dispose, disposition};

/// A signal that at least one [`Caught`] has.
#[derive(Debug)]
struct Claim {
    /// The number of [`Caught`]s that have it.
    users: usize,
    /// The disposition before the first.
    before: Disposition,
    /// The disposition that was set.
    set: Disposition,
}

static CLAIMS: Mutex<BTreeMap<i32, Claim>> = Mutex::new(BTreeMap::new());

fn claims() -> MutexGuard<'static, BTreeMap<i32, Claim>> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts signals of this process from [`Caught::new`] until it is dropped.
///
/// Several count independently. The last drop restores the dispositions from before the first.
#[derive(Debug)]
pub(crate) struct Caught {
    claimed: Vec<i32>,
    /// The count of each signal at the last [`take`](Self::take).
    taken: [Cell<u32>; SIGNALS],
    wake: OwnedFd,
    write: OwnedFd,
}

impl Caught {
    /// Starts to count each of `numbers`.
    ///
    /// # Errors
    /// No descriptor is left; `AlreadyExists`: this process has too many others.
    pub(crate) fn new(numbers: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let (wake, write) = descriptor::pipe(true)?;
        wake_by(write.as_fd())?;
        let mut this =
            Self { claimed: Vec::new(), taken: std::array::from_fn(|_| Cell::new(0)), wake, write };
        OWNER.store(i32::try_from(std::process::id()).unwrap_or_default(), Ordering::Release);
        for number in numbers {
            if let Some(entry) = entry(number) {
                this.claim(number, &ours(number), Some(entry))?;
            }
        }
        Ok(this)
    }

    /// Ignores `number` until the drop.
    pub(crate) fn ignore(&mut self, number: i32) -> io::Result<()> {
        self.claim(number, &Disposition::ignored(), None)
    }

    fn claim(&mut self, number: i32, wanted: &Disposition, counts: Option<&Entry>) -> io::Result<()> {
        let mut claims = claims();
        match (claims.get_mut(&number), counts) {
            (Some(claim), Some(entry)) if entry.act.load(Ordering::Acquire) == Act::Count as u8 => {
                claim.users += 1;
                // It counts the arrivals from now on.
                let taken = usize::try_from(number).ok().and_then(|number| self.taken.get(number));
                taken.into_iter().for_each(|taken| taken.set(entry.count.load(Ordering::Acquire)));
            }
            (Some(claim), counts) => {
                if let Some(entry) = counts {
                    entry.set(Act::Count);
                    dispose(number, wanted)?;
                    claim.set = *wanted;
                }
                claim.users += 1;
            }
            (None, counts) => {
                // An arrival counts as soon as the handler is installed.
                counts.iter().for_each(|entry| entry.set(Act::Count));
                let before = dispose(number, wanted)?;
                claims.insert(number, Claim { users: 1, before, set: *wanted });
            }
        }
        self.claimed.push(number);
        Ok(())
    }

    /// Lets ended children wait for wait(2) until the drop, where an ignored SIGCHLD discards their statuses.
    pub(crate) fn keep_children(&mut self) -> io::Result<()> {
        match disposition(libc::SIGCHLD)?.keeping_children() {
            Some(wanted) => self.claim(libc::SIGCHLD, &wanted, None),
            None => Ok(()),
        }
    }

    /// Takes the arrivals of `number` since the last call; returns the latest sender.
    pub(crate) fn take(&self, number: i32) -> Option<Option<Origin>> {
        let entry = entry(number).filter(|_| self.claimed.contains(&number))?;
        let count = entry.count.load(Ordering::Acquire);
        let taken = &self.taken[usize::try_from(number).ok()?];
        (taken.replace(count) != count).then(|| entry.origin())
    }

    /// Sends `number` to this process again. A blocked signal stays pending, also across an exec.
    pub(crate) fn give_back(&self, number: i32) {
        // SAFETY: kill(2) has no preconditions.
        unsafe { libc::kill(libc::getpid(), number) };
    }

    /// Makes the descriptor unreadable until the next signal. Called before the counts are taken.
    pub(crate) fn acknowledge(&self) {
        let mut bytes = [0; 256];
        while let Ok(1..) = rustix::io::read(&self.wake, &mut bytes) {}
    }

    /// The descriptors that forked processes must not have.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.wake.as_fd(), self.write.as_fd()]
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let mut claims = claims();
        for number in self.claimed.drain(..).rev() {
            let Some(claim) = claims.get_mut(&number) else { continue };
            claim.users -= 1;
            if claim.users == 0 {
                // One that the program has set since then stays.
                if disposition(number).is_ok_and(|now| now.is_like(&claim.set)) {
                    // It was valid before.
                    let _ = dispose(number, &claim.before);
                }
                entry(number).iter().for_each(|entry| entry.set(Act::Nothing));
                claims.remove(&number);
            }
        }
        let is_last = claims.is_empty();
        drop(claims);
        stop_waking(self.write.as_fd());
        if is_last {
            OWNER.store(0, Ordering::Release);
        }
    }
}

/// Restores the dispositions from before all [`Caught`]s, in a new process with one thread.
///
/// The values stay, also those of other owners, and count nothing any more.
pub(crate) fn leave_in_child() {
    let mut claims = claims();
    for (number, claim) in std::mem::take(&mut *claims) {
        let _ = dispose(number, &claim.before);
        entry(number).iter().for_each(|entry| entry.set(Act::Nothing));
    }
    WAKES.iter().for_each(|wake| wake.store(-1, Ordering::SeqCst));
    OWNER.store(0, Ordering::Release);
}
