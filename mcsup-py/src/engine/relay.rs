//! Moves bytes between a connection and a socket of the application, which cannot have the connection's own socket where
//! the bytes are encrypted. A thread for each such conversation, since the application may wait at its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mcsup_core::SignalsBlocked;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::net::buffer::{Incoming, Outgoing};
use crate::net::stream::{Progress, Stream};

const STACK: usize = 256 << 10;

/// How much is taken at once of what the application sends.
const PIECE: usize = 64 * 1024;

/// How often a wait for the client is interrupted, to see whether the conversation is over.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Two sockets that are connected: one for the application, and the other one for a relay.
#[derive(Debug)]
pub(super) struct Pair {
    theirs: OwnedFd,
    ours: OwnedFd,
}

/// The thread, and what it is ended by.
#[derive(Debug)]
pub(super) struct Relay {
    theirs: OwnedFd,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pair {
    pub(super) fn new() -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok(Self { theirs: theirs.into(), ours: ours.into() })
    }

    /// A further descriptor of the application's end.
    pub(super) fn for_application(&self) -> io::Result<OwnedFd> {
        self.theirs.try_clone()
    }

    /// Starts the thread. It ends by itself where the client or the application does. `limit`: how long the last bytes of the
    /// application may take to leave when the conversation is over.
    pub(super) fn start(self, stream: Arc<Stream>, limit: Duration) -> io::Result<Relay> {
        let Self { theirs, ours } = self;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut flow = Flow::new(stream, ours, Arc::clone(&is_over), limit);
        let _blocked = SignalsBlocked::for_new_threads();
        let builder = thread::Builder::new().name("relay".to_owned()).stack_size(STACK);
        let thread = builder.spawn(move || flow.run())?;
        Ok(Relay { theirs, is_over, thread })
    }
}

impl Relay {
    /// The application says no more: waits until all that it said has been sent, its client is gone, or the limit is reached.
    pub(super) fn finish(self) {
        self.is_over.store(true, Ordering::Release);
        // The relay reads to this end.
        let _ = rustix::net::shutdown(&self.theirs, Shutdown::Write);
        // It does not panic.
        let _ = self.thread.join();
    }
}

/// Both directions.
struct Flow {
    stream: Arc<Stream>,
    ours: OwnedFd,
    is_over: Arc<AtomicBool>,
    limit: Duration,
    /// From the client.
    incoming: Incoming,
    /// For the client.
    outgoing: Outgoing,
    client_ended: bool,
    application_ended: bool,
    /// When the conversation was seen to be over.
    over_since: Option<Instant>,
}

impl Flow {
    fn new(stream: Arc<Stream>, ours: OwnedFd, is_over: Arc<AtomicBool>, limit: Duration) -> Self {
        let (incoming, outgoing) = (Incoming::default(), Outgoing::default());
        let (client_ended, application_ended, over_since) = (false, false, None);
        Self { stream, ours, is_over, limit, incoming, outgoing, client_ended, application_ended, over_since }
    }

    fn run(&mut self) {
        loop {
            let has_moved = self.move_a_piece();
            if self.application_ended && self.outgoing.is_empty() {
                self.stream.end();
                return;
            }
            // From the end on, and not from the last byte: a client that takes one now and then would stay for hours.
            let is_late = self.over_since.is_some_and(|since| since.elapsed() > self.limit);
            if is_late || !has_moved && self.wait().is_err() {
                return self.stream.abort();
            }
        }
    }

    /// Moves a piece in each direction, since either one may never end. Whether something was moved.
    fn move_a_piece(&mut self) -> bool {
        if self.over_since.is_none() && self.is_over.load(Ordering::Acquire) {
            self.over_since = Some(Instant::now());
        }
        let from_client = self.move_from_client();
        self.move_to_client() || from_client
    }

