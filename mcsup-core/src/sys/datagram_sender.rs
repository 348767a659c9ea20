//! Datagrams with the process that sent them, as the kernel reports it (SCM_CREDENTIALS and SCM_PIDFD, unix(7)).
//! Linux only.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::kernel_text;

/// `SO_PASSPIDFD` and `SCM_PIDFD`, which the libc crate lacks for some targets.
const SO_PASSPIDFD: libc::c_int = 76;
const SCM_PIDFD: libc::c_int = 4;

/// The sender of a datagram. The kernel has checked both numbers, unless the sender has privileges to choose
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// 0: it is in another PID namespace.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// The process that sent a datagram, also when another one has its pid.
#[derive(Debug)]
pub(crate) enum Identity {
    /// A pidfd of it.
    Held(OwnedFd),
    /// It was reaped before the datagram was read.
    Reaped,
    /// This kernel does not report it: Linux does from 6.5 on.
    Unknown,
}

impl Identity {
    /// Whether its pid may belong to another process.
    pub(crate) fn is_reaped(&self) -> bool {
        match self {
            Identity::Held(pidfd) => {
                let info = kernel_text::read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
                // The pid is -1 then (pidfd_open(2)).
                info.is_ok_and(|info| info.lines().any(|line| line.trim_end() == "Pid:\t-1"))
            }
            Identity::Reaped => true,
            Identity::Unknown => false,
        }
    }
}

/// Lets the kernel report the sender of each datagram that arrives from now on.
pub(crate) fn report(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::net::sockopt::set_socket_passcred(socket, true)?;
    let (on, size): (libc::c_int, _) = (1, size_of::<libc::c_int>());
    // An older kernel refuses it: then `Identity` is unknown.
    // SAFETY: the descriptor is open, and the value is an integer of this size.
    let _ = unsafe {
        let (value, size) = ((&raw const on).cast(), libc::socklen_t::try_from(size).unwrap_or(0));
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, value, size)
    };
    Ok(())
}

/// Room for the credentials and the pidfd alone: the kernel closes descriptors that came with the datagram. A
/// sender that waits for that (sd_notify_barrier(3)) goes on.
const ROOM: usize = 64;

/// The bytes of a control message, with its alignment.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// A datagram: its length, and its sender if the kernel reports one.
pub(crate) type Received = (usize, Option<Sender>, Identity);

/// Receives a datagram without a wait.
///
/// # Errors
/// `WouldBlock`: none is queued.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; ROOM]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is pointers and integers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    let size = |size: usize| u32::try_from(size).unwrap_or(0);
    // SAFETY: CMSG_SPACE computes a length.
    let space = unsafe {
        libc::CMSG_SPACE(size(size_of::<libc::ucred>())) + libc::CMSG_SPACE(size(size_of::<libc::c_int>()))
    };
    message.msg_controllen = (space as usize).min(ROOM) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the descriptor is open; the message leads to `buffer` and `control`, with their lengths, which
    // live until the call returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let (sender, identity) = sender(&message);
    Ok((length, sender, identity))
}

fn sender(message: &libc::msghdr) -> (Option<Sender>, Identity) {
    let (mut sender, mut identity) = (None, Identity::Unknown);
    // SAFETY: the kernel has filled the message in, and its control buffer lives.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros return a header inside the control buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: a message of this kind holds a `ucred`, three integers; it may be unaligned.
                let found = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::ucred>()) };
                sender = Some(Sender { pid: found.pid, uid: found.uid });
            }
            (libc::SOL_SOCKET, SCM_PIDFD) => {
                // SAFETY: a message of this kind holds an integer; it may be unaligned.
                let fd = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::c_int>()) };
                identity = match fd {
                    // SAFETY: the kernel has opened it for this message, and no other owner has it.
                    0.. => Identity::Held(unsafe { OwnedFd::from_raw_fd(fd) }),
                    // An error number: the process is gone, or no descriptor is left.
                    _ if fd == -libc::ESRCH || fd == -libc::EINVAL => Identity::Reaped,
                    _ => Identity::Unknown,
                };
            }
            _ => {}
        }
        // SAFETY: as above; the header is one of this message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (sender, identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_datagram_names_its_sender_and_its_descriptors_are_closed() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        report(ours.as_fd()).unwrap();
        let (barrier, passed) = super::super::descriptor::pipe(true).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [passed.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let part = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg(&theirs, &part, &mut control, SendFlags::empty()).unwrap();
        drop(passed);
        let mut buffer = [0; 64];
        let (length, sender, identity) = receive(ours.as_fd(), &mut buffer).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        assert_eq!((&buffer[..length], sender), (&b"BARRIER=1"[..], Some(Sender { pid, uid })));
        assert!(!identity.is_reaped());
        // The end of the pipe: no process holds its other end.
        assert_eq!(rustix::io::read(&barrier, &mut [0; 1]), Ok(0));
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_sender_that_was_reaped_is_not_taken_for_another_process_with_its_pid() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        report(ours.as_fd()).unwrap();
        let mut command = std::process::Command::new("echo");
        let mut child = command.arg("READY=1").stdout(OwnedFd::from(theirs)).spawn().unwrap();
        let mut first = [0; 64];
        // Its datagram may not have arrived yet.
        rustix::net::recv(&ours, &mut first, rustix::net::RecvFlags::PEEK).unwrap();
        let (_, sender, identity) = receive(ours.as_fd(), &mut first).unwrap();
        assert_eq!(sender.map(|sender| sender.pid), i32::try_from(child.id()).ok());
        let was_reaped = identity.is_reaped();
        child.wait().unwrap();
        // Kernels before 6.5 do not report it.
        let is_known = !matches!(identity, Identity::Unknown);
        assert_eq!((was_reaped, identity.is_reaped()), (false, is_known));
    }
}
