//! Sends messages to a service manager (sd_notify(3)), and never waits for it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
    sendmsg_addr, socket,
};

/// The time after which a message that the service manager had no room for is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// The longest wait for room at the end.
const AT_END: Duration = Duration::from_millis(500);

/// The number of waiting messages from which on a later message replaces an earlier one of its kind.
const MOST_WAITING: usize = 64;

/// The socket for messages to a service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// Messages that the service manager had no room for.
    waiting: VecDeque<String>,
    /// Whether the last message could not be sent, which the log says once.
    is_failing: bool,
    /// The same for the last message with a descriptor.
    is_failing_to_store: bool,
}

impl Notifier {
    /// A socket for messages to `address`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// The address has another form, or no socket can be made.
    pub(crate) fn new(address: &OsStr) -> io::Result<Self> {
        let address = parse(address)?;
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, address, waiting: VecDeque::new(), is_failing: false, is_failing_to_store: false })
    }

    /// Sends a message of lines `NAME=VALUE`.
    pub(crate) fn send(&mut self, text: &str) {
        if self.waiting.len() >= MOST_WAITING {
            self.drop_replaced(text);
        }
        self.waiting.push_back(text.to_owned());
        self.flush();
    }

    /// Sends a message with a descriptor, if no other waits and there is room. It never waits: a copy of the descriptor
    /// would have to wait with it.
    ///
    /// Returns whether it was sent.
    pub(crate) fn send_descriptor(&mut self, text: &str, descriptor: BorrowedFd<'_>) -> bool {
        self.flush();
        if !self.waiting.is_empty() {
            return false;
        }
        let sent = send(&self.socket, &self.address, (text, Some(descriptor)));
        let is_sent = sent.is_ok();
        if !sent.as_ref().is_err_and(is_full) {
            note(sent, &mut self.is_failing_to_store);
        }
        is_sent
    }

    /// The time until messages that wait are sent again; `None`: none waits.
    pub(crate) fn pause(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(AGAIN)
    }

    /// Sends the messages that wait, in their order.
    pub(crate) fn flush(&mut self) {
        while let Some(text) = self.waiting.front() {
            match send(&self.socket, &self.address, (text, None)) {
                Err(error) if is_full(&error) => return,
                sent => {
                    self.waiting.pop_front();
                    note(sent, &mut self.is_failing);
                }
            }
        }
    }

    /// Sends the messages that wait, for half a second at most.
    pub(crate) fn finish(&mut self) {
        let end = Instant::now() + AT_END;
        while !self.waiting.is_empty() && Instant::now() < end {
            std::thread::sleep(AT_END / 50);
            self.flush();
        }
    }

    /// Drops the oldest message whose meaning a later one, or `new`, replaces.
    ///
    /// The others that wait are few: one of each kind, and the removals of stored sockets.
    fn drop_replaced(&mut self, new: &str) {
        let is_replaced = |(index, text): (usize, &String)| {
            let mut later = self.waiting.range(index + 1..).map(String::as_str).chain([new]);
            !kind(text).starts_with("FDSTORE") && later.any(|later| kind(later) == kind(text))
        };
        if let Some(index) = self.waiting.iter().enumerate().position(is_replaced) {
            self.waiting.remove(index);
        }
    }
}

/// The name of a message's first line.
fn kind(text: &str) -> &str {
    text.split('=').next().unwrap_or_default()
}

/// Logs the first failure of several.
fn note(sent: io::Result<()>, is_failing: &mut bool) {
    match sent {
        Ok(()) => *is_failing = false,
        Err(error) if *is_failing => log::debug!("Cannot notify the service manager: {error}"),
        Err(error) => {
            *is_failing = true;
            log::warn!("Cannot notify the service manager: {error}");
        }
    }
}

/// Whether the message can be sent later.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn send(
    socket: &OwnedFd,
    address: &SocketAddrUnix,
    (text, descriptor): (&str, Option<BorrowedFd<'_>>),
) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let bytes = IoSlice::new(text.as_bytes());
    loop {
        match sendmsg_addr(socket, address, &[bytes], &mut control, SendFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

fn parse(address: &OsStr) -> io::Result<SocketAddrUnix> {
    match address.as_bytes() {
        [b'/', ..] => Ok(SocketAddrUnix::new(address.as_bytes())?),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => Ok(SocketAddrUnix::new_abstract_name(name)?),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn received(from: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = from.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn messages_arrive_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(path.as_os_str()).unwrap();
        notifier.send("READY=1\nSTATUS=a");
        assert_eq!(received(&manager), "READY=1\nSTATUS=a");
        assert_eq!(notifier.pause(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn messages_arrive_at_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;
        let name = format!("mcsup-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(OsStr::new(&format!("@{name}"))).unwrap().send("READY=1");
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_message_that_finds_no_room_waits_and_keeps_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(path.as_os_str()).unwrap();
        let mut sent = 0;
        while notifier.pause().is_none() {
            notifier.send(&format!("STATUS={sent}"));
            sent += 1;
        }
        notifier.send("STATUS=last");
        let mut seen = Vec::new();
        for _ in 0..=sent {
            seen.push(received(&manager));
            notifier.flush();
        }
        let expected: Vec<String> =
            (0..sent).map(|number| format!("STATUS={number}")).chain(["STATUS=last".to_owned()]).collect();
        assert_eq!(seen, expected);
        assert_eq!(notifier.pause(), None);
    }

    #[test]
    fn a_message_about_the_state_outlives_any_number_of_later_ones_without_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(path.as_os_str()).unwrap();
        while notifier.pause().is_none() {
            notifier.send("WATCHDOG=1");
        }
        notifier.send("READY=1");
        for number in 0..100 {
            notifier.send(&format!("FDSTOREREMOVE=1\nFDNAME={number}"));
        }
        for number in 0..200 {
            notifier.send(&format!("STATUS={number}"));
            notifier.send("WATCHDOG=1");
        }
        assert!(notifier.waiting.len() < 2 * MOST_WAITING, "{}", notifier.waiting.len());
        manager.set_nonblocking(true).unwrap();
        let mut seen = Vec::new();
        while notifier.pause().is_some() {
            notifier.flush();
            let mut buffer = [0; 256];
            while let Ok(length) = manager.recv(&mut buffer) {
                seen.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
        for expected in ["READY=1", "FDSTOREREMOVE=1\nFDNAME=0", "FDSTOREREMOVE=1\nFDNAME=99", "STATUS=199"] {
            assert!(seen.iter().any(|text| text == expected), "{expected} is not in {seen:?}");
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut notifier = Notifier::new(directory.path().join("none").as_os_str()).unwrap();
        notifier.send("READY=1");
        assert!(notifier.is_failing && notifier.pause().is_none());
        assert!(Notifier::new(OsStr::new("vsock:2:9")).is_err());
    }
}
