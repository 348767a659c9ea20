//! Programs that are to end before they are ready, or that do what a program rarely does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use mcsup_core::program::Ready;
use mcsup_core::{Children, Config, Prefork, Program};
use rustix::process::Signal;

use crate::external::{FILE, WORKER, shell};
use crate::molds::ADOPTS;
use crate::pool::{Pool, is_gone, read_all, wait_within};
use crate::roles::Stderr;

/// The longest wait, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reports as a daemon does: its first process ends, and names the second one.
const DAEMON: &str = "
import os, signal, socket
descendant = os.fork()
if descendant == 0:
    signal.pause()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(chr(0) + os.environ['NOTIFY_SOCKET'][1:])
print('it begins', flush=True)
notify.send(b'MAINPID=%d\\nREADY=1' % descendant)
os._exit(0)
";

/// Reports when the log is blocked, and leaves a file at its end.
const TALKATIVE: &str = "
import os, signal, socket, sys
file = sys.argv[1]
os.mkfifo(file + '.blocked')
def end(*_):
    open(file + '.stopped', 'w').close()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(chr(0) + os.environ['NOTIFY_SOCKET'][1:])
print('block the log', flush=True)
open(file + '.blocked').read()
notify.send(b'STATUS=a text')
notify.send(b'READY=1')
open(file + '.sent', 'w').close()
while True:
    signal.pause()
";

/// Plays a role to its end.
pub fn play(role: &str, address: &str) -> ExitCode {
    log::set_logger(if role == "early-blocked" { &Blocking } else { &Stderr }).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.children = Children::End;
    config.policy.plan.soak = Duration::ZERO;
    let file = || std::env::var_os(FILE).unwrap_or_default();
    let python = |code: &str| Program::new("python3").args(["-c", code]);
    let program = match role {
        "early-parent" => {
            shell("sleep 600 & echo $! >$FILE.new; mv $FILE.new $FILE; wait").env("FILE", file())
        }
        "early-impatient" => {
            config.policy.graceful_timeout = Duration::ZERO;
            let script = "sleep 600 & echo $! >$FILE.new; echo >&$MCSUP_READY_FD; mv $FILE.new $FILE; wait";
            shell(script).env("FILE", file())
        }
        "early-server" => python(WORKER).args(["silent"]).ready(Ready::After(Duration::from_secs(600))),
        "early-patient" => {
            config.policy.graceful_timeout = Duration::MAX;
            python(WORKER).ready(Ready::After(Duration::MAX))
        }
        "early-flood" => shell("exec yes >&$MCSUP_READY_FD"),
        "early-daemon" => {
            config.policy.workers = 16;
            python(DAEMON)
        }
        "early-named" => {
            // The variables as it was given them.
            let script = "tr '\\0' '\\n' </proc/$$/environ >$FILE; echo \"its pid is $$\"; \
                          echo >&$MCSUP_READY_FD; exec sleep 600";
            shell(script).env("FILE", file()).env("LISTEN_PID", "1")
        }
        "early-blocked" => {
            config.policy.graceful_timeout = Duration::from_secs(600);
            python(TALKATIVE).args([file()])
        }
        "early-crash" => {
            config.policy.timeout = Some(Duration::from_secs(2));
            let script =
                "sh -c 'trap \"\" TERM; echo >&$MCSUP_READY_FD; exec sleep 600' & read line <$FILE; exit 7";
            shell(script).env("FILE", file())
        }
        _ => panic!("there is no role {role}"),
    };
    Prefork::with_config(move || program.clone(), config).run().into()
}

/// A logger that blocks for ever when it is asked to, with its lock.
struct Blocking;

static LOCK: Mutex<()> = Mutex::new(());

impl log::Log for Blocking {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _held = LOCK.lock().unwrap();
        let text = record.args().to_string();
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
        if text.ends_with("block the log") {
            std::fs::File::create(beside(Path::new(&std::env::var_os(FILE).unwrap()), "blocked")).unwrap();
            loop {
                std::thread::park();
            }
        }
    }

    fn flush(&self) {}
}

