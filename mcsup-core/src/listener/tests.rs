//! The open set in the supervisor's use: changes, kept sockets, and the record for the next image.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::open::OpenSet;
use super::record::ListenerRecord;
use super::{Address, Listener, Local, Options};

mod kinds;
mod own;
#[cfg(target_os = "linux")]
mod per_slot;

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn open(texts: &[&str]) -> OpenSet {
    OpenSet::open(&addresses(texts), &Options::default(), 2).unwrap()
}

fn port_of(listener: &dyn Listener) -> SocketAddr {
    match listener.local() {
        Local::Tcp(address) => *address,
        other => panic!("{other} is no TCP address"),
    }
}

fn unix(path: &Path) -> Address {
    Address::Unix(path.to_owned())
}

#[test]
fn a_change_keeps_common_sockets_and_opens_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, old, new) = (dir.path().join("kept"), dir.path().join("old"), dir.path().join("new"));
    let any = addresses(&["127.0.0.1:0"])[0].clone();
    let options = Options::default();
    let first = OpenSet::open(&[any.clone(), unix(&kept), unix(&old)], &options, 1).unwrap();
    let inode = fs::metadata(&kept).unwrap().ino();

    let second = first.changed_to(&[unix(&new), unix(&kept), any.clone(), any], &options, 1).unwrap();
    first.withdraw_unless_in(&second);
    // A repeated address is there once, and port 0 is the port from the start.
    assert_eq!(second.len(), 3);
    assert_eq!(second.locals().count(), 3);
    assert!(Arc::ptr_eq(&second[2], &first[0]));
    assert_eq!(fs::metadata(&kept).unwrap().ino(), inode);
    assert!(new.exists() && !old.exists());
    drop(first);
    TcpStream::connect(port_of(&*second[2])).unwrap();
    second.withdraw();
    assert!(!new.exists() && !kept.exists());
}

#[test]
fn a_failed_change_leaves_everything_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, new) = (dir.path().join("kept"), dir.path().join("new"));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken: Address = holder.local_addr().unwrap().to_string().parse().unwrap();
    let options = Options { unix_mode: 0o600, ..Options::default() };
    let set = OpenSet::open(&[unix(&kept)], &options, 1).unwrap();
    let wider = Options { unix_mode: 0o666, ..options };
    let refused = set.changed_to(&[unix(&kept), unix(&new), taken], &wider, 1).unwrap_err().to_string();
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(!new.exists());
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(set.len(), 1);
    drop(holder);
}

#[test]
fn a_descriptor_is_taken_over_at_the_start_only() {
    let set = open(&["127.0.0.1:0"]);
    let pipe = rustix::pipe::pipe().unwrap().0;
    let wanted = addresses(&["127.0.0.1:0", &format!("fd://{}", pipe.as_raw_fd())]);
    assert!(set.changed_to(&wanted, &Options::default(), 1).is_err());
    assert!(rustix::io::fcntl_getfd(&pipe).is_ok());
}

#[test]
fn a_kept_socket_file_gets_its_new_mode_and_owner_while_it_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let options = Options { unix_mode: 0o600, ..Options::default() };
    let set = OpenSet::open(&[unix(&path)], &options, 1).unwrap();
    let born = fs::metadata(&path).unwrap();
    // Only root may give a file to another user; giving it to oneself is allowed.
    let is_root = born.uid() == 0;
    let owner = if is_root { (Some(1), Some(1)) } else { (Some(born.uid()), Some(born.gid())) };
    let wider = Options { unix_mode: 0o666, unix_owner: owner, ..options.clone() };
    let mut set = set.changed_to(&[unix(&path)], &wider, 1).unwrap();
    // The change may still fail.
    assert_eq!(fs::metadata(&path).unwrap().mode(), born.mode());
    set.apply(&wider);
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.mode() & 0o777, Some(now.uid()), Some(now.gid())), (0o666, owner.0, owner.1));
    // And back: without a configured owner the file has its first owner again.
    set.apply(&options);
    let now = fs::metadata(&path).unwrap();
    assert_eq!((now.mode() & 0o777, now.uid(), now.gid()), (0o600, born.uid(), born.gid()));

    fs::remove_file(&path).unwrap();
    fs::write(&path, "another process's").unwrap();
    let before = fs::metadata(&path).unwrap().mode();
    set.apply(&wider);
    set.withdraw();
    assert_eq!(fs::metadata(&path).unwrap().mode(), before);
}

#[test]
#[cfg(target_os = "linux")]
fn a_kept_queue_gets_its_new_length() {
    let options = Options { backlog: 1, ..Options::default() };
    let wanted = addresses(&["127.0.0.1:0"]);
    let set = OpenSet::open(&wanted, &options, 1).unwrap();
    let address = port_of(&*set[0]);
    let options = Options { backlog: 64, ..options };
    let mut longer = set.changed_to(&wanted, &options, 1).unwrap();
    longer.apply(&options);
    let _clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(longer.queued(), 50);
}

