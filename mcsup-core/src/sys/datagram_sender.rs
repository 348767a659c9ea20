//! Datagrams with the process that sent them, as the kernel reports it (SCM_CREDENTIALS, unix(7)). Linux only.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The sender of a datagram. The kernel has checked both numbers, unless the sender has privileges to choose
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    /// 0: it is in another PID namespace.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// Room for the credentials alone: the kernel closes descriptors that came with the datagram. A sender that
/// waits for that (sd_notify_barrier(3)) goes on.
const ROOM: usize = 64;

/// The bytes of a control message, with its alignment.
#[repr(C, align(8))]
struct Control([u8; ROOM]);

/// Receives a datagram without a wait: its length, and its sender if the kernel reports one.
///
/// # Errors
/// `WouldBlock`: none is queued.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Sender>)> {
    let mut control = Control([0; ROOM]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is pointers and integers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE computes a length.
    let space = unsafe { libc::CMSG_SPACE(u32::try_from(size_of::<libc::ucred>()).unwrap_or(0)) };
    message.msg_controllen = (space as usize).min(ROOM) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the descriptor is open; the message leads to `buffer` and `control`, with their lengths, which
    // live until the call returns.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, sender(&message)))
}

fn sender(message: &libc::msghdr) -> Option<Sender> {
    // SAFETY: the kernel has filled the message in, and its control buffer lives.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return None;
    }
    // SAFETY: the macro returns a header inside the control buffer.
    let kind = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
    if kind != (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
        return None;
    }
    // SAFETY: a message of this kind holds a `ucred`, three integers; it may be unaligned.
    let found = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::ucred>()) };
    Some(Sender { pid: found.pid, uid: found.uid })
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
        rustix::net::sockopt::set_socket_passcred(&ours, true).unwrap();
        let (barrier, passed) = super::super::descriptor::pipe(true).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [passed.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let part = [io::IoSlice::new(b"BARRIER=1")];
        sendmsg(&theirs, &part, &mut control, SendFlags::empty()).unwrap();
        drop(passed);
        let mut buffer = [0; 64];
        let (length, sender) = receive(ours.as_fd(), &mut buffer).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        assert_eq!((&buffer[..length], sender), (&b"BARRIER=1"[..], Some(Sender { pid, uid })));
        // The end of the pipe: no process holds its other end.
        assert_eq!(rustix::io::read(&barrier, &mut [0; 1]), Ok(0));
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
