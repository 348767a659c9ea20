//! Reports of a program at `NOTIFY_SOCKET` (sd_notify(3)), believed by their sender only. Linux only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::family::Belongs;

/// A report from a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`: it ends on its own.
    Stopping,
    /// `WATCHDOG=1`: a sign of life.
    Alive,
    /// `STATUS=TEXT`.
    Status(String),
    /// `MAINPID=PID`: this process is the program from now on.
    Main(i32),
}

/// The reports in one datagram. Other assignments have no meaning here.
pub(super) fn parse(datagram: &[u8]) -> Vec<Notice> {
    let text = String::from_utf8_lossy(datagram);
    let notice = |line: &str| {
        let (name, value) = line.split_once('=')?;
        match (name, value) {
            ("READY", "1") => Some(Notice::Ready),
            ("STOPPING", "1") => Some(Notice::Stopping),
            ("WATCHDOG", "1") => Some(Notice::Alive),
            ("STATUS", text) => Some(Notice::Status(text.to_owned())),
            ("MAINPID", pid) => pid.parse().ok().filter(|pid| *pid > 1).map(Notice::Main),
            _ => None,
        }
    };
    text.lines().filter_map(notice).collect()
}

/// The process that sent a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) pid: i32,
    pub(super) uid: u32,
}

impl Sender {
    /// Whether it may be of a program that runs as the user `uid`. The processes of root's program may have become
    /// those of other users.
    pub(super) fn is_of(self, uid: u32) -> bool {
        uid == 0 || self.uid == uid
    }
}

/// Why a report is not believed; `None`: it is.
///
/// The sender must belong to the program, as `find` decides, and run as its user.
pub(super) fn doubt(sender: Option<Sender>, uid: u32, find: impl FnOnce(i32) -> Belongs) -> Option<String> {
    let Some(sender) = sender else { return Some("the kernel does not name its sender".to_owned()) };
    let pid = sender.pid;
    match if pid > 0 { find(pid) } else { Belongs::No } {
        Belongs::Yes if sender.is_of(uid) => None,
        Belongs::Yes => Some(format!("process {pid} runs as user {}, the program as user {uid}", sender.uid)),
        Belongs::No => Some(format!("process {pid} is none of this worker's program")),
        Belongs::HasEnded => Some(format!("process {pid} has ended before its report was read")),
    }
}

/// The socket of a program's reports.
#[derive(Debug)]
pub(super) struct NoticeSocket {
    socket: OwnedFd,
    name: String,
}

impl NoticeSocket {
    /// A socket with a name of its own; `None`: this system does not report senders.
    #[cfg(target_os = "linux")]
    pub(super) fn open() -> io::Result<Option<Self>> {
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // Before any datagram can arrive.
        sockopt::set_socket_passcred(&socket, true)?;
        // The kernel chooses an abstract name that is free.
        bind(&socket, &SocketAddrUnix::new_unnamed())?;
        let address = SocketAddrUnix::try_from(getsockname(&socket)?)?;
        let name = address.abstract_name().and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or_else(|| io::Error::other("the kernel has given the socket no name"))?;
        Ok(Some(Self { name: format!("@{name}"), socket }))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open() -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next report and its sender; `None`: none is queued.
    pub(super) fn receive(&self) -> Option<(Vec<Notice>, Option<Sender>)> {
        // As systemd: a longer datagram is cut.
        let mut buffer = [0; 4096];
        loop {
            match received(self.as_fd(), &mut buffer) {
                Ok((length, sender)) => return Some((parse(&buffer[..length]), sender)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// Receives a datagram: its length and its sender.
#[cfg(target_os = "linux")]
fn received(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Sender>)> {
    let (length, sender) = crate::sys::datagram_sender::receive(socket, buffer)?;
    Ok((length, sender.map(|sender| Sender { pid: sender.pid, uid: sender.uid })))
}

#[cfg(not(target_os = "linux"))]
fn received(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Sender>)> {
    let (_, length) = rustix::net::recv(socket, buffer, rustix::net::RecvFlags::empty())?;
    Ok((length, None))
}

impl AsFd for NoticeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_line_by_line() {
        let datagram =
            b"STATUS=warm = yes\nREADY=1\nMAINPID=77\nX_OTHER=1\nREADY=0\nMAINPID=x\nMAINPID=1\nWATCHDOG=1";
        let status = Notice::Status("warm = yes".to_owned());
        assert_eq!(parse(datagram), [status, Notice::Ready, Notice::Main(77), Notice::Alive]);
        assert_eq!((parse(b""), parse(b"\xff=\xff\n=\n")), (vec![], vec![]));
        assert_eq!(parse(b"STOPPING=1\n"), [Notice::Stopping]);
    }

    #[test]
    fn a_report_of_another_process_or_another_user_is_not_believed() {
        let sender = |pid, uid| Some(Sender { pid, uid });
        use Belongs::{HasEnded, No, Yes};
        for (sender, belongs, uid, reason) in [
            (sender(7, 1000), Yes, 1000, None),
            (sender(7, 33), Yes, 0, None),
            (sender(7, 1000), No, 1000, Some("none of this worker's program")),
            (sender(7, 1000), HasEnded, 1000, Some("has ended")),
            (sender(7, 0), No, 1000, Some("none of this worker's program")),
            (sender(7, 33), Yes, 1000, Some("runs as user 33")),
            (sender(7, 0), Yes, 1000, Some("runs as user 0")),
            (sender(0, 1000), Yes, 1000, Some("none of this worker's program")),
            (None, Yes, 1000, Some("does not name")),
        ] {
            let doubt = doubt(sender, uid, |_| belongs);
            let is_right = match (&doubt, reason) {
                (Some(doubt), Some(reason)) => doubt.contains(reason),
                (doubt, reason) => doubt.is_none() && reason.is_none(),
            };
            assert!(is_right, "{sender:?} as {uid}: {doubt:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_report_arrives_at_the_socket_with_the_kernels_word_about_its_sender() {
        use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, sendto, socket};
        let ours = NoticeSocket::open().unwrap().unwrap();
        let name = ours.name().strip_prefix('@').unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let theirs = socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        sendto(&theirs, b"READY=1", SendFlags::empty(), &address).unwrap();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(ours.receive(), Some((vec![Notice::Ready], Some(Sender { pid, uid }))));
        assert_eq!(ours.receive(), None);
    }
}
