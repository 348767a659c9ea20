//! A wait for many descriptors, also when poll(2) refuses their number.
//!
//! poll(2) takes no more entries than the limit of open descriptors, and another process may lower that limit at any
//! time (prlimit(2)).

use std::cell::Cell;
use std::time::Duration;

use rustix::event::{PollFd, poll};
use rustix::io::Errno;

use crate::clock;
use crate::host::descriptors;

/// The longest wait while not all descriptors are polled.
const TURN: Duration = Duration::from_millis(100);

/// The wait of the event loop, which never fails.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Whether the last wait could not poll all of its sources at once.
    in_portions: Cell<bool>,
}

impl Waiting {
    /// Waits until one of `sources` is ready, for `timeout` at most; the most urgent source is the first.
    ///
    /// It may return early, and does not report which source is ready.
    pub(super) fn wait(&self, sources: &mut [PollFd<'_>], timeout: Option<Duration>) {
        let first_try = wait_for(sources, timeout);
        // The limit was lowered, and the hard one may permit more.
        let outcome = first_try.or_else(|_| {
            descriptors::raise();
            wait_for(sources, timeout)
        });
        let Err(error) = outcome else {
            self.in_portions.set(false);
            return;
        };
        let portion = descriptors::limit().count();
        if !self.in_portions.replace(true) {
            log::warn!(
                "Cannot wait for all {} descriptors at once ({error}; the limit of open descriptors is {portion}): \
                 they are looked at in turns",
                sources.len()
            );
        }
        wait_in_portions(sources, portion, timeout.unwrap_or(TURN).min(TURN));
    }
}

/// Polls each portion, and waits for the first one.
fn wait_in_portions(sources: &mut [PollFd<'_>], portion: usize, timeout: Duration) {
    let (first, others) = sources.split_at_mut(portion.clamp(1, sources.len().max(1)).min(sources.len()));
    let mut others = others.chunks_mut(portion.max(1));
    if others.any(|portion| matches!(wait_for(portion, Some(Duration::ZERO)), Ok(1..))) {
        return;
    }
    // If poll(2) fails altogether, the loop checks all sources once in this time.
    if wait_for(first, Some(timeout)).is_err() {
        std::thread::sleep(timeout);
    }
}

/// The number of ready sources; 0 after an interruption.
fn wait_for(sources: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<usize, Errno> {
    match poll(sources, timeout.map(clock::wait_of).as_ref()) {
        Err(Errno::INTR) => Ok(0),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use rustix::event::PollFlags;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    const LONG: Duration = Duration::from_secs(60);

    /// Ends a wait for eight pipes, of which one has something, under a soft limit of `limit`.
    fn wait_under(limit: u64, ready: usize) -> Waiting {
        let pipes: Vec<_> = (0..8).map(|_| rustix::pipe::pipe().unwrap()).collect();
        rustix::io::write(&pipes[ready].1, b"x").unwrap();
        let mut sources: Vec<_> = pipes.iter().map(|(end, _)| PollFd::new(end, PollFlags::IN)).collect();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
        let waiting = Waiting::default();
        waiting.wait(&mut sources, Some(LONG));
        setrlimit(Resource::Nofile, before).unwrap();
        waiting
    }

    #[test]
    fn a_lowered_limit_is_raised_again_where_it_may_be() {
        let begun = Instant::now();
        assert!(!wait_under(3, 7).in_portions.get());
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn what_does_not_fit_into_one_call_is_looked_at_in_turns() {
        let pipes: Vec<_> = (0..8).map(|_| rustix::pipe::pipe().unwrap()).collect();
        rustix::io::write(&pipes[7].1, b"x").unwrap();
        let mut sources: Vec<_> = pipes.iter().map(|(end, _)| PollFd::new(end, PollFlags::IN)).collect();
        for portion in [0, 1, 3, 8, 100] {
            let begun = Instant::now();
            wait_in_portions(&mut sources, portion, LONG);
            assert!(begun.elapsed() < LONG, "{portion}");
        }
        let begun = Instant::now();
        wait_in_portions(&mut sources[..7], 3, TURN);
        wait_in_portions(&mut [], 0, TURN);
        assert!(begun.elapsed() >= 2 * TURN, "it never spins");
    }
}
