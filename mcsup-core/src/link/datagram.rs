//! Messages that carry descriptors (`SCM_RIGHTS`, unix(7)) over a socketpair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The most descriptors that one datagram can carry (`SCM_MAX_FD`, unix(7)).
pub(super) const MAX_DESCRIPTORS: usize = 253;

/// Received descriptors are close-on-exec from the beginning, where the system supports that.
#[cfg(not(target_vendor = "apple"))]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// A closed peer is an error of the call, and no signal, where the system supports that.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Sockets are close-on-exec and non-blocking from the beginning, where the system supports that: another thread may
/// start a program at any moment.
#[cfg(not(target_vendor = "apple"))]
const NEW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
#[cfg(target_vendor = "apple")]
const NEW: SocketFlags = SocketFlags::empty();

/// A connected pair of non-blocking, close-on-exec sockets with room for `send_buffer` bytes each.
pub(crate) fn pair(kind: SocketType, send_buffer: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::UNIX, kind, NEW, None)?;
    for end in [&one, &other] {
        if NEW.is_empty() {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        // The default on macOS is two kilobytes.
        rustix::net::sockopt::set_socket_send_buffer_size(end, send_buffer)?;
    }
    Ok((one, other))
}

/// Sends one message. The caller keeps its own copies of the descriptors.
///
/// # Errors
/// Those of sendmsg(2); `WouldBlock` if the queue is full.
pub(crate) fn send(to: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, NO_SIGNAL)?;
    Ok(())
}

/// Receives one message into `buffer`; returns its length and its descriptors.
///
/// A process at its limit of descriptors receives the bytes without the descriptors (unix(7)).
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` if the queue is empty.
pub(crate) fn receive(from: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from, &mut [IoSliceMut::new(buffer)], &mut control, CLOSE_ON_EXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    if CLOSE_ON_EXEC.is_empty() {
        for fd in &descriptors {
            rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
        }
    }
    Ok((received.bytes, descriptors))
}
