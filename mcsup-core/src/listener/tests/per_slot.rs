//! One socket for each slot: every connection reaches a slot with a worker, and none is reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options { reuse_port: true, ..Options::default() }
}

fn open_for(slots: usize) -> OpenSet {
    OpenSet::open(&addresses(&["127.0.0.1:0"]), &options(), slots).unwrap()
}

fn connect(set: &OpenSet, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(port_of(&*set[0])).unwrap()).collect()
}

/// The number of queued connections of each slot.
fn queues(set: &OpenSet) -> Vec<usize> {
    (0..set.len()).map(|slot| set.for_slot(slot).queued()).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::yield_now();
    }
}

#[test]
fn each_slot_has_its_own_socket_and_its_share() {
    let set = open_for(4);
    assert_eq!((set.len(), set.locals().count()), (4, 1));
    assert!(set.iter().all(|listener| listener.local() == set[0].local()));
    let _clients = connect(&set, 400);
    let queues = queues(&set);
    assert_eq!(queues.iter().sum::<usize>(), 400);
    // 100 each on average, with a deviation of less than 9.
    assert!(queues.iter().all(|queued| *queued > 30), "{queues:?}");
    // Every worker has a listener.
    assert_eq!(set.for_slot(7).len(), 1);
    assert_eq!(set.for_slots(&[1, 2]).queued(), queues[1] + queues[2]);
}

#[test]
fn only_tcp_addresses_that_we_open_have_one_for_each_slot() {
    let dir = tempfile::tempdir().unwrap();
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    // As after an exec.
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let wanted = [Address::Inherited(inherited.into_raw_fd()), unix(&dir.path().join("a.sock"))];
    let set = OpenSet::open(&wanted, &options(), 3).unwrap();
    assert_eq!(set.len(), 2);
    assert_eq!(set.for_slot(2).len(), 2);
    set.withdraw();
}

#[test]
fn a_port_that_another_server_has_is_refused_whether_it_shares_or_not() {
    let set = open_for(2);
    let wanted = [port_of(&*set[0]).to_string().parse().unwrap()];
    for reuse_port in [true, false] {
        let options = Options { reuse_port, ..Options::default() };
        let refused = OpenSet::open(&wanted, &options, 2).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    }
    let everywhere: Vec<Address> =
        vec![Address::Tcp { host: "0.0.0.0".to_owned(), port: port_of(&*set[0]).port() }];
    assert!(OpenSet::open(&everywhere, &options(), 2).is_err());
}

#[test]
fn of_servers_that_open_a_port_at_once_one_has_it() {
    let port = port_of(&*open_for(1)[0]);
    let wanted = [port.to_string().parse().unwrap()];
    for _ in 0..5 {
        let won = thread::scope(|scope| {
            let open = || OpenSet::open(&wanted, &options(), 3).ok();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            let sets: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
            sets.len()
        });
        assert_eq!(won, 1, "servers that listen at once");
    }
}

#[test]
fn a_further_slot_gets_no_connections_before_it_serves() {
    let two = open_for(2);
    let four = two.resized(4).unwrap();
    let mut clients = connect(&two, 100);
    assert_eq!(queues(&four)[2..], [0, 0]);
    four.aim(4).unwrap();
    clients.extend(connect(&two, 200));
    assert!(queues(&four).iter().all(|queued| *queued > 10), "{:?}", queues(&four));
}

#[test]
fn a_failed_change_leaves_no_slot_behind() {
    let two = open_for(2);
    for _ in 0..3 {
        let wanted = addresses(&["127.0.0.1:0"]);
        let four = two.changed_to(&wanted, &options(), 4).unwrap();
        // A worker of the failed generation that lives a little longer.
        let held: Vec<_> = four.iter().map(|listener| rustix::io::dup(listener.as_fd()).unwrap()).collect();
        four.withdraw_unless_in(&two);
        drop(four);
        let four = two.resized(4).unwrap();
        four.aim(4).unwrap();
        let clients = connect(&four, 200);
        assert_eq!(four.queued(), clients.len());
        drop(held);
        let mut back = four.resized(2).unwrap();
        assert_eq!(back.end_leaving().len() + back.queued(), clients.len());
        while (0..2).any(|slot| back[slot].accept().is_ok()) {}
    }
}

#[test]
fn a_leaving_slot_gets_no_new_connections_and_loses_no_queued_one() {
    let four = open_for(4);
    let mut clients = connect(&four, 200);
    let before = queues(&four);
    let mut two = four.resized(2).unwrap();
    clients.extend(connect(&four, 200));
    assert_eq!(queues(&four)[2..], before[2..]);
    assert!(two.is_settled());
    // The program of a worker may hold the socket forever.
    let _held = rustix::io::dup(four[2].as_fd()).unwrap();
    let waited = two.end_leaving();
    assert_eq!(waited.len(), before[2] + before[3]);
    assert_eq!(two.len(), 2);
    assert_eq!(two.queued() + waited.len(), clients.len());
    for connection in waited {
        drop(connection);
    }
    let again = two.resized(4).unwrap();
    again.aim(4).unwrap();
    clients.extend(connect(&again, 200));
    assert!(queues(&again).iter().all(|queued| *queued > 10), "{:?}", queues(&again));
}

#[test]
fn a_slot_that_returns_in_time_has_its_old_socket() {
    let four = open_for(4);
    let _clients = connect(&four, 100);
    let before = queues(&four);
    let again = four.resized(2).unwrap().resized(4).unwrap();
    again.aim(4).unwrap();
    assert!(again.is_settled());
    assert_eq!(queues(&again), before);
}

