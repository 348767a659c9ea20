//! Readiness by a connection: a thread connects to a listener until the program itself has accepted, and
//! answered if that is asked.
//!
//! The workers of an older generation accept from the same listener, and the kernel completes a connection
//! before any process accepts it. So the process that holds the other end decides, as /proc shows it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::host::processes::{self, own_pid};
use crate::host::relatives;
use crate::sys::signal::SignalsBlocked;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// The longest wait for a part of an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The most bytes of an answer that are read.
const MOST_READ: usize = 4096;

/// The thread that probes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Probe {
    is_over: Arc<AtomicBool>,
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
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&is_over);
        let _blocked = SignalsBlocked::for_new_threads();
        std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            let address = reachable(listening);
            let mut pause = PAUSES.0;
            while !of_thread.load(Ordering::Relaxed) {
                if let Ok(true) = succeeds(address, question.as_ref(), &of_thread) {
                    let _ = rustix::io::write(&report, b"\n");
                    return;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        })?;
        Ok(Self { is_over })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// An address to connect to, for a listener on all addresses.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// One probe.
fn succeeds(address: SocketAddr, question: Option<&Question>, is_over: &AtomicBool) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    if !is_accepted_by_program(&stream, is_over)? {
        return Ok(false);
    }
    let Some(question) = question else { return Ok(true) };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(&question.request)?;
    let mut received = Vec::new();
    let mut buffer = [0; 512];
    loop {
        if question.answers.iter().any(|answer| received.starts_with(answer)) {
            return Ok(true);
        }
        let may_come = question.answers.iter().any(|answer| answer.starts_with(&received));
        if !may_come || received.len() >= MOST_READ {
            return Ok(false);
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(false),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Waits until some process has accepted the connection; whether it is one of the program's.
fn is_accepted_by_program(stream: &TcpStream, is_over: &AtomicBool) -> io::Result<bool> {
    let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
    let mut pause = PAUSES.0;
    while !is_over.load(Ordering::Relaxed) {
        match processes::socket_between(theirs, ours)? {
            // It waits in the queue, and has no owner.
            Some(0) => {}
            Some(inode) => return Ok(program_holds(inode)),
            // It was closed already.
            None => return Ok(false),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
    Ok(false)
}

fn program_holds(inode: u64) -> bool {
    let processes = relatives::below(own_pid(), &[]);
    processes.iter().any(|process| process.sockets().is_some_and(|sockets| sockets.contains(&inode)))
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
        // This process is no descendant of itself.
        assert!(!is_accepted_by_program(&client, &AtomicBool::new(false)).unwrap());
        assert!(processes::socket_between(theirs, ours).unwrap().unwrap() > 0);
    }

    #[test]
    fn a_listener_on_all_addresses_is_probed_at_the_local_one() {
        for (listening, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listening.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
