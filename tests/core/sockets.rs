//! Pools on every kind of socket, on a program's own listeners, and on none.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcsup_core::host::processes;
use mcsup_core::upgrade::{Image, Resumption};
use mcsup_core::{Config, Connection, Listener, Local, Prefork, Worker, WorkerContext, WorkerResult};
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::pool::{Pool, is_gone, kill, wait_for};

/// The variable that makes the next image forget the own listener.
const FORGETS: &str = "MCSUP_TEST_FORGETS";
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool on all addresses, and on a listener of its own for the last one.
pub fn play(role: &str, addresses: &str) -> ExitCode {
    let mut config = Config::default();
    config.policy.workers = 2;
    config.policy.preload = role == "sockets-molded";
    config.image = Some(Image {
        program: std::env::current_exe().unwrap(),
        arguments: std::env::args_os().collect(),
        directory: "/".into(),
        reexec: None,
    });
    let (others, own) = addresses.rsplit_once(' ').unwrap_or((addresses, ""));
    config.addresses = others.split_whitespace().map(|text| text.parse().unwrap()).collect();
    let resumption = Resumption::from_environment().unwrap();
    let mut pool = Prefork::with_config(|| Everywhere, config);
    let forgets = resumption.is_some() && std::env::var_os(FORGETS).is_some();
    if !own.is_empty() && !forgets {
        let taken = resumption.as_ref().and_then(|state| state.listener("own").unwrap());
        let socket = taken.map_or_else(|| TcpListener::bind(own).unwrap(), TcpListener::from);
        pool = pool.listener(Greeting::over(socket));
    }
    pool.resume(resumption).run().into()
}

/// A listener of the test's own: its clients greet first.
#[derive(Debug)]
struct Greeting {
    socket: TcpListener,
    local: Local,
}

impl Greeting {
    fn over(socket: TcpListener) -> Self {
        Self { socket, local: Local::Other("own".to_owned()) }
    }
}