/// A file of a program.
fn beside(file: &Path, ending: &str) -> PathBuf {
    file.with_extension(ending)
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    wait_within(PATIENCE, what, condition);
}

pub fn no_descendant_of_a_program_outlives_a_supervisor_that_is_killed() {
    if !ADOPTS {
        // No process is the parent of the descendants of a killed program there.
        return;
    }
    for role in ["early-parent", "early-impatient"] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let mut pool = Pool::start_with(role, &[(FILE, &file)]);
        wait_for("the descendant", || file.exists());
        if role == "early-impatient" {
            pool.wait_ready(1);
        }
        let descendant: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(!is_gone(descendant));
        pool.signal(Signal::KILL);
        pool.wait();
        wait_for("the descendant to be gone", || is_gone(descendant));
        wait_for("the address to be free", || std::net::TcpListener::bind(pool.address).is_ok());
    }
}

pub fn a_program_that_serves_before_it_is_ready_finishes_its_requests() {
    // A quick stop leaves half a second.
    for (signal, length) in [(Signal::TERM, 0.3), (Signal::INT, 0.1)] {
        let mut pool = Pool::start("early-server");
        pool.wait_log("Listening at", 1);
        // It accepts, and has not reported.
        let mut stream = pool.connect();
        writeln!(stream, "sleep {length}").unwrap();
        wait_for("the request", || pool.log().contains("the request has begun"));
        pool.signal(signal);
        assert_eq!(read_all(&mut stream), "done", "{}", pool.log());
        assert_eq!(pool.wait().code(), Some(0), "{}", pool.log());
        assert!(!pool.log().contains("is ready after"), "{}", pool.log());
    }
}

pub fn a_program_with_any_time_to_finish_retires_gracefully() {
    let mut pool = Pool::start("early-patient");
    pool.wait_ready(1);
    pool.signal(Signal::HUP);
    pool.wait_log("Reload done", 1);
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    assert!(!pool.log().contains("panicked"), "{}", pool.log());
}

pub fn a_program_that_never_ends_its_report_is_stopped_by_its_signal() {
    let mut pool = Pool::start("early-flood");
    pool.wait_ready(1);
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
}

pub fn a_program_whose_first_process_ends_with_its_report_is_ready() {
    if !ADOPTS {
        // The daemon has no process there that could adopt it.
        return;
    }
    let mut pool = Pool::start("early-daemon");
    wait_for("all to be ready", || {
        let log = pool.log();
        assert!(!log.contains("before it was ready"), "{log}");
        log.matches("is ready after").count() == 16
    });
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
}

pub fn a_program_has_one_variable_for_its_pid() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut pool = Pool::start_with("early-named", &[(FILE, file.path())]);
    pool.wait_ready(1);
    let environment = std::fs::read_to_string(file.path()).unwrap();
    let named: Vec<&str> =
        environment.lines().filter_map(|entry| entry.strip_prefix("LISTEN_PID=")).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    pool.wait_log(&format!("its pid is {}", named[0]), 1);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_log_that_blocks_does_not_delay_the_end_of_a_program() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let pool = Pool::start_with("early-blocked", &[(FILE, &file)]);
    wait_for("the report", || beside(&file, "sent").exists());
    pool.signal(Signal::TERM);
    wait_for("the stop signal", || beside(&file, "stopped").exists());
}

pub fn a_program_that_dies_is_named_although_its_descendants_end_late() {
    if !ADOPTS {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fifo");
    std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    let pool = Pool::start_with("early-crash", &[(FILE, &file)]);
    wait_for("the program to be ready", || pool.log().contains("is ready after"));
    std::fs::write(&file, "\n").unwrap();
    wait_for("its end", || pool.log().contains("the program exited with code 7"));
    assert!(!pool.log().contains("no sign of life"), "{}", pool.log());
}