#[test]
fn a_change_of_the_settings_may_change_the_number_of_slots_too() {
    let first = open_for(3);
    let wanted = addresses(&["127.0.0.1:0", "127.0.0.2:0"]);
    let mut second = first.changed_to(&wanted, &Options { backlog: 77, ..options() }, 2).unwrap();
    // Until the new generation serves, the old one has all of its slots.
    assert_eq!(second.len(), 3 + 2);
    assert!(!second.is_settled() && second.end_leaving().is_empty());
    let clients = connect(&first, 90);
    assert!(queues(&first).iter().all(|queued| *queued > 5));
    second.aim(2).unwrap();
    first.withdraw_unless_in(&second);
    assert!(second.is_settled());
    let waited = second.end_leaving().len();
    assert_eq!((second.len(), second.queued() + waited), (4, clients.len()));
}

#[test]
fn an_unfinished_handshake_is_waited_for() {
    let four = open_for(4);
    for listener in four.iter() {
        // The handshake ends when the client has sent a byte (tcp(7)).
        let socket = socket2::SockRef::from(listener);
        crate::sys::listening::tests::defer_accept(socket.as_fd());
    }
    let mut clients = connect(&four, 64);
    assert_eq!(four.queued(), 0);
    let mut two = four.resized(2).unwrap();
    assert!(!two.is_settled());
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    wait_for("the end of all handshakes", || two.is_settled());
    let waited = two.end_leaving();
    assert!(!waited.is_empty());
    assert_eq!(waited.len() + two.queued(), clients.len());
}

#[test]
#[cfg(target_os = "linux")]
fn a_slot_does_not_close_while_the_kernel_cannot_be_asked_about_handshakes() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let four = open_for(4);
    for listener in four.iter() {
        crate::sys::listening::tests::defer_accept(socket2::SockRef::from(listener).as_fd());
    }
    let mut clients = connect(&four, 64);
    let before = getrlimit(Resource::Nofile);
    let limit = |current| setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    // No descriptor is free, not even for the question.
    limit(Some(0));
    let two = four.resized(2).unwrap();
    let was_settled = two.is_settled();
    limit(before.current);
    assert!(!was_settled && !two.is_settled());
    limit(Some(0));
    let was_settled = two.is_settled();
    limit(before.current);
    assert!(!was_settled);
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    wait_for("the end of all handshakes", || two.is_settled());
}

#[test]
fn the_next_image_has_the_same_slots() {
    let mut two = open_for(4).resized(2).unwrap();
    let clients = connect(&two, 50);
    let (mut adopted, records) = through_an_exec(&two);
    assert_eq!(adopted.describe(), records);
    assert_eq!(adopted.queued(), clients.len());
    two.end_leaving();
    adopted.end_leaving();
    assert_eq!(adopted.len(), 2);
    let three = adopted.resized(3).unwrap();
    three.aim(3).unwrap();
    let _more = connect(&three, 90);
    assert!(queues(&three)[2] > 5);
}

/// A worker's loop: accepts and answers; at `drain` it takes the queued connections and ends.
fn work(set: &OpenSet, slot: usize, drain: &'static AtomicBool) -> JoinHandle<()> {
    // Its own copy, as in another process.
    let own = rustix::io::dup(set.for_slot(slot)[0].as_fd()).unwrap();
    let listener = TcpListener::from(own);
    thread::spawn(move || {
        loop {
            let drains = drain.load(SeqCst);
            match listener.accept() {
                Ok((stream, _)) => answer(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock && drains => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => panic!("accept: {error}"),
            }
        }
    })
}

fn answer(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"served").unwrap();
}

/// Sends requests until `enough`, and counts the answers.
fn ask_on(address: SocketAddr, asked: &'static AtomicUsize, enough: &'static AtomicBool) -> JoinHandle<()> {
    thread::spawn(move || {
        while !enough.load(SeqCst) {
            expect_answer(TcpStream::connect(address).unwrap());
            asked.fetch_add(1, SeqCst);
        }
    })
}

fn expect_answer(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "served");
}

fn answers_go_on(asked: &AtomicUsize) {
    let before = asked.load(SeqCst);
    wait_for("further answers", || asked.load(SeqCst) >= before + 30);
}

fn flag() -> &'static AtomicBool {
    Box::leak(Box::default())
}

#[test]
fn no_connection_is_reset_while_slots_come_and_go() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let mut set = open_for(4);
    let address = port_of(&*set[0]);
    // No worker accepts yet.
    let early = connect(&set, 200);
    let (enough, never) = (flag(), flag());
    let loops = [ask_on(address, &ASKED, enough), ask_on(address, &ASKED, enough)];
    let stayers = [work(&set, 0, never), work(&set, 1, never)];
    let mut leaving = flag();
    let mut leavers = [work(&set, 2, leaving), work(&set, 3, leaving)];
    for _ in 0..5 {
        set = set.resized(2).unwrap();
        wait_for("the end of all handshakes", || set.is_settled());
        leaving.store(true, SeqCst);
        leavers.into_iter().for_each(|worker| worker.join().unwrap());
        // No worker would accept a connection to a slot without one.
        answers_go_on(&ASKED);
        assert_eq!(set.end_leaving().len(), 0);
        assert_eq!(set.len(), 2);
        set = set.resized(4).unwrap();
        leaving = flag();
        leavers = [work(&set, 2, leaving), work(&set, 3, leaving)];
        set.aim(4).unwrap();
        answers_go_on(&ASKED);
    }
    early.into_iter().for_each(expect_answer);
    enough.store(true, SeqCst);
    loops.into_iter().for_each(|client| client.join().unwrap());
    leaving.store(true, SeqCst);
    never.store(true, SeqCst);
    stayers.into_iter().chain(leavers).for_each(|worker| worker.join().unwrap());
}