impl AsFd for Greeting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener for Greeting {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        let (mut stream, _) = self.socket.accept()?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        match &greeting {
            b"hello" => Ok(Connection::Tcp(stream)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        Ok(Arc::new(Self::over(socket.into())))
    }
}

/// Answers each datagram and each connection with its pid.
struct Everywhere;

impl Worker for Everywhere {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let pid = std::process::id().to_string();
        let (udp, unix) = (context.udp_sockets()?, context.unix_datagrams()?);
        // As a runtime would have them.
        let _duplicates = (context.tcp_listeners()?, context.unix_listeners()?);
        let connecting: Vec<_> = context.listeners().iter().filter(|one| one.has_connections()).collect();
        let sources = udp.iter().map(AsFd::as_fd).chain(unix.iter().map(AsFd::as_fd));
        let sources: Vec<_> = sources.chain(connecting.iter().map(|one| one.as_fd())).collect();
        let mut buffer = [0; 64];
        while let Some(readable) = context.readable(&sources)? {
            for index in readable {
                if let Some(socket) = udp.get(index) {
                    let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                    let answer = match &buffer[..length] {
                        b"fork" => fork_and_stay().to_string(),
                        _ => pid.clone(),
                    };
                    socket.send_to(answer.as_bytes(), client)?;
                } else if let Some(socket) = unix.get(index - udp.len()) {
                    let Ok((_, client)) = socket.recv_from(&mut buffer) else { continue };
                    socket.send_to(pid.as_bytes(), client.as_pathname().unwrap())?;
                } else if let Ok(mut connection) = connecting[index - udp.len() - unix.len()].accept() {
                    connection.write_all(pid.as_bytes())?;
                    // The client of the own listener keeps the worker busy while it likes.
                    if connecting[index - udp.len() - unix.len()].local().to_string() == "own" {
                        let _ = connection.read(&mut buffer);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Forks as an application may, without an exec. The child stays.
fn fork_and_stay() -> i32 {
    // SAFETY: the child only waits for a signal.
    #[allow(unsafe_code, reason = "an application's fork")]
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: pause has no preconditions.
            #[allow(unsafe_code, reason = "as above")]
            unsafe {
                libc::pause();
            }
        },
        child => child,
    }
}

/// The addresses of a test, and its clients.
struct Addresses {
    directory: tempfile::TempDir,
    udp: SocketAddr,
    tcp: SocketAddr,
    own: SocketAddr,
    name: String,
}

impl Addresses {
    fn new() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let name = format!("mcsup-test-{}", std::process::id());
        Self { directory: tempfile::tempdir().unwrap(), udp, tcp: free(), own: free(), name }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self) -> String {
        let (datagram, seqpacket) = (self.path("datagram"), self.path("seqpacket"));
        format!(
            "{} udp://{} unix-datagram:{} unix-seqpacket:{} unix:@{} {}",
            self.tcp,
            self.udp,
            datagram.display(),
            seqpacket.display(),
            self.name,
            self.own
        )
    }

    /// The pids that answer: one for each socket.
    fn ask_all(&self) -> Vec<i32> {
        let connect = |kind, path: &Path| {
            let socket = Socket::new(Domain::UNIX, kind, None).unwrap();
            socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            read_pid(&mut { socket })
        };
        let tcp = |address| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let mut own = tcp(self.own);
        own.write_all(b"hello").unwrap();
        vec![
            read_pid(&mut tcp(self.tcp)),
            self.ask_udp(),
            self.ask_datagram(),
            connect(Type::SEQPACKET, &self.path("seqpacket")),
            connect(Type::STREAM, Path::new(&format!("\0{}", self.name))),
            read_pid(&mut own),
        ]
    }

    fn ask_udp(&self) -> i32 {
        self.send_udp(b"pid")
    }

    fn send_udp(&self, question: &[u8]) -> i32 {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(question, self.udp).unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        number(&buffer[..length])
    }

    fn ask_datagram(&self) -> i32 {
        let path = self.path("client");
        let _ = std::fs::remove_file(&path);
        let client = UnixDatagram::bind(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"pid", self.path("datagram")).unwrap();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        number(&buffer[..length])
    }

    /// A connection that keeps its worker busy, and the worker.
    fn keep_busy(&self) -> (TcpStream, i32) {
        let mut stream = TcpStream::connect(self.own).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        let pid = read_pid(&mut stream);
        (stream, pid)
    }

    /// Whether the next server could bind every address.
    fn are_free(&self) -> bool {
        let is_dead = |name: &str, kind| {
            let socket = Socket::new(Domain::UNIX, kind, None).unwrap();
            let connected = socket.connect(&SockAddr::unix(self.path(name)).unwrap());
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        let name = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        is_dead("datagram", Type::DGRAM)
            && is_dead("seqpacket", Type::SEQPACKET)
            && name.bind(&SockAddr::unix(format!("\0{}", self.name)).unwrap()).is_ok()
            && UdpSocket::bind(self.udp).is_ok()
            && [self.tcp, self.own].iter().all(|address| TcpListener::bind(address).is_ok())
    }
}

fn number(bytes: &[u8]) -> i32 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

fn read_pid(stream: &mut impl Read) -> i32 {
    let mut buffer = [0; 64];
    let length = stream.read(&mut buffer).unwrap();
    number(&buffer[..length])
}

pub fn each_kind_of_socket_is_served_by_a_mold_and_the_next_image() {
    for role in ["sockets", "sockets-molded"] {
        let addresses = Addresses::new();
        let mut pool = Pool::start_on(role, &addresses.text(), |_| {});
        pool.wait_ready(if role == "sockets" { 2 } else { 3 });
        let before = workers_that_answer(&addresses, &pool);
        pool.signal(Signal::USR2);
        pool.wait_log("Upgraded: a new image supervises 2 workers", 1);
        assert!(addresses.ask_all().iter().all(|pid| before.contains(pid)));
        pool.signal(Signal::HUP);
        wait_for("the end of the old workers", || before.iter().all(|pid| is_gone(*pid)));
        workers_that_answer(&addresses, &pool);
        // A client that does not greet costs the worker nothing.
        TcpStream::connect(addresses.own).unwrap().write_all(b"wrong").unwrap();
        workers_that_answer(&addresses, &pool);
        assert_eq!(pool.stop().code(), Some(0));
        UdpSocket::bind(addresses.udp).unwrap();
    }
}

/// Asks at every socket, and returns the pool's processes, which all answers are from.
fn workers_that_answer(addresses: &Addresses, pool: &Pool) -> Vec<i32> {
    let answers = addresses.ask_all();
    let mut workers = pool.workers();
    // A worker is the child of its mold where no process adopts.
    let of_molds: Vec<_> = workers.iter().flat_map(|pid| processes::children_of(*pid)).collect();
    workers.extend(of_molds);
    assert!(answers.iter().all(|pid| workers.contains(pid)), "{answers:?} are not all of {workers:?}");
    workers
}

pub fn each_kind_of_socket_is_free_although_workers_are_busy() {
    let addresses = Addresses::new();
    let pool = Pool::start_on("sockets", &addresses.text(), |_| {});
    pool.wait_ready(2);
    let busy = [(); 2].map(|()| addresses.keep_busy());
    let workers = pool.workers();
    assert!(!addresses.are_free());
    kill(pool.pid(), Signal::KILL);
    wait_for("free addresses", || addresses.are_free());
    for (stream, pid) in busy {
        assert!(workers.contains(&pid) && !is_gone(pid));
        drop(stream);
    }
    // They do not wait for an event of a listener that they no longer have.
    wait_for("the end of the workers", || workers.iter().all(|pid| is_gone(*pid)));
}

pub fn a_process_that_a_worker_has_forked_holds_no_duplicate_of_a_listener() {
    let addresses = Addresses::new();
    let mut pool = Pool::start_on("sockets", &addresses.text(), |_| {});
    pool.wait_ready(2);
    let child = addresses.send_udp(b"fork");
    assert_eq!(pool.stop().code(), Some(0));
    assert!(!is_gone(child));
    // The supervisor has removed the paths.
    wait_for("free addresses", || {
        UdpSocket::bind(addresses.udp).is_ok()
            && [addresses.tcp, addresses.own].iter().all(|address| TcpListener::bind(address).is_ok())
    });
    kill(child, Signal::KILL);
}

pub fn a_new_image_without_a_listener_that_the_pool_has_is_refused() {
    let addresses = Addresses::new();
    let pool = Pool::start_on("sockets", &addresses.text(), |command| {
        command.env(FORGETS, "1");
    });
    pool.wait_ready(2);
    pool.signal(Signal::USR2);
    pool.wait_log("this program has no listener own, which the pool has", 1);
    workers_that_answer(&addresses, &pool);
}

pub fn a_pool_that_names_no_listener_does_not_start() {
    let mut pool = Pool::start_on("sockets", "", |_| {});
    assert_eq!(pool.wait().code(), Some(1));
    assert!(pool.log().contains("there is no address to listen on"), "{}", pool.log());
}

/// A client of the example `udp`, and the number of its requests that were answered.
struct Shouting {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    client: std::thread::JoinHandle<()>,
}

impl Shouting {
    fn at(address: SocketAddr) -> Self {
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (Arc::clone(&ends), Arc::clone(&answered));
        let client = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                shout(&socket, address).expect("every datagram is answered");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { ends, answered, client }
    }

    fn end(self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        self.client.join().unwrap();
        self.answered.load(Ordering::Relaxed)
    }
}

fn shout(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    socket.send_to(b"hello", address)?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    assert_eq!(&buffer[..length], b"HELLO");
    Ok(())
}

/// The example on a free port, when it answers.
fn start_shouting() -> (Pool, SocketAddr) {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pool = Pool::start_example("udp", &format!("udp://{address}"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    wait_for("the first answer", || shout(&socket, address).is_ok());
    wait_for("four workers", || pool.workers().len() == 4);
    (pool, address)
}

pub fn no_datagram_is_unanswered_while_all_workers_are_replaced() {
    let (mut pool, address) = start_shouting();
    let client = Shouting::at(address);
    for _ in 0..3 {
        let before = pool.workers();
        pool.signal(Signal::HUP);
        wait_for("other workers", || {
            let now = pool.workers();
            now.len() == 4 && now.iter().all(|pid| !before.contains(pid))
        });
    }
    pool.signal(Signal::TTOU);
    wait_for("three workers", || pool.workers().len() == 3);
    assert!(client.end() > 0);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn datagrams_that_have_arrived_are_answered_before_a_pool_ends() {
    let (mut pool, address) = start_shouting();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let workers = pool.workers();
    workers.iter().for_each(|pid| kill(*pid, Signal::STOP));
    for _ in 0..50 {
        socket.send_to(b"hello", address).unwrap();
    }
    pool.signal(Signal::TERM);
    workers.iter().for_each(|pid| kill(*pid, Signal::CONT));
    for _ in 0..50 {
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).unwrap();
    }
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn each_job_of_a_queue_is_done_once() {
    let directory = tempfile::tempdir().unwrap();
    let (jobs, done) = (directory.path(), directory.path().join("done"));
    let mut pool = Pool::start_example("queue", jobs.to_str().unwrap());
    let names: BTreeSet<String> = (0..120).map(|number| format!("job-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let draft = jobs.join("draft.new");
        // A folder is no job, and a draft in it is invisible until it is complete.
        std::fs::create_dir_all(&draft).unwrap();
        std::fs::write(draft.join(name), "text").unwrap();
        std::fs::rename(draft.join(name), jobs.join(name)).unwrap();
        match number {
            30 | 90 => {
                wait_for("a worker", || !pool.workers().is_empty());
                kill(pool.workers()[0], Signal::KILL);
            }
            60 => pool.signal(Signal::HUP),
            _ => {}
        }
    }
    let listed = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(&done).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    wait_for("all jobs", || listed() == names);
    for name in &names {
        assert_eq!(std::fs::read_to_string(done.join(name)).unwrap(), "TEXT", "{name}");
        wait_for("the end of each job", || !jobs.join(name).exists());
    }
    assert_eq!(pool.stop().code(), Some(0));
}
