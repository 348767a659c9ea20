//! The queue of a listening TCP socket, beyond rustix and socket2: its length, and the target of new
//! connections. Linux only.

use std::io;
use std::os::fd::BorrowedFd;

/// Whether [`queued`] knows the number.
pub(crate) const COUNTS: bool = cfg!(target_os = "linux");

/// The number of queued connections; 0 if unknown, or if it is no TCP socket.
#[cfg(target_os = "linux")]
pub(crate) fn queued(socket: BorrowedFd<'_>) -> usize {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: `info` has room for `size` bytes, and the kernel writes no more than that.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut size,
        )
    };
    if answer != 0 {
        return 0;
    }
    // SAFETY: it was zeroed, and its fields are integers: whatever part of it the kernel filled in, it is a
    // value.
    let info = unsafe { info.assume_init() };
    // For a listening socket the kernel reports its queue here (tcp_get_info in net/ipv4/tcp.c).
    const LISTEN: u8 = 10;
    if info.tcpi_state == LISTEN { usize::try_from(info.tcpi_unacked).unwrap_or(usize::MAX) } else { 0 }
}

/// Unknown here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn queued(_: BorrowedFd<'_>) -> usize {
    0
}

/// Whether the kernel spreads connections over the sockets of a port. Elsewhere SO_REUSEPORT gives all to one
/// socket.
pub(crate) const SPREADS: bool = cfg!(target_os = "linux");

/// Directs new connections to the first `count` of the sockets that share `socket`'s port.
///
/// They count in the order in which they began to listen; each connection goes to a random one. Unfinished
/// handshakes stay at their socket.
///
/// # Errors
/// The error of setsockopt(2).
#[cfg(target_os = "linux")]
pub(crate) fn aim(socket: BorrowedFd<'_>, count: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // A random number, as the packet's hash may not be computed yet.
    let random = u32::from_ne_bytes((libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).to_ne_bytes());
    let step =
        |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count.max(1)),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: 3, filter: steps.as_mut_ptr() };
    // SAFETY: `program` points at three instructions, which the kernel copies, and the size is its own.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unsupported here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn aim(_: BorrowedFd<'_>, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Keeps new clients out of the queue: the kernel drops the first packet of a handshake.
///
/// The client repeats it a second later and then reaches the next listener. Unfinished handshakes continue.
/// Connections inherit the filter and never receive such a packet.
///
/// # Errors
/// The error of setsockopt(2).
#[cfg(target_os = "linux")]
pub(crate) fn refuse_new(socket: BorrowedFd<'_>) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // A socket's filter sees a segment from its TCP header on (tcp_v4_rcv in net/ipv4/tcp_ipv4.c), with the
    // flags in byte 13 (RFC 9293, 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| SockFilter::new(u16::try_from(code).unwrap_or(0), jt, jf, k);
    let drop_syn = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    SockRef::from(&socket).attach_filter(&drop_syn)
}

/// Does nothing: the kernel has no such filter here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn refuse_new(_: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Undoes [`refuse_new`].
///
/// # Errors
/// The error of setsockopt(2).
#[cfg(target_os = "linux")]
pub(crate) fn accept_new(socket: BorrowedFd<'_>) -> io::Result<()> {
    match socket2::SockRef::from(&socket).detach_filter() {
        // It has no filter.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// Does nothing: the kernel has no such filter here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn accept_new(_: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

/// Waits until all packets from before an [`aim`] have reached their socket: some milliseconds.
#[cfg(target_os = "linux")]
pub(crate) fn let_packets_pass() {
    // The kernel looks sockets up in read-side critical sections of RCU, and this waits for those in progress
    // (membarrier(2)). If it is forbidden, a handshake of the last microseconds is overlooked.
    let _ = rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global);
}

/// Does nothing here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn let_packets_pass() {}

#[cfg(all(test, target_os = "linux"))]
pub(crate) mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// Makes handshakes end only when the client has sent data.
    pub(crate) fn defer_accept(socket: BorrowedFd<'_>) {
        use std::os::fd::AsRawFd;
        let seconds: libc::c_int = 10;
        // SAFETY: the option is an integer, and the size is its own.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                4,
            )
        };
        assert_eq!(answer, 0);
    }

    #[test]
    fn a_refused_client_reaches_the_next_listener_and_an_accepted_one_goes_on() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut old = TcpStream::connect(address).unwrap();
        refuse_new(listener.as_fd()).unwrap();
        let late = std::thread::spawn(move || TcpStream::connect(address));
        let mut accepted = listener.accept().unwrap().0;
        old.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        listener.set_nonblocking(true).unwrap();
        // The kernel lists the late connection once it has begun.
        while !std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(2).is_some_and(|to| to.ends_with(&format!(":{:04X}", address.port())))
                && fields.get(3) == Some(&"02")
        }) {
            std::thread::yield_now();
        }
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop((listener, accepted, old));
        let next = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        next.set_reuse_address(true).unwrap();
        next.bind(&address.into()).unwrap();
        next.listen(1).unwrap();
        assert!(late.join().unwrap().is_ok());
    }

    #[test]
    fn queued_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(queued(listener.as_fd()), 0);
        let clients = [connect(), connect(), connect()];
        assert_eq!(queued(listener.as_fd()), 3);
        listener.accept().unwrap();
        assert_eq!(queued(listener.as_fd()), 2);
        // Neither is a listener.
        assert_eq!(queued(clients[0].as_fd()), 0);
        assert_eq!(queued(std::io::stdin().as_fd()), 0);
    }
}
