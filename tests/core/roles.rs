//! The pools that the tests look at: this program, started again with a role in its environment.

use std::io::{Read, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use crate::sockets;
use crate::{errors, hosts, programs, services, spawners, stepping};
use mcsup_core::host::privileges::RunAs;
use mcsup_core::upgrade::{self, Image, Resumption};
use mcsup_core::{Config, Connection, ErrorKind, MoldThreads, Prefork, Worker, WorkerContext, WorkerResult};

/// The environment variable that names the role.
pub const ROLE: &str = "MCSUP_TEST_ROLE";
/// The one that names the address.
pub const ADDRESS: &str = "MCSUP_TEST_ADDRESS";
/// Those of what an upgradable pool is started with: its next image, its pid file, its control socket.
pub const IMAGE: &str = "MCSUP_TEST_IMAGE";
pub const PID_FILE: &str = "MCSUP_TEST_PID_FILE";
pub const CONTROL: &str = "MCSUP_TEST_CONTROL";
/// The number of a signal that the role raises when it logs that WINCH has no meaning.
pub const RAISE: &str = "MCSUP_TEST_RAISE";

/// Plays a role to its end.
#[allow(clippy::too_many_lines, reason = "one arm for each role")]
pub fn play(role: &str) -> ExitCode {
    let address = std::env::var(ADDRESS).unwrap();
    if role.starts_with("early") {
        return crate::early::play(role, &address);
    }
    log::set_logger(&Stderr).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    if role.starts_with("sockets") {
        return sockets::play(role, &address);
    }
    let pool = Prefork::new(|| Answering).bind(&address).workers(2);
    match role {
        "answering" => pool.run().into(),
        "preparing" => crate::preparations::play(&address),
        "notified" => services::notified(&address),
        "hasty" => {
            let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
            config.policy.workers = 2;
            config.policy.timeout = Some(Duration::from_secs(1));
            Prefork::with_config(|| Answering, config).run().into()
        }
        "unprivileged" => {
            let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
            config.run_as = RunAs::look_up(Some("nobody"), None).unwrap();
            Prefork::with_config(|| Answering, config).run().into()
        }
        "own-sockets" => {
            let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
            config.listener.reuse_port = true;
            config.policy.workers = 2;
            Prefork::with_config(|| Answering, config).run().into()
        }
        "molded" | "molded-hasty" => {
            let mut config = molded(&address);
            if role == "molded-hasty" {
                config.policy.boot_timeout = Duration::from_millis(300);
            }
            Prefork::with_config(Cast::default, config).run().into()
        }
        "molded-own-sockets" => {
            let mut config = molded(&address);
            config.listener.reuse_port = true;
            Prefork::with_config(Cast::default, config).run().into()
        }
        "molded-unprivileged" => {
            let mut config = molded(&address);
            config.run_as = RunAs::look_up(Some("nobody"), None).unwrap();
            Prefork::with_config(Cast::default, config).run().into()
        }
        "unloadable" => {
            let cast = || Cast { flaw: Some(Flaw::Fails), ..Cast::default() };
            Prefork::with_config(cast, molded(&address)).run().into()
        }
        "loading-for-ever" => {
            let cast = || Cast { flaw: Some(Flaw::Hangs), ..Cast::default() };
            Prefork::with_config(cast, molded(&address)).run().into()
        }
        "threaded-mold" | "threaded-mold-warned" => {
            let mut config = molded(&address);
            if role == "threaded-mold-warned" {
                config.mold_threads = MoldThreads::Warn;
            }
            let cast = || Cast { flaw: Some(Flaw::StartsThread), ..Cast::default() };
            Prefork::with_config(cast, config).run().into()
        }
        "upgradable" | "upgradable-molded" | "ahead" | "refusing" | "panicking" => upgradable(role, &address),
        "twice" => {
            assert_eq!(Prefork::new(|| Answering).bind(&address).workers(2).run().code(), 0);
            pool.run().into()
        }
        "hosted" => hosts::play(|| pool.run()),
        "hosted-widely" => hosts::play_widely(false, || pool.run()),
        "hosted-more-widely" => hosts::play_widely(true, || pool.run()),
        "hosted-more-widely-molded" => {
            hosts::play_widely(true, || Prefork::with_config(Cast::default, molded(&address)).run())
        }
        "hosted-molded" => hosts::play(|| Prefork::with_config(Cast::default, molded(&address)).run()),
        "threaded-upgradable" => {
            if std::env::var(upgrade::VARIABLE).is_ok_and(|task| task.starts_with("resume:")) {
                start_companion();
            }
            upgradable("upgradable", &address)
        }
        "inherited-twice" => {
            // The first start fails at an address that another socket has, the second one serves.
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let first = Prefork::new(|| Answering).bind(&address);
            assert_eq!(first.bind(&taken.local_addr().unwrap().to_string()).run().code(), 1);
            pool.run().into()
        }
        _ if role.starts_with("program") => crate::external::play(role, &address),
        _ if role.starts_with("stepping-") => stepping::play(role, &address),
        _ if role.starts_with("embedder-") => programs::play(role, &address),
        _ if role.starts_with("spawner-") => spawners::play(role, &address),
        _ => failing(role, &address),
    }
}

/// A pool that cannot start.
fn failing(role: &str, address: &str) -> ExitCode {
    match role {
        "panicking-boot" => Prefork::new(|| PanickingBoot).bind(address).workers(2).run().into(),
        "threaded" => {
            start_companion();
            reason_of(Prefork::new(|| Answering).bind(address).run())
        }
        "threaded-late" => {
            let config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
            reason_of(Prefork::with_config(ThreadedLate, config).run())
        }
        "threaded-late-molded" => reason_of(Prefork::with_config(ThreadedLate, molded(address)).run()),
        "exiting-boot" => reason_of(Prefork::new(|| BadBoot::Exits).bind(address).run()),
        "killed-boot" => reason_of(Prefork::new(|| BadBoot::IsKilled).bind(address).run()),
        "hanging-boot" => {
            let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
            config.policy.boot_timeout = Duration::from_millis(100);
            reason_of(Prefork::with_config(|| BadBoot::Hangs, config).run())
        }
        "exiting-mold" => {
            let cast = || Cast { flaw: Some(Flaw::Exits), ..Cast::default() };
            reason_of(Prefork::with_config(cast, molded(address)).run())
        }
        _ if role.starts_with(errors::ROLE) => errors::play(role, address),
        _ => panic!("there is no role {role}"),
    }
}

/// Starts a thread that stays.
fn start_companion() {
    let (started, start) = mpsc::channel();
    let companion = move || {
        // By now the thread has its name.
        started.send(()).unwrap();
        std::thread::park();
    };
    std::thread::Builder::new().name("companion".to_owned()).spawn(companion).unwrap();
    start.recv().unwrap();
}

/// Logs the result for the caller of the library, and ends as the pool has.
pub fn reason_of(ending: mcsup_core::Ending) -> ExitCode {
    let reason = ending.error().map(ToString::to_string);
    log::info!("outcome {:?}, reason {reason:?}", ending.outcome());
    ending.into()
}

/// A supervisor that gets a second thread when its listeners are open.
struct ThreadedLate;

impl mcsup_core::Supervisor for ThreadedLate {
    type Worker = Cast;

    fn worker(&mut self, _: u64) -> Cast {
        Cast::default()
    }

    fn listening(&mut self, _: &[&mcsup_core::Local]) {
        start_companion();
    }
}

/// A pool that can be upgraded, and images of it that cannot take over.
fn upgradable(role: &str, address: &str) -> ExitCode {
    let mut config = molded(address);
    config.policy.preload = role == "upgradable-molded";
    config.policy.upgrade_timeout = Duration::from_secs(2);
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    config.pid_file = path(PID_FILE);
    config.control_socket = path(CONTROL);
    let arguments = std::env::args_os().collect();
    let directory = std::env::current_dir().unwrap();
    config.image = path(IMAGE).map(|program| Image { program, arguments, directory, reexec: None });
    std::env::set_current_dir("/").unwrap();
    let is_taking_over = std::env::var(upgrade::VARIABLE).is_ok_and(|task| task.starts_with("resume:"));
    match role {
        "ahead" => write_another_version(),
        "refusing" if is_taking_over => config.policy.workers = 0,
        "panicking" if is_taking_over => {
            let _succession = Resumption::from_environment().unwrap();
            panic!("cannot go on");
        }
        _ => {}
    }
    Prefork::with_config(|| Answering, config).run().into()
}

/// As an image of another version would have found the letter.
fn write_another_version() {
    let task = std::env::var(upgrade::VARIABLE).unwrap();
    let fd = task.split(':').nth(1).unwrap();
    let text = std::fs::read_to_string(format!("/proc/self/fd/{fd}")).unwrap();
    let mut other = tempfile::tempfile().unwrap();
    let (before, rest) = text.split_once("\"version\":").unwrap();
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    other.write_all(format!("{before}\"version\":99{rest}").as_bytes()).unwrap();
    // Inherited, as the letter is.
    rustix::io::fcntl_setfd(&other, rustix::io::FdFlags::empty()).unwrap();
    let others = task.replacen(&format!(":{fd}"), &format!(":{}", other.into_raw_fd()), 1);
    // SAFETY: this process has one thread.
    #[allow(unsafe_code, reason = "the only way to be another image")]
    unsafe {
        std::env::set_var(upgrade::VARIABLE, others);
    }
}

/// Answers each connection's one line with something about its process.
pub struct Answering;

impl Worker for Answering {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut connection) = context.accept()? {
            let line = read_line(&mut connection)?;
            let answer = match line.trim() {
                "exhaust" => exhaust(&mut connection)?,
                question => answer(question, context),
            };
            connection.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

/// Uses up all descriptors until the client says more.
fn exhaust(connection: &mut Connection) -> std::io::Result<String> {
    let mut opened = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/zero") {
        opened.push(file);
    }
    log::warn!("no descriptor is left after {}", opened.len());
    read_line(connection)
}

fn molded(address: &str) -> Config {
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    config.policy.preload = true;
    config
}

/// Is loaded once for all, and answers with what it was given then, too. Each answer counts as a request.
#[derive(Default)]
struct Cast {
    mark: String,
    flaw: Option<Flaw>,
}

/// What is wrong with it.
enum Flaw {
    Fails,
    Hangs,
    StartsThread,
    Exits,
}

impl Worker for Cast {
    fn load(&mut self, context: Option<&WorkerContext>) -> WorkerResult {
        assert!(context.is_none(), "there is a mold");
        let drawn = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        self.mark = format!("{} by {}", drawn.trim(), std::process::id());
        match self.flaw {
            Some(Flaw::Fails) => {
                Err(mcsup_core::Error::new(ErrorKind::Application, "nothing to cast").into())
            }
            Some(Flaw::Hangs) => loop {
                std::thread::park();
            },
            Some(Flaw::StartsThread) => {
                start_companion();
                Ok(())
            }
            Some(Flaw::Exits) => std::process::exit(7),
            None => Ok(()),
        }
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut connection) = context.accept()? {
            let line = read_line(&mut connection)?;
            context.request_began();
            let answer = match line.trim() {
                "mark" => self.mark.clone(),
                "pid and mark" => format!("{} {}", std::process::id(), self.mark),
                "slot" => context.slot().to_string(),
                // A daemon as of old: its parent ends at once, it has a session of its own, and it ends soon.
                "daemon" => {
                    let shell = std::process::Command::new("sh")
                        .args(["-c", "setsid sleep 0.1 & echo $!"])
                        .output()?;
                    String::from_utf8_lossy(&shell.stdout).trim().to_owned()
                }
                question => answer(question, context),
            };
            context.request_ended();
            connection.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

pub fn read_line(connection: &mut Connection) -> std::io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while connection.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn answer(question: &str, context: &WorkerContext) -> String {
    match question {
        "pid" => std::process::id().to_string(),
        "number" => context.number().to_string(),
        "status" => std::fs::read_to_string("/proc/self/status").unwrap(),
        "limits" => std::fs::read_to_string("/proc/self/limits").unwrap(),
        "fds" => {
            let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let targets = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            targets.map(|target| format!("{}\n", target.display())).collect()
        }
        "environment" => std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect(),
        "listener" => {
            use std::os::fd::AsRawFd;
            context.listeners()[0].as_fd().as_raw_fd().to_string()
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(300));
            std::process::id().to_string()
        }
        "panic" => panic!("asked to"),
        "orphan" => {
            let script = "sleep 60 > /dev/null 2>&1 & echo $!";
            let shell = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            format!("{} {}", std::process::id(), String::from_utf8_lossy(&shell.stdout).trim())
        }
        "register" => hosts::register_and_raise(),
        "register-widely" => hosts::register_widely(),
        _ => "what?".to_owned(),
    }
}

/// A boot that has no last words.
enum BadBoot {
    Exits,
    IsKilled,
    Hangs,
}

impl Worker for BadBoot {
    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        match self {
            Self::Exits => std::process::exit(7),
            Self::IsKilled => {
                let kill = rustix::process::Signal::KILL;
                rustix::process::kill_process(rustix::process::getpid(), kill).unwrap();
                Ok(())
            }
            Self::Hangs => loop {
                std::thread::park();
            },
        }
    }

    fn run(&mut self, _: &WorkerContext) -> WorkerResult {
        Err("never booted".into())
    }
}

struct PanickingBoot;

impl Worker for PanickingBoot {
    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        panic!("cannot boot")
    }

    fn run(&mut self, _: &WorkerContext) -> WorkerResult {
        Err("never booted".into())
    }
}

/// Log lines for the test to read.
pub struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        // One write: the lines of several processes stay whole.
        let _ = std::io::stderr().write_all(format!("{}: {line}\n", record.level()).as_bytes());
        if line.starts_with("Signal WINCH") {
            if let Some(number) = std::env::var(RAISE).ok().and_then(|number| number.parse().ok()) {
                let signal = rustix::process::Signal::from_named_raw(number).unwrap();
                rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            }
        }
    }

    fn flush(&self) {}
}
