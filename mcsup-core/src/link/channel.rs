//! The two ends of the socketpair between a supervisor and a worker or a mold.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::message::{Garbled, HEAD, MAX_PAYLOAD, Order, Report, announced, first, frame};
use crate::clock;
use crate::sys::descriptor;

/// Creates a connected pair. Both ends are close-on-exec, so that no program started by a worker holds a
/// lifeline.
pub(crate) fn pair() -> io::Result<(SupervisorEnd, WorkerEnd)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((
        SupervisorEnd { stream: ours, received: Vec::new(), unsent: Vec::new(), has_ended: false },
        WorkerEnd::of(theirs),
    ))
}

/// The supervisor's end: never blocks. No other process holds it, so its end of file means that the
/// supervisor is gone.
#[derive(Debug)]
pub(crate) struct SupervisorEnd {
    stream: UnixStream,
    received: Vec<u8>,
    /// The rest of an order that the socket had no room for. It is sent before the next order.
    unsent: Vec<u8>,
    /// No further report will arrive: the other end is closed, or it sent garbage.
    has_ended: bool,
}

/// A bound on the bytes that one call of [`SupervisorEnd::receive`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadLimit {
    /// A small piece, so that one worker cannot keep the supervisor from the others. The rest is read in
    /// later turns.
    Turn,
    /// All that a correct worker can have sent. For the last reports of a process that has ended.
    All,
}

impl ReadLimit {
    fn most(self) -> usize {
        match self {
            ReadLimit::Turn => PIECE,
            // No socket holds more.
            ReadLimit::All => 2 * MAX_PAYLOAD,
        }
    }
}

/// The size of one read.
const PIECE: usize = 16 * 1024;

/// A [`SupervisorEnd`] as one image of the supervisor passes it to the next. Includes incomplete messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRecord {
    pub(crate) fd: RawFd,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

impl SupervisorEnd {
    /// Records the end for the next image.
    pub(crate) fn describe(&self) -> ChannelRecord {
        ChannelRecord {
            fd: self.stream.as_raw_fd(),
            received: self.received.clone(),
            unsent: self.unsent.clone(),
        }
    }

    /// The recorded end, in the process that has inherited its descriptor.
    pub(crate) fn adopt(record: ChannelRecord) -> io::Result<Self> {
        let ChannelRecord { fd, received, unsent } = record;
        Ok(Self {
            stream: UnixStream::from(descriptor::take_recorded(fd)?),
            received,
            unsent,
            has_ended: false,
        })
    }