#[test]
#[cfg(target_os = "linux")]
fn the_queued_connections_of_all_listeners_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let mut wanted = addresses(&["127.0.0.1:0", "127.0.0.2:0"]);
    wanted.push(unix(&path));
    let set = OpenSet::open(&wanted, &Options::default(), 1).unwrap();
    assert_eq!(set.queued(), 0);
    let to = [0, 0, 1].map(|index| TcpStream::connect(port_of(&*set[index])).unwrap());
    let _not_known = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(set.queued(), to.len());
    set[0].accept().unwrap();
    assert_eq!(set.queued(), 2);
    // A worker that has closed its listeners counts none, and does not fail.
    set.iter().for_each(|listener| crate::sys::descriptor::redirect_to_null(listener.as_fd()).unwrap());
    assert_eq!(set.queued(), 0);
}

/// Does what an exec does: the descriptors stay, and nothing else does.
#[test]
fn a_descriptor_has_one_owner_whatever_addresses_name_its_number() {
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = format!("fd://{}", own.as_raw_fd()).parse().unwrap();
    let open = |address: &Address| OpenSet::open(std::slice::from_ref(address), &Options::default(), 1);
    let refused = open(&address).unwrap_err().to_string();
    assert!(refused.contains("it is close-on-exec"), "{refused}");
    assert_eq!(refused.matches("opened or taken").count(), 1, "{refused}");
    own.local_addr().unwrap();
    // As after an exec.
    rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap();
    let _ = own.into_raw_fd();
    let set = open(&address).unwrap();
    assert!(open(&address).is_err());
    drop(set);
    // A descriptor that does not listen stays open for its owner.
    let file = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    assert!(open(&format!("fd://{}", file.as_raw_fd()).parse().unwrap()).is_err());
    assert!(rustix::io::fcntl_getfd(&file).unwrap().is_empty());
}

#[test]
fn a_start_that_fails_leaves_an_inherited_socket_inherited() {
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = inherited.local_addr().unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let inherited = Address::Inherited(inherited.into_raw_fd());
    let taken = holder.local_addr().unwrap().to_string().parse().unwrap();
    let open = |addresses: &[Address]| OpenSet::open(addresses, &Options::default(), 1);
    assert!(open(&[inherited.clone(), taken]).is_err());
    // So does a start that fails after all of it is open.
    open(std::slice::from_ref(&inherited)).unwrap().put_back();
    let set = open(std::slice::from_ref(&inherited)).unwrap();
    TcpStream::connect(address).unwrap();
    set[0].accept().unwrap();
}

fn through_an_exec(set: &OpenSet) -> (OpenSet, Vec<ListenerRecord>) {
    let mut records = set.describe();
    for (record, listener) in records.iter_mut().zip(set.iter()) {
        record.fd = rustix::io::dup(listener.as_fd()).unwrap().into_raw_fd();
    }
    let text = serde_json::to_string(&records).unwrap();
    let read: Vec<ListenerRecord> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, records);
    (OpenSet::adopt(&read, &[]).unwrap(), records)
}

#[test]
fn the_next_image_has_the_same_set() {
    let dir = tempfile::tempdir().unwrap();
    let (mine, theirs) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
    let wanted = [addresses(&["127.0.0.1:0"]), vec![unix(&mine), unix(&theirs)]].concat();
    let set = OpenSet::open(&wanted, &Options::default(), 1).unwrap();
    let (adopted, records) = through_an_exec(&set);
    let address = port_of(&*set[0]);
    drop(set);
    assert_eq!(adopted.describe(), records);
    for listener in adopted.iter() {
        assert!(rustix::io::fcntl_getfd(listener).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
    // Its addresses are known, its port is the same, and its paths are its own while they exist.
    let kept = adopted.changed_to(&wanted, &Options::default(), 1).unwrap();
    assert_eq!(port_of(&*kept[0]), address);
    TcpStream::connect(address).unwrap();
    fs::remove_file(&theirs).unwrap();
    fs::write(&theirs, "").unwrap();
    kept.withdraw();
    assert!(!mine.exists() && theirs.exists());
}

#[test]
fn an_image_that_cannot_take_the_set_over_leaves_the_descriptors_open() {
    let set = open(&["127.0.0.1:0", "127.0.0.2:0"]);
    let kept: Vec<_> = set.iter().map(|listener| rustix::io::dup(listener.as_fd()).unwrap()).collect();
    let mut records = set.describe();
    for (record, fd) in records.iter_mut().zip(&kept) {
        record.fd = fd.as_raw_fd();
    }
    let (closed, pipe) = (i32::MAX, rustix::pipe::pipe().unwrap().0);
    for wrong in [closed, pipe.as_raw_fd()] {
        records[1].fd = wrong;
        assert!(OpenSet::adopt(&records, &[]).is_err());
        assert!(rustix::io::fcntl_getfd(&kept[0]).is_ok() && rustix::io::fcntl_getfd(&pipe).is_ok());
    }
}