    /// Whether something was moved to the application.
    fn move_from_client(&mut self) -> bool {
        if self.over_since.is_some() {
            // Nothing reads it.
            return false;
        }
        let mut may_have_more = false;
        if self.incoming.is_empty() && !self.client_ended {
            let progress = self.stream.receive(&mut self.incoming);
            may_have_more = matches!(progress, Progress::More(_));
            self.client_ended = progress == Progress::Ended;
            if self.client_ended {
                let _ = rustix::net::shutdown(&self.ours, Shutdown::Write);
            }
        }
        if self.incoming.is_empty() {
            return may_have_more;
        }
        match rustix::net::send(&self.ours, self.incoming.bytes(), flags()) {
            Ok(count) => self.incoming.consume(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            // It has closed its end, and takes nothing.
            Err(_) => self.incoming.clear(),
        }
        true
    }

    /// Whether something was moved to the client.
    fn move_to_client(&mut self) -> bool {
        if self.outgoing.is_empty() && !self.application_ended {
            let piece = self.outgoing.append();
            piece.reserve(PIECE);
            match rustix::net::recv(&self.ours, rustix::buffer::spare_capacity(piece), RecvFlags::DONTWAIT) {
                Ok((_, 1..)) | Err(Errno::AGAIN | Errno::INTR) => {}
                Ok((_, 0)) | Err(_) => self.application_ended = true,
            }
        }
        if self.outgoing.is_empty() {
            return false;
        }
        match self.stream.send(&mut self.outgoing) {
            Progress::Blocked(0) => return false,
            Progress::Blocked(_) | Progress::More(_) => {}
            Progress::Ended => {
                // The application learns it by its next send.
                (self.application_ended, self.outgoing) = (true, Outgoing::default());
                let _ = rustix::net::shutdown(&self.ours, Shutdown::Both);
            }
        }
        true
    }

    /// Waits until something may be moved. A descriptor that nothing is expected of would end each wait at once if its other
    /// side is gone.
    fn wait(&self) -> rustix::io::Result<()> {
        let interest = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        let listens = self.over_since.is_none();
        let (has_incoming, has_outgoing) = (listens && !self.incoming.is_empty(), !self.outgoing.is_empty());
        let of_client = interest(listens && !has_incoming && !self.client_ended, has_outgoing);
        let of_application = interest(!has_outgoing && !self.application_ended, has_incoming);
        let all = [(self.stream.as_fd(), of_client), (self.ours.as_fd(), of_application)];
        let wanted = all.iter().filter(|(_, flags)| !flags.is_empty());
        let mut sources: Vec<_> = wanted.map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut sources, has_outgoing.then_some(&LOOK_AGAIN)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn flags() -> SendFlags {
    SendFlags::DONTWAIT | SendFlags::NOSIGNAL
}

/// The signal is blocked in this thread.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn flags() -> SendFlags {
    SendFlags::DONTWAIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const PATIENCE: Duration = Duration::from_secs(5);
    /// A buffer of several pieces.
    const LARGE: usize = 128 * 1024;

    /// The client, the application's end, and what is between them.
    fn started(limit: Duration) -> (UnixStream, UnixStream, Relay) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let pair = Pair::new().unwrap();
        let application = UnixStream::from(pair.for_application().unwrap());
        let relay = pair.start(Arc::new(Stream::from(OwnedFd::from(ours))), limit).unwrap();
        for end in [&client, &application] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, application, relay)
    }