    /// Sends an order.
    ///
    /// # Errors
    /// The worker does not read (it is stopped or gone). Its deadline handles that.
    pub(crate) fn send(&mut self, order: Order) -> io::Result<()> {
        if self.unsent.len() > MAX_PAYLOAD {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsent.append(&mut frame(order));
        self.flush()
    }

    /// Sends as much as the socket takes. The rest goes out before the next order, or by the next
    /// [`receive`](Self::receive).
    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the reports that have arrived, up to a bound. Garbage ends the channel and has no other effect.
    pub(crate) fn receive(&mut self, how_much: ReadLimit) -> Vec<Report> {
        // On an error the worker is gone, and its end of file says so.
        let _ = self.flush();
        let mut reports = Vec::new();
        let (mut piece, mut count) = ([0; PIECE], 0);
        while !self.has_ended && count < how_much.most() {
            match self.stream.read(&mut piece) {
                Ok(more @ 1..) => {
                    count += more;
                    self.received.extend_from_slice(&piece[..more]);
                    self.decode(&mut reports);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => self.has_ended = true,
            }
        }
        reports
    }

    /// Takes all complete reports out of the received bytes. The rest is shorter than the longest report: a
    /// longer length field is garbage.
    fn decode(&mut self, reports: &mut Vec<Report>) {
        let mut at = 0;
        loop {
            match first(&self.received[at..]) {
                Ok(Some((report, length))) => {
                    reports.push(report);
                    at += length;
                }
                Ok(None) => return drop(self.received.drain(..at)),
                Err(Garbled) => return self.stop_receiving(),
            }
        }
    }

    /// Stops reading. Orders can still be sent. Further reports of the worker fail at its end instead of
    /// blocking, and the supervisor's next image reads no report either.
    fn stop_receiving(&mut self) {
        self.received = Vec::new();
        self.has_ended = true;
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Shuts the channel down in both directions and for all holders: no report is left to
    /// [read](Self::receive).
    pub(crate) fn end(&self) {
        // On an error it is shut down already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether every report that can arrive was [read](Self::receive).
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl AsFd for SupervisorEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The longest wait of a worker's last report for room in the socket. A stopped supervisor reads nothing, and the worker
/// is to end nevertheless.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The interval between two attempts to send that report while another thread sends.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The worker's end. One thread reads, any thread sends.
#[derive(Debug, Clone)]
pub(crate) struct WorkerEnd(Arc<WorkerStream>);

#[derive(Debug)]
struct WorkerStream {
    stream: UnixStream,
    /// Held during a write: one of a long report is not atomic.
    sending: Mutex<()>,
}

impl WorkerEnd {
    fn of(stream: UnixStream) -> Self {
        Self(Arc::new(WorkerStream { stream, sending: Mutex::new(()) }))
    }

    /// Sends a report, with its reason cut to a bounded length. The report of an error, which is the last one, waits for
    /// a bounded time.
    ///
    /// # Errors
    /// The supervisor is gone, or has not read the last report in time.
    pub(crate) fn send(&self, report: Report) -> io::Result<()> {
        let WorkerStream { stream, sending } = &*self.0;
        let is_last = matches!(report, Report::Failed(_) | Report::Error(_));
        let bytes = frame(report.cut());
        let _sending = match is_last {
            true => lock_within(LAST_WORDS, sending)?,
            false => sending.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if is_last {
            stream.set_write_timeout(Some(LAST_WORDS))?;
        }
        (&*stream).write_all(&bytes)
    }

    /// Waits for the next order; `None`: the supervisor is gone.
    pub(crate) fn receive(&self) -> Option<Order> {
        let mut head = [0; HEAD];
        (&self.0.stream).read_exact(&mut head).ok()?;
        let length = announced(&head).ok()?;
        let mut received = head.to_vec();
        received.resize(HEAD + length, 0);
        (&self.0.stream).read_exact(&mut received[HEAD..]).ok()?;
        first(&received).ok().flatten().map(|(order, _)| order)
    }

    /// Whether the supervisor is gone, after a wait of at most `patience`.
    pub(crate) fn is_orphaned_within(&self, patience: Duration) -> bool {
        self.poll(patience).intersects(PollFlags::HUP | PollFlags::ERR)
    }

    fn poll(&self, patience: Duration) -> PollFlags {
        let timeout = clock::wait_of(patience);
        let mut source = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        match poll(&mut source, Some(&timeout)) {
            Ok(1..) => source[0].revents(),
            _ => PollFlags::empty(),
        }
    }
}

/// Locks `mutex`, after a wait of at most `patience`: another thread may be in a write that blocks.
fn lock_within(patience: Duration, mutex: &Mutex<()>) -> io::Result<MutexGuard<'_, ()>> {
    let deadline = clock::now() + patience;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if clock::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }
}

impl From<OwnedFd> for WorkerEnd {
    /// Wraps the end that a mold received for a worker.
    fn from(end: OwnedFd) -> Self {
        Self::of(end.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Drain;

    #[test]
    fn an_order_that_is_longer_than_the_socket_has_room_arrives_whole_and_before_the_next() {
        let (mut supervisor, worker) = pair().unwrap();
        let long = Order::Broken("x".repeat(MAX_PAYLOAD));
        supervisor.send(long.clone()).unwrap();
        supervisor.send(Order::Drain(Drain::Stop)).unwrap();
        assert!(!supervisor.unsent.is_empty(), "the socket has room for everything");
        let received = std::thread::spawn(move || [worker.receive(), worker.receive(), worker.receive()]);
        while !supervisor.unsent.is_empty() {
            assert!(supervisor.receive(ReadLimit::Turn).is_empty());
            std::thread::yield_now();
        }
        drop(supervisor);
        assert_eq!(received.join().unwrap(), [Some(long), Some(Order::Drain(Drain::Stop)), None]);
    }

    #[test]
    fn the_reports_of_a_busy_worker_are_read_in_pieces_and_all_of_them_at_its_end() {
        let (mut supervisor, worker) = pair().unwrap();
        let ready = frame(Report::Ready);
        let said = 4 * PIECE / ready.len();
        (&worker.0.stream).write_all(&ready.repeat(said)).unwrap();
        let received = supervisor.receive(ReadLimit::Turn).len();
        assert_eq!(received, PIECE / ready.len());
        assert!(!supervisor.has_ended());
        drop(worker);
        assert_eq!(supervisor.receive(ReadLimit::All).len(), said - received);
        assert!(supervisor.has_ended());
    }

    #[test]
    fn garbage_ends_the_reading_but_not_the_sending_also_in_the_next_image() {
        let (mut supervisor, worker) = pair().unwrap();
        worker.send(Report::Ready).unwrap();
        (&worker.0.stream).write_all(b"?\0\0\0\0 and more").unwrap();
        assert_eq!(supervisor.receive(ReadLimit::Turn), [Report::Ready]);
        assert!(supervisor.has_ended() && supervisor.received.is_empty());
        assert!(worker.send(Report::Ready).is_err(), "the worker is not blocked");
        assert!(supervisor.receive(ReadLimit::All).is_empty());
        supervisor.send(Order::Quit).unwrap();
        assert_eq!(worker.receive(), Some(Order::Quit));
        let record = supervisor.describe();
        std::mem::forget(supervisor);
        let mut next = SupervisorEnd::adopt(record).unwrap();
        assert!(next.receive(ReadLimit::Turn).is_empty() && next.has_ended());
    }

    fn long_error() -> Report {
        let detail = Some("x".repeat(MAX_PAYLOAD / 2));
        Report::Error(crate::policy::LastError { summary: "no queue".to_owned(), detail })
    }

    #[test]
    fn reports_of_two_threads_do_not_mix() {
        let (mut supervisor, worker) = pair().unwrap();
        let other = worker.clone();
        let dying = std::thread::spawn(move || worker.send(long_error()));
        let leaving = std::thread::spawn(move || {
            (0..100).try_for_each(|_| other.send(Report::Leaving("tired".to_owned())))
        });
        let mut reports = Vec::new();
        while !supervisor.has_ended() {
            reports.extend(supervisor.receive(ReadLimit::Turn));
            std::thread::yield_now();
        }
        assert!(dying.join().unwrap().is_ok() && leaving.join().unwrap().is_ok());
        assert_eq!(reports.len(), 101);
        assert!(reports.contains(&long_error()));
    }

    #[test]
    fn the_last_report_of_a_worker_waits_for_a_stopped_supervisor_in_bounded_time() {
        let (supervisor, worker) = pair().unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(worker.send(long_error()).is_err()));
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
        // The same while another thread is in a write that blocks.
        let (done, ended) = std::sync::mpsc::channel();
        let (supervisor, worker) = (supervisor, pair().unwrap());
        let (other, blocked) = (worker.1.clone(), worker.1);
        std::thread::spawn(move || {
            (0..100_000).try_for_each(|_| blocked.send(Report::Enough { requests: 1 }))
        });
        std::thread::spawn(move || done.send(other.send(long_error()).is_err()));
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
        drop((supervisor, worker.0));
    }

    #[test]
    fn a_message_that_is_longer_than_any_is_garbage() {
        let (mut supervisor, worker) = pair().unwrap();
        let length = u32::try_from(MAX_PAYLOAD + 1).unwrap().to_le_bytes();
        (&worker.0.stream).write_all(&[&b"L"[..], &length].concat()).unwrap();
        assert!(supervisor.receive(ReadLimit::Turn).is_empty() && supervisor.has_ended());
    }

    #[test]
    fn orders_to_a_worker_that_does_not_read_are_bounded() {
        let (mut supervisor, _worker) = pair().unwrap();
        let long = || Order::Broken("x".repeat(MAX_PAYLOAD));
        let refused = (0..4).map(|_| supervisor.send(long())).find_map(Result::err);
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
