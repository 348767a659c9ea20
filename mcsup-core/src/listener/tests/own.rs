//! A program's own listeners in the open set.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use super::super::own::{prepare, require_own};
use super::super::{Connection, from_socket};
use super::*;

/// A listener whose name is not its address.
#[derive(Debug)]
struct Named {
    socket: TcpListener,
    local: Local,
    /// Whether it refuses to take a socket over.
    is_fixed: bool,
}

fn named(name: &str, is_fixed: bool) -> Arc<dyn Listener> {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    Arc::new(Named { socket, local: Local::Other(name.to_owned()), is_fixed })
}

impl AsFd for Named {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener for Named {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        Ok(Connection::Tcp(self.socket.accept()?.0))
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        if self.is_fixed {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let socket = TcpListener::from(socket);
        Ok(Arc::new(Self { socket, local: self.local.clone(), is_fixed: false }))
    }
}

fn number(listener: &dyn Listener) -> RawFd {
    listener.as_fd().as_raw_fd()
}

#[test]
fn a_listener_of_the_program_is_kept_or_given_up_by_its_name() {
    let (one, two) = (named("one", false), named("two", false));
    prepare(&[Arc::clone(&one), Arc::clone(&two)]).unwrap();
    let set = open(&["127.0.0.1:0"]).with_own(&[Arc::clone(&one), two]);
    assert_eq!(set.len(), 3);
    // It was made non-blocking.
    assert_eq!(set[1].accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let kept = set.changed_to(&addresses(&["127.0.0.1:0"]), &Options::default(), 1).unwrap();
    let kept = kept.with_own(&[one]);
    assert!(kept.lacks_any_of(&set) && !set.lacks_any_of(&kept));
    let names: Vec<String> = kept.locals().map(ToString::to_string).collect();
    assert_eq!(names[1..], ["one"]);
}

#[test]
fn two_listeners_of_the_program_do_not_have_one_name() {
    let refused = prepare(&[named("one", false), named("one", false)]).unwrap_err().to_string();
    assert!(refused.contains("two listeners have the name one"), "{refused}");
}

#[test]
fn the_next_image_has_the_sockets_of_the_programs_listeners() {
    let set = OpenSet::default().with_own(&[named("one", false)]);
    let address = rustix::net::getsockname(&*set[0]).unwrap();
    let mut records = set.describe();
    records[0].fd = rustix::io::dup(set[0].as_fd()).unwrap().into_raw_fd();
    let fresh = [named("other", false), named("one", false)];
    let adopted = OpenSet::adopt(&records, &fresh).unwrap();
    assert_eq!(rustix::net::getsockname(&*adopted[0]).unwrap(), address);
    assert_eq!((number(&*adopted[0]), adopted.describe()), (records[0].fd, records));
    // Its settings have the listener with the pool's socket from then on.
    let mut settings = fresh.to_vec();
    adopted.replace_own(&mut settings);
    assert!(Arc::ptr_eq(&settings[0], &fresh[0]) && Arc::ptr_eq(&settings[1], &adopted[0]));
}

#[test]
fn a_listener_that_cannot_take_its_socket_over_leaves_the_descriptor_open() {
    let set = OpenSet::default().with_own(&[named("one", false)]);
    let records = set.describe();
    require_own(&records, &[named("one", false)]).unwrap();
    let missing = require_own(&records, &[named("two", false)]).unwrap_err().to_string();
    assert!(missing.contains("no listener one"), "{missing}");
    for own in [vec![], vec![named("one", true)]] {
        assert!(OpenSet::adopt(&records, &own).is_err());
        assert!(rustix::net::getsockname(&*set[0]).is_ok());
    }
}

#[test]
fn an_open_socket_of_any_kind_is_a_listener() {
    let tcp = from_socket(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
    assert!(matches!(tcp.local(), Local::Tcp(_)) && tcp.has_connections());
    let udp = from_socket(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap();
    assert!(matches!(udp.local(), Local::Udp(_)) && !udp.has_connections());
    let pipe: OwnedFd = rustix::pipe::pipe().unwrap().0;
    assert!(from_socket(pipe).unwrap_err().to_string().contains("neither a listening socket"));
}

#[test]
fn a_socket_of_the_program_takes_clients_after_the_pool_has_ended() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let set = OpenSet::with(from_socket(socket.try_clone().unwrap().into()).unwrap());
    set.refuse_new_where_lacking(&OpenSet::default());
    drop(set);
    // A refused client would try again after a second.
    let limit = std::time::Duration::from_millis(500);
    std::net::TcpStream::connect_timeout(&socket.local_addr().unwrap(), limit).unwrap();
}
