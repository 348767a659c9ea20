//! Readiness by a connection: a thread connects to a listener until the program itself has accepted, and
//! answered if that is asked.
//!
//! The workers of an older generation accept from the same listener, and the kernel completes a connection
//! before any process accepts it. So the process that holds the other end decides, as /proc shows it.
//!
//! Of several processes that wait, the kernel may wake the same one first each time. A probe that has failed
//! is therefore followed by one with more connections at once: while one process is busy with the first of
//! them, the others get the rest.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::host::processes::{self, own_pid};
use crate::host::relatives;
use crate::sys::signal::SignalsBlocked;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// The most connections of one probe.
const MOST_AT_ONCE: usize = 16;

/// The longest wait for a part of an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The most bytes of a wrong answer in the log.
const MOST_SHOWN: usize = 80;

/// The most bytes of an answer that are read.
const MOST_READ: usize = 4096;

/// The thread that probes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Probe {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// The reason why the last probe has failed.
    failure: Mutex<Option<String>>,
}

/// A question to the program and the possible beginnings of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) request: Vec<u8>,
    pub(super) answers: Vec<Vec<u8>>,
}

impl Probe {
    /// Starts the thread. It writes a newline to `report` when the probe succeeds.
    pub(super) fn start(
        listening: SocketAddr,
        question: Option<Question>,
        report: OwnedFd,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let _blocked = SignalsBlocked::for_new_threads();
        std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            let address = reachable(listening);
            let (mut pause, mut count) = (PAUSES.0, 1);
            while !of_thread.is_over.load(Ordering::Relaxed) {
                match succeeds(address, count, question.as_ref(), &of_thread) {
                    Ok(()) => {
                        let _ = rustix::io::write(&report, b"\n");
                        return;
                    }
                    Err(error) => of_thread.note(format!("{address}: {error}")),
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
                count = (count + 1).min(MOST_AT_ONCE);
            }
        })?;
        Ok(Self { shared })
    }

    /// The address, and the reason why the last probe has failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn note(&self, failure: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// An address to connect to, for a listener on all addresses.
fn reachable(mut listening: SocketAddr) -> SocketAddr {
    match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listening.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listening.set_ip(Ipv6Addr::LOCALHOST.into()),
        // The scope of a link-local address stays.
        _ => {}
    }
    listening
}

/// One probe with `count` connections at once.
///
/// # Errors
/// The reason why the program does not count as ready.
fn succeeds(
    address: SocketAddr,
    count: usize,
    question: Option<&Question>,
    shared: &Shared,
) -> io::Result<()> {
    let mut streams = vec![TcpStream::connect_timeout(&address, ANSWER)?];
    // A short queue may take no more of them.
    let further = (1..count).map_while(|_| TcpStream::connect_timeout(&address, PAUSES.1).ok());
    streams.extend(further);
    let stream = await_program(streams, shared)?;
    question.map_or(Ok(()), |question| ask(stream, question))
}

/// Asks the program over a connection that it has accepted.
///
/// # Errors
/// Another answer than those expected, or none.
fn ask(mut stream: TcpStream, question: &Question) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(&question.request)?;
    let mut received = Vec::new();
    let mut buffer = [0; 512];
    loop {
        if question.answers.iter().any(|answer| received.starts_with(answer)) {
            return Ok(());
        }
        let may_come = question.answers.iter().any(|answer| answer.starts_with(&received));
        if !may_come || received.len() >= MOST_READ {
            let line = received.split(|byte| byte.is_ascii_control()).next().unwrap_or_default();
            let line = String::from_utf8_lossy(&line[..line.len().min(MOST_SHOWN)]).into_owned();
            return Err(io::Error::other(format!("the program has answered {line:?}")));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::Error::other("the program has closed the connection")),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The connection that a process of the program has accepted, as soon as there is one. Those that others
/// have accepted are closed.
///
/// # Errors
/// The reason why there is none, as far as known.
fn await_program(mut streams: Vec<TcpStream>, shared: &Shared) -> io::Result<TcpStream> {
    let mut pause = PAUSES.0;
    let mut refusal = io::Error::other("no connection was made");
    while !shared.is_over.load(Ordering::Relaxed) {
        let mut waiting = Vec::new();
        for stream in streams {
            let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
            match processes::socket_between(theirs, ours)? {
                // It waits in the queue, and has no owner.
                Some(0) => {
                    shared.note(format!("{theirs}: no process has accepted the connection"));
                    waiting.push(stream);
                }
                Some(inode) => match check_holder(inode) {
                    Ok(()) => return Ok(stream),
                    Err(error) => refusal = error,
                },
                None => refusal = io::Error::other("the connection was closed before its holder was found"),
            }
        }
        if waiting.is_empty() {
            return Err(refusal);
        }
        streams = waiting;
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
    Err(io::Error::other("the probe has ended"))
}

/// Checks that a process of the program holds this socket.
fn check_holder(inode: u64) -> io::Result<()> {
    let mut hidden = None;
    for process in relatives::below(own_pid(), &[]).into_iter().filter(|process| !process.is_zombie) {
        match process.sockets() {
            Some(sockets) if sockets.contains(&inode) => return Ok(()),
            Some(_) => {}
            None => hidden = Some(process.pid),
        }
    }
    let other = "another process has accepted the connection";
    Err(io::Error::other(match hidden {
        None => other.to_owned(),
        Some(pid) => format!("{other}, or process {pid}, whose /proc/{pid}/fd is not readable"),
    }))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_connection_that_another_process_has_accepted_proves_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(processes::socket_between(theirs, ours).unwrap(), Some(0));
        let _accepted = listener.accept().unwrap();
        assert!(processes::socket_between(theirs, ours).unwrap().unwrap() > 0);
        // This process is no descendant of itself.
        let reason = await_program(vec![client], &Shared::default()).unwrap_err().to_string();
        assert!(reason.contains("another process has accepted"), "{reason}");
    }

    #[test]
    fn a_listener_on_all_addresses_is_probed_at_the_local_one() {
        for (listening, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("[fe80::1%2]:80", "[fe80::1%2]:80")]
        {
            assert_eq!(reachable(listening.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
