//! The waits of workers that accept no connections: for datagrams, for jobs, for time.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::accepting::wait;
use super::context::WorkerContext;
use crate::error::Result;
use crate::link::lifeline::Phase;

/// The longest wait without a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(1);

impl WorkerContext {
    /// Waits until some of `sources` are readable, and returns their indexes; `None`: the worker should finish
    /// and return.
    ///
    /// While it waits it shows signs of life. In [`Phase::Draining`] it does not wait: it returns the sources
    /// that are readable, and `None` if there is none. Several workers may be woken for one datagram: all but
    /// one of them get `WouldBlock` from the non-blocking socket.
    ///
    /// ```no_run
    /// # fn serve(context: &mcsup_core::WorkerContext) -> mcsup_core::WorkerResult {
    /// use std::os::fd::AsFd;
    ///
    /// let sockets = context.udp_sockets()?;
    /// let sources: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    /// let mut buffer = [0; 1500];
    /// while let Some(readable) = context.readable(&sources)? {
    ///     for socket in readable.iter().map(|index| &sockets[*index]) {
    ///         if let Ok((length, client)) = socket.recv_from(&mut buffer) {
    ///             socket.send_to(&buffer[..length], client)?;
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of poll(2).
    pub fn readable(&self, sources: &[BorrowedFd<'_>]) -> Result<Option<Vec<usize>>> {
        loop {
            self.beat();
            let limit = match self.phase() {
                Phase::Serving | Phase::LameDuck => BEAT_EVERY,
                Phase::Draining if self.is_noisy() => return Ok(None),
                Phase::Draining => Duration::ZERO,
                Phase::Retiring | Phase::Quitting => return Ok(None),
            };
            let all = [self.wake_fd()].into_iter().chain(sources.iter().copied());
            let mut polled: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            if !wait(&mut polled, limit)? {
                continue;
            }
            self.acknowledge();
            let is_ready = |(index, source): (usize, &PollFd<'_>)| {
                let is_ready = !source.revents().is_empty();
                is_ready.then_some(index)
            };
            let ready: Vec<usize> = polled[1..].iter().enumerate().filter_map(is_ready).collect();
            match ready.is_empty() {
                false => return Ok(Some(ready)),
                true if limit.is_zero() => return Ok(None),
                true => {}
            }
        }
    }

    /// Waits for `limit`, with signs of life; returns early if the worker is to end. Returns whether it goes on.
    ///
    /// For workers that look for work at intervals.
    ///
    /// # Errors
    /// That of poll(2).
    pub fn pause(&self, limit: Duration) -> Result<bool> {
        let begin = Instant::now();
        loop {
            self.beat();
            let left = limit.saturating_sub(begin.elapsed());
            if !self.phase().accepts() || left.is_zero() {
                return Ok(self.phase().accepts());
            }
            let mut wake = [PollFd::from_borrowed_fd(self.wake_fd(), PollFlags::IN)];
            wait(&mut wake, left.min(BEAT_EVERY))?;
            self.acknowledge();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::with_max_requests;
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_draining_worker_reads_what_has_arrived_and_a_retiring_one_leaves_it() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (silent, _other) = UnixDatagram::pair().unwrap();
        let (worker, _supervisor) = with_max_requests(None);
        let sources = [silent.as_fd(), ours.as_fd()];
        theirs.send(b"job").unwrap();
        assert_eq!(worker.readable(&sources).unwrap(), Some(vec![1]));
        worker.raise(Phase::Draining);
        assert_eq!(worker.readable(&sources).unwrap(), Some(vec![1]));
        ours.recv(&mut [0; 8]).unwrap();
        assert_eq!(worker.readable(&sources).unwrap(), None);

        let (worker, _supervisor) = with_max_requests(None);
        theirs.send(b"job").unwrap();
        worker.raise(Phase::Retiring);
        assert_eq!(worker.readable(&sources).unwrap(), None);
    }

    #[test]
    fn a_pause_ends_with_its_time_or_with_the_worker() {
        let (worker, _supervisor) = with_max_requests(None);
        let begin = Instant::now();
        assert!(worker.pause(Duration::from_millis(20)).unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(20));
        let other = worker.clone();
        let paused = std::thread::spawn(move || other.pause(Duration::MAX).unwrap());
        worker.raise(Phase::Retiring);
        assert!(!paused.join().unwrap());
    }
}
