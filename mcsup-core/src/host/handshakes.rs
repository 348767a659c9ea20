//! Clients with an unfinished handshake on a TCP port.
//!
//! sock_diag(7) filters connections in the kernel. The text in proc_net(5) also has a line for each recently
//! ended connection: tens of thousands on a busy host, which would stop the supervisor while it reads them.
//! The text is the fallback where sock_diag is unavailable.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;

/// The clients with an unfinished handshake on `port`. Empty where the system shows none.
///
/// # Errors
/// The kernel cannot be asked now, for example because no descriptor is free.
pub(crate) fn handshakes_with(port: u16) -> io::Result<HashSet<SocketAddr>> {
    #[cfg(target_os = "linux")]
    if let Ok(clients) = diag::handshakes_with(port) {
        return Ok(clients);
    }
    super::processes::handshakes_by_text(port)
}

#[cfg(target_os = "linux")]
mod diag {
    use std::collections::HashSet;
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::OwnedFd;

    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
    use rustix::net::{recv, sendto, socket_with};

    /// `struct nlmsghdr` of <linux/netlink.h>: length, type, flags, sequence number, port.
    const HEADER: usize = 16;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    /// `SOCK_DIAG_BY_FAMILY` of <linux/sock_diag.h>.
    const BY_FAMILY: u16 = 20;
    /// `NLM_F_REQUEST | NLM_F_DUMP`.
    const REQUEST_ALL: u16 = 0x301;
    const TCP: u8 = 6;
    /// TCP_SYN_RECV and TCP_NEW_SYN_RECV, a bit each.
    const UNDER_WAY: u32 = 1 << 3 | 1 << 12;
    const FAMILIES: [AddressFamily; 2] = [AddressFamily::INET, AddressFamily::INET6];

    pub(super) fn handshakes_with(port: u16) -> io::Result<HashSet<SocketAddr>> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
        // The kernel answers at once. The timeout covers a filter or emulation that does not.
        set_socket_timeout(&socket, Timeout::Recv, Some(std::time::Duration::from_millis(100)))?;
        let mut clients = HashSet::new();
        for family in FAMILIES {
            ask(&socket, family, port)?;
            while !receive(&socket, &mut clients)? {}
        }
        Ok(clients)
    }

    /// Sends `struct inet_diag_req_v2` of <linux/inet_diag.h> with only the local port filled in.
    fn ask(socket: &OwnedFd, family: AddressFamily, port: u16) -> io::Result<()> {
        let length = HEADER + 56;
        let mut request = Vec::with_capacity(length);
        request.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
        request.extend(BY_FAMILY.to_ne_bytes());
        request.extend(REQUEST_ALL.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([u8::try_from(family.as_raw()).unwrap_or_default(), TCP, 0, 0]);
        request.extend(UNDER_WAY.to_ne_bytes());
        request.extend(port.to_be_bytes());
        request.resize(length, 0);
        sendto(socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// Reads some messages; returns whether the last one was among them.
    fn receive(socket: &OwnedFd, clients: &mut HashSet<SocketAddr>) -> io::Result<bool> {
        let mut bytes = [0; 1 << 15];
        let (length, _) = recv(socket, &mut bytes[..], RecvFlags::empty())?;
        take(&bytes[..length], clients)
    }

    fn take(mut rest: &[u8], clients: &mut HashSet<SocketAddr>) -> io::Result<bool> {
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(message) = rest.get(HEADER..length) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                DONE => return finished(message),
                ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => clients.extend(client_in(message)),
            }
            // Messages begin at multiples of four.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }

    /// Checks the last message: an error number below 0 after its header marks an incomplete answer.
    fn finished(message: &[u8]) -> io::Result<bool> {
        let number = message.get(..4).and_then(|number| number.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if number < 0 { Err(io::Error::from_raw_os_error(number.saturating_neg())) } else { Ok(true) }
    }

    /// The peer's address in a `struct inet_diag_msg`: port at 6, address at 24.
    fn client_in(message: &[u8]) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(message.get(6..8)?.try_into().ok()?);
        let address: [u8; 16] = message.get(24..40)?.try_into().ok()?;
        let ip = match AddressFamily::from_raw(u16::from(*message.first()?)) {
            AddressFamily::INET => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
            AddressFamily::INET6 => IpAddr::V6(Ipv6Addr::from(address)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use super::*;

        #[test]
        fn an_incomplete_answer_is_an_error() {
            let last = |number: i32| {
                let mut message = vec![20, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                message[..4].copy_from_slice(&20_u32.to_ne_bytes());
                message[4..6].copy_from_slice(&DONE.to_ne_bytes());
                message.extend(number.to_ne_bytes());
                message
            };
            assert!(take(&last(0), &mut HashSet::new()).unwrap());
            let broken_off = take(&last(-libc::ENOMEM), &mut HashSet::new()).unwrap_err();
            assert_eq!(broken_off.raw_os_error(), Some(libc::ENOMEM));
        }

        #[test]
        fn a_connection_that_is_there_is_no_handshake() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            assert_eq!(handshakes_with(address.port()).unwrap(), HashSet::new());
        }

        #[test]
        fn an_unfinished_handshake_is_reported_with_its_client() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            crate::sys::listening::tests::defer_accept(std::os::fd::AsFd::as_fd(&listener));
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let told = handshakes_with(address.port()).unwrap();
            assert_eq!(told, HashSet::from([client.local_addr().unwrap()]));
            assert_eq!(told, crate::host::processes::handshakes_by_text(address.port()).unwrap());
        }
    }
}
