//! Sends messages to a service manager (sd_notify(3)), and never waits for it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

/// The most messages that wait; older ones are dropped.
const MOST_WAITING: usize = 64;

/// The socket for messages to a service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// Messages that the service manager had no room for.
    waiting: VecDeque<Message>,
    /// Whether the last message could not be sent, which the log says once.
    is_failing: bool,
}

#[derive(Debug)]
struct Message {
    text: String,
    descriptor: Option<OwnedFd>,
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
        Ok(Self { socket, address, waiting: VecDeque::new(), is_failing: false })
    }

    /// Sends a message of lines `NAME=VALUE`.
    pub(crate) fn send(&mut self, text: &str) {
        self.queue(Message { text: text.to_owned(), descriptor: None });
    }

    /// Sends a message with a descriptor. A copy of the descriptor is kept until it is sent.
    pub(crate) fn send_descriptor(&mut self, text: &str, descriptor: BorrowedFd<'_>) {
        match descriptor.try_clone_to_owned() {
            Ok(copy) => self.queue(Message { text: text.to_owned(), descriptor: Some(copy) }),
            Err(error) => log::warn!("Cannot send a socket to the service manager: {error}"),
        }
    }

    /// The time until messages that wait are sent again; `None`: none waits.
    pub(crate) fn pause(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(AGAIN)
    }

    /// Sends the messages that wait, in their order.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.waiting.front() {
            match send(&self.socket, &self.address, message) {
                Err(error) if is_full(&error) => return,
                sent => {
                    self.waiting.pop_front();
                    self.note(sent);
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

    fn queue(&mut self, message: Message) {
        if self.waiting.len() == MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
        self.flush();
    }

    fn note(&mut self, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.is_failing = false,
            Err(error) if self.is_failing => log::debug!("Cannot notify the service manager: {error}"),
            Err(error) => {
                self.is_failing = true;
                log::warn!("Cannot notify the service manager: {error}");
            }
        }
    }
}

/// Whether the message can be sent later.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn send(socket: &OwnedFd, address: &SocketAddrUnix, message: &Message) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = message.descriptor.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let bytes = IoSlice::new(message.text.as_bytes());
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
    fn a_service_manager_that_is_gone_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut notifier = Notifier::new(directory.path().join("none").as_os_str()).unwrap();
        notifier.send("READY=1");
        assert!(notifier.is_failing && notifier.pause().is_none());
        assert!(Notifier::new(OsStr::new("vsock:2:9")).is_err());
    }
}