    /// Like [`started`], but without a thread.
    fn at_rest() -> (UnixStream, UnixStream, Flow) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&client).set_send_buffer_size(LARGE).unwrap();
        socket2::SockRef::from(&ours).set_recv_buffer_size(LARGE).unwrap();
        let pair = Pair::new().unwrap();
        let stream = Arc::new(Stream::from(OwnedFd::from(ours)));
        let flow = Flow::new(stream, pair.ours, Arc::default(), PATIENCE);
        (client, pair.theirs.into(), flow)
    }

    #[test]
    fn a_client_that_sends_without_end_does_not_keep_the_words_of_the_application() {
        for reads in [true, false] {
            let (mut client, mut application, mut flow) = at_rest();
            client.set_nonblocking(true).unwrap();
            while client.write(&[b'x'; 8192]).is_ok() {}
            application.write_all(b"word").unwrap();
            if !reads {
                // Then all that the client sends is discarded.
                application.shutdown(std::net::Shutdown::Read).unwrap();
            }
            assert!(flow.move_a_piece());
            assert_eq!(client.read(&mut [0; 9]).unwrap(), 4);
            assert!(flow.stream.has_unread());
        }
    }

    #[test]
    fn nothing_more_is_taken_from_the_client_when_the_conversation_is_over() {
        let (mut client, _application, mut flow) = at_rest();
        client.write_all(b"too late").unwrap();
        flow.is_over.store(true, Ordering::Release);
        assert!(!flow.move_a_piece() && flow.stream.has_unread());
    }

    #[test]
    fn bytes_go_both_ways_also_more_than_a_socket_holds() {
        let (mut client, mut application, relay) = started(PATIENCE);
        let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let (sent, mut echoed) = (large.clone(), application.try_clone().unwrap());
        let writer = thread::spawn({
            let mut client = client.try_clone().unwrap();
            move || client.write_all(&sent).unwrap()
        });
        let echo = thread::spawn(move || {
            let mut piece = [0; 10_000];
            for _ in 0..300 {
                application.read_exact(&mut piece).unwrap();
                echoed.write_all(&piece).unwrap();
            }
        });
        let mut received = vec![0; large.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == large);
        writer.join().unwrap();
        echo.join().unwrap();
        relay.finish();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_was_said_before_the_end_is_sent_and_then_the_end() {
        let (mut client, mut application, relay) = started(PATIENCE);
        application.write_all(b"last words").unwrap();
        relay.finish();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
    }

    #[test]
    fn the_end_of_the_client_is_one_for_the_application_which_may_still_speak() {
        let (mut client, mut application, relay) = started(PATIENCE);
        client.write_all(b"bye").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        application.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        application.write_all(b"bye too").unwrap();
        relay.finish();
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye too");
    }

    #[test]
    fn a_client_that_is_gone_ends_it() {
        let (client, mut application, relay) = started(PATIENCE);
        drop(client);
        assert_eq!(application.read(&mut [0]).unwrap(), 0);
        let began = Instant::now();
        while application.write_all(b"to nowhere").is_ok() {
            assert!(began.elapsed() < PATIENCE);
            thread::yield_now();
        }
        relay.finish();
    }

    #[test]
    fn a_client_that_takes_nothing_does_not_keep_it() {
        let (client, application, relay) = started(Duration::from_millis(100));
        application.set_nonblocking(true).unwrap();
        let began = Instant::now();
        // Until all buffers are full.
        while (&application).write(&[b'x'; 65536]).is_ok() || began.elapsed() < Duration::from_millis(200) {}
        relay.finish();
        assert!(began.elapsed() < PATIENCE);
        drop(client);
    }

    #[test]
    fn a_client_that_takes_a_little_now_and_then_does_not_keep_it_either() {
        let (ours, mut client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        // Most of it stays on this side.
        socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        let pair = Pair::new().unwrap();
        let mut application = UnixStream::from(pair.for_application().unwrap());
        let stream = Arc::new(Stream::from(OwnedFd::from(ours)));
        let relay = pair.start(stream, Duration::from_secs(1)).unwrap();
        application.set_nonblocking(true).unwrap();
        let mut said = 0;
        while said < 60_000 {
            match application.write(&[b'x'; 10_000]) {
                Ok(count) => said += count,
                Err(_) => break,
            }
        }
        let is_kept = Arc::new(AtomicBool::new(true));
        let reader = thread::spawn({
            let is_kept = Arc::clone(&is_kept);
            move || {
                let (mut piece, mut all) = ([0; 500], 0);
                while let Ok(count @ 1..) = client.read(&mut piece) {
                    all += count;
                    if is_kept.load(Ordering::SeqCst) {
                        // The whole would take some seconds.
                        thread::sleep(Duration::from_millis(50));
                    }
                }
                all
            }
        });
        relay.finish();
        is_kept.store(false, Ordering::SeqCst);
        let received = reader.join().unwrap();
        assert!(received < said, "all of it was waited for");
    }
}
