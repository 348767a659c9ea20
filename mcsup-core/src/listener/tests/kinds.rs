//! Each kind of socket, from its address to a client, and into the next image.

#[cfg(target_os = "linux")]
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
#[cfg(target_os = "linux")]
use std::os::unix::net::UnixStream;

#[cfg(target_os = "linux")]
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;

fn change(set: &OpenSet, texts: &[&str]) -> crate::Result<OpenSet> {
    set.changed_to(&addresses(texts), &Options::default(), 1)
}

/// The text of a set's first local address.
fn local(set: &OpenSet) -> String {
    set[0].local().to_string()
}

fn receive_datagram(set: &OpenSet) -> Vec<u8> {
    let mut buffer = [0; 16];
    let (length, _) = rustix::net::recv(&*set[0], &mut buffer, rustix::net::RecvFlags::empty()).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn datagrams_of_udp_wait_at_the_socket_through_a_change_and_an_exec() {
    let set = open(&["udp://127.0.0.1:0"]);
    let at = local(&set);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"one", at.strip_prefix("udp://").unwrap()).unwrap();
    assert!(!set[0].has_connections());
    assert_eq!(set[0].accept().unwrap_err().kind(), std::io::ErrorKind::Unsupported);
    let kept = change(&set, &["udp://127.0.0.1:0", "127.0.0.1:0"]).unwrap();
    drop(set);
    let (adopted, records) = through_an_exec(&kept);
    drop(kept);
    assert_eq!((local(&adopted), adopted.describe()), (at, records));
    assert_eq!(receive_datagram(&adopted), b"one");
}

#[test]
fn a_udp_port_is_not_shared_with_another_socket() {
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", held.local_addr().unwrap());
    let refused = OpenSet::open(&addresses(&[&address]), &Options::default(), 1).unwrap_err();
    assert!(refused.to_string().contains(&format!("cannot listen on {address}")), "{refused}");
}

#[test]
fn a_unix_datagram_socket_has_a_file_with_its_mode_and_a_live_ones_path_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let address = format!("unix-datagram:{}", path.display());
    let options = Options { unix_mode: 0o620, ..Options::default() };
    let set = OpenSet::open(&addresses(&[&address]), &options, 1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
    for other in [address.clone(), format!("unix:{}", path.display())] {
        let refused = OpenSet::open(&addresses(&[&other]), &options, 1).unwrap_err().to_string();
        assert!(refused.contains("the path is held by another process"), "{refused}");
    }
    UnixDatagram::unbound().unwrap().send_to(b"one", &path).unwrap();
    let (adopted, records) = through_an_exec(&set);
    drop(set);
    assert_eq!((local(&adopted), adopted.describe()), (address.clone(), records));
    assert_eq!(receive_datagram(&adopted), b"one");
    // The file of a dead server is replaced, and removed at the end.
    drop(adopted);
    OpenSet::open(&addresses(&[&address]), &options, 1).unwrap().withdraw();
    assert!(!path.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn a_seqpacket_socket_keeps_the_boundaries_of_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let set = open(&[&format!("unix-seqpacket:{}", path.display())]);
    let (set, _) = through_an_exec(&set);
    let client = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    client.connect(&SockAddr::unix(&path).unwrap()).unwrap();
    client.send(b"one").unwrap();
    client.send(b"two").unwrap();
    let mut connection = set[0].accept().unwrap();
    let mut buffer = [0; 16];
    for message in [b"one", b"two"] {
        assert_eq!(connection.read(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], message);
    }
    let mut other = connection.try_clone().unwrap();
    other.write_all(b"three").unwrap();
    let mut client = client;
    assert_eq!(client.read(&mut buffer).unwrap(), 5);
    set.withdraw();
    assert!(!path.exists());
}

#[test]
#[cfg(target_os = "linux")]
fn an_abstract_name_is_served_without_a_file_and_its_holder_is_named() {
    let name = format!("mcsup-test-{}", std::process::id());
    let address = format!("unix:@{name}");
    let opened = open(&[&address]);
    let (set, _) = through_an_exec(&opened);
    assert_eq!((local(&opened), local(&set)), (address.clone(), address.clone()));
    drop(opened);
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.connect(&SockAddr::unix(format!("\0{name}")).unwrap()).map(|()| socket)
    };
    let mut client = UnixStream::from(std::os::fd::OwnedFd::from(connect().unwrap()));
    client.write_all(b"one").unwrap();
    drop(client);
    let mut text = String::new();
    set[0].accept().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
    let refused = OpenSet::open(&addresses(&[&address]), &Options::default(), 1).unwrap_err().to_string();
    let holder = format!("the name is held by pid {}", std::process::id());
    assert!(refused.contains(&holder), "{refused}");
    set.withdraw();
    drop(set);
    assert!(connect().is_err());
}

#[test]
#[cfg(target_os = "linux")]
fn a_vsock_socket_is_recorded_for_the_next_image() {
    // A kernel without the module has no such sockets.
    if Socket::new(Domain::VSOCK, Type::STREAM, None).is_err() {
        return;
    }
    let set = open(&["vsock::4294967295"]);
    // The largest number asks for any port.
    let at = local(&set);
    assert!(at.starts_with("vsock::") && at != "vsock::4294967295", "{at}");
    let (adopted, records) = through_an_exec(&set);
    assert_eq!((local(&adopted), adopted.describe()), (at, records));
    assert_eq!(adopted[0].accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_inherited_socket_may_be_of_any_kind_and_a_server_of_streams_takes_streams_only() {
    let inherited = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
        Address::Inherited(socket.into_raw_fd())
    };
    let set = OpenSet::open(&[inherited()], &Options::default(), 1).unwrap();
    assert!(matches!(set[0].local(), Local::Udp(_)));

    let streams_only = Options { streams_only: true, ..Options::default() };
    let address = inherited();
    let refused = OpenSet::open(std::slice::from_ref(&address), &streams_only, 1).unwrap_err().to_string();
    assert!(refused.contains("not a listening TCP or Unix stream socket"), "{refused}");
    // It stays open for its owner.
    OpenSet::open(&[address], &Options::default(), 1).unwrap();
    for text in ["udp://127.0.0.1:0", "unix-datagram:/none", "unix-seqpacket:/none", "vsock::1"] {
        let refused = OpenSet::open(&addresses(&[text]), &streams_only, 1).unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Setting, "{text}");
    }
}

#[test]
fn a_socket_that_no_client_reaches_is_not_taken() {
    let unbound = UnixDatagram::unbound().unwrap();
    rustix::io::fcntl_setfd(&unbound, rustix::io::FdFlags::empty()).unwrap();
    let address = Address::Inherited(unbound.as_raw_fd());
    let refused = OpenSet::open(&[address], &Options::default(), 1).unwrap_err().to_string();
    assert!(refused.contains("neither a listening socket nor a bound one"), "{refused}");
    unbound.set_nonblocking(true).unwrap();
}
