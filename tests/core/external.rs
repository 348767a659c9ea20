//! Programs of other languages as workers.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use mcsup_core::host::privileges::RunAs;
use mcsup_core::host::processes;
use mcsup_core::program::{Limit, LimitedResource, Ready};
use mcsup_core::{Children, Config, Prefork, Program};
use rustix::process::Signal;

use crate::molds::ADOPTS;
use crate::pool::{Pool, is_gone, kill, wait_for};

/// The worker that most tests use.
pub const WORKER: &str = include_str!("external/worker.py");

/// The variable that names a file of the test.
pub const FILE: &str = "MCSUP_TEST_FILE";

pub fn shell(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

/// Plays a role to its end.
pub fn play(role: &str, address: &str) -> ExitCode {
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.children = Children::End;
    config.policy.workers = 2;
    config.policy.plan.soak = Duration::ZERO;
    let python = Program::new("python3").args(["-c", WORKER]);
    let program = match role {
        "program" => python.args(["{slot}", "{fd}", "--at={address:0}:{port}", "{other}"]),
        "program-shy" => {
            // The file has the name of the socket until the test removes it; then the program reports.
            let script = "echo $NOTIFY_SOCKET >$FILE; while [ -e $FILE ]; do sleep 0.01; done; \
                          echo ready >&$MCSUP_READY_FD; exec sleep 600";
            config.policy.workers = 1;
            let file = std::env::var_os(FILE).unwrap();
            let program = shell(script).env("FILE", file);
            match RunAs::look_up(Some("nobody"), None).unwrap_or_default() {
                Some(run_as) => program.run_as(run_as),
                None => program,
            }
        }
        "program-failing" => shell("echo on its way; echo no database >&2; exit 3"),
        "program-missing" => Program::new("there-is-no-such-program"),
        "program-accepting" => python.args(["silent"]).ready(Ready::Accepts),
        "program-answering" => {
            let (request, answers) = (b"blocking\n".to_vec(), vec![b"True".to_vec(), b"False".to_vec()]);
            python.args(["silent"]).ready(Ready::Answers { request, answers })
        }
        "program-timed" => python.args(["silent"]).ready(Ready::After(Duration::from_millis(50))),
        "program-limited" => {
            let limit = Limit { resource: LimitedResource::Descriptors, soft: Some(100), hard: Some(120) };
            let program =
                python.limit(limit).nice(3).umask(0o027).no_new_privileges(true).current_dir("/tmp");
            let program = program.cpus(vec![vec![0]]).blocking_listeners(true);
            match RunAs::look_up(Some("nobody"), None).unwrap_or_default() {
                Some(run_as) => program.run_as(run_as),
                None => program,
            }
        }
        "program-stubborn" => {
            config.policy.graceful_timeout = Duration::from_secs(1);
            shell("trap '' INT; echo >&$MCSUP_READY_FD; while :; do sleep 600; done")
                .stop_signal(libc::SIGINT)
        }
        _ => panic!("there is no role {role}"),
    };
    Prefork::with_config(move || program.clone(), config).run().into()
}

fn descriptors(pool: &Pool) -> Vec<i32> {
    pool.ask("descriptors").split(' ').map(|number| number.parse().unwrap()).collect()
}

/// The programs of all workers.
fn programs(pool: &Pool) -> Vec<i32> {
    pool.workers().into_iter().flat_map(processes::children_of).collect()
}

pub fn a_program_serves_and_stops_gracefully() {
    let mut pool = Pool::start("program");
    pool.wait_ready(2);
    let (workers, programs) = (pool.workers(), programs(&pool));
    assert_eq!((workers.len(), programs.len()), (2, 2));
    assert!(programs.contains(&pool.ask("pid").parse().unwrap()));
    assert!(workers.contains(&pool.ask("parent").parse().unwrap()));
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    assert!(workers.iter().chain(&programs).all(|pid| is_gone(*pid)));
    std::net::TcpListener::bind(pool.address).unwrap();
}

pub fn a_program_finds_its_listeners_under_every_contract() {
    let mut pool = Pool::start("program");
    pool.wait_ready(2);
    let environment = pool.ask("environment");
    let (address, port) = (pool.address, pool.address.port());
    for line in [
        "LISTEN_FDS=1".to_owned(),
        format!("LISTEN_FDNAMES=127.0.0.1-{port}"),
        format!("SERVER_STARTER_PORT={address}=3"),
        format!("MCSUP_FDS={address}=3"),
        "EINHORN_FD_COUNT=1".to_owned(),
        "EINHORN_FD_0=3".to_owned(),
        "MCSUP_READY_FD=4".to_owned(),
    ] {
        assert!(environment.lines().any(|other| other == line), "no {line} in {environment}");
    }
    // Each connection may reach another worker.
    let pid = || (pool.ask("pid"), pool.ask("environment"));
    wait_for("one worker to answer twice", || {
        let (pid, environment) = pid();
        environment.lines().any(|line| line == format!("LISTEN_PID={pid}"))
    });
    let arguments = pool.ask("arguments");
    let arguments: Vec<&str> = arguments.lines().collect();
    assert!(["0", "1"].contains(&arguments[0]), "{arguments:?}");
    assert_eq!(arguments[1..], ["3", &format!("--at={address}:{port}"), "{other}"]);
    // The standard streams, the listener, the report, and the connection.
    assert_eq!(descriptors(&pool), [0, 1, 2, 3, 4, 5]);
    assert_eq!(pool.stop().code(), Some(0));
}

/// Reports as a child of this process; as this user, or as root the one of `uid`.
fn report(name: &str, uid: u32) {
    let send = "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\
                .sendto(b'READY=1', chr(0) + sys.argv[1])";
    let mut command = Command::new("python3");
    command.args(["-c", send, name]).stdin(Stdio::null());
    if uid != 0 {
        command.uid(uid);
    }
    assert!(command.status().unwrap().success());
}

pub fn a_program_that_reports_for_another_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65534), None).unwrap_or(());
    let file = directory.path().join("socket");
    let mut pool = Pool::start_with("program-shy", &[(FILE, &file)]);
    let name = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for("the name of the socket", || name().ends_with('\n'));
    let name = name().trim().trim_start_matches('@').to_owned();
    // This process is no descendant of the worker.
    report(&name, 0);
    pool.wait_log("is not believed: process", 1);
    assert!(pool.log().contains("is none of this worker's program"), "{}", pool.log());
    if rustix::process::geteuid().is_root() {
        report(&name, 12345);
        pool.wait_log("is not believed: process", 2);
    }
    assert!(!pool.log().contains("is ready after"), "{}", pool.log());
    std::fs::remove_file(&file).unwrap();
    pool.wait_ready(1);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_program_that_ends_early_ends_the_start_with_its_output() {
    let mut pool = Pool::start("program-failing");
    assert_eq!(pool.wait().code(), Some(3), "{}", pool.log());
    let log = pool.log();
    assert!(log.contains("the program exited with code 3 before it was ready"), "{log}");
    assert!(log.contains("stdout: on its way") && log.contains("stderr: no database"), "{log}");
}

pub fn a_program_that_is_not_there_ends_the_start() {
    let mut pool = Pool::start("program-missing");
    assert_eq!(pool.wait().code(), Some(4), "{}", pool.log());
    let reason = "start there-is-no-such-program: execute it: No such file or directory";
    assert!(pool.log().contains(reason), "{}", pool.log());
}

pub fn descendants_end_with_their_worker() {
    if !ADOPTS {
        // A process that has left the group of its program is lost there.
        return;
    }
    let mut pool = Pool::start("program");
    pool.wait_ready(2);
    let descendant: i32 = pool.ask("descendant").parse().unwrap();
    assert!(!is_gone(descendant));
    // The worker's process dies, and cannot end them itself.
    let parents = pool.workers();
    for worker in &parents {
        kill(*worker, Signal::KILL);
    }
    wait_for("the descendant to be gone", || is_gone(descendant));
    pool.wait_ready(4);
    let descendant: i32 = pool.ask("descendant").parse().unwrap();
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    assert!(is_gone(descendant));
}

pub fn a_dead_program_is_replaced_and_its_end_is_named() {
    let pool = Pool::start("program");
    pool.wait_ready(2);
    assert_eq!(pool.ask("exit"), "");
    pool.wait_log("the program exited with code 7", 1);
    pool.wait_ready(3);
    kill(programs(&pool)[0], Signal::KILL);
    pool.wait_log("the program was ended by signal 9", 1);
    pool.wait_ready(4);
}

pub fn a_program_does_not_outlive_its_supervisor() {
    let mut pool = Pool::start("program");
    pool.wait_ready(2);
    let programs = programs(&pool);
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for("the programs to be gone", || programs.iter().all(|program| is_gone(*program)));
    std::net::TcpListener::bind(pool.address).unwrap();
}

pub fn the_lines_of_a_program_are_logged_and_never_block_it() {
    let mut pool = Pool::start("program");
    pool.wait_ready(2);
    assert_eq!(pool.ask("say hello"), "done");
    pool.wait_log("stdout: hello", 1);
    pool.wait_log("stderr: hello", 1);
    // More than a pipe holds.
    assert_eq!(pool.ask("flood 3000000"), "done");
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_program_is_ready_when_it_accepts_or_answers() {
    for role in ["program-accepting", "program-answering"] {
        let mut pool = Pool::start(role);
        pool.wait_ready(2);
        pool.signal(Signal::HUP);
        // The old workers accept too, and do not count.
        pool.wait_ready(3);
        pool.wait_ready(4);
        pool.wait_log("Reload done", 1);
        assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    }
}

pub fn a_timer_of_a_program_is_called_one() {
    let mut pool = Pool::start("program-timed");
    pool.wait_ready(2);
    // The lines have a thread of their own, and may come after those of the supervisor.
    pool.wait_log("by a timer", 2);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_program_has_the_attributes_that_its_settings_name() {
    let mut pool = Pool::start("program-limited");
    pool.wait_ready(2);
    let own_nice: i32 = std::fs::read_to_string("/proc/self/stat")
        .unwrap()
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(16)?.parse().ok())
        .unwrap();
    assert_eq!(pool.ask("nice"), (own_nice + 3).to_string());
    assert_eq!(
        (pool.ask("umask"), pool.ask("cpus"), pool.ask("directory")),
        ("0o27".into(), "0".into(), "/tmp".into())
    );
    assert_eq!(pool.ask("blocking"), "True");
    let limits = pool.ask("/proc/self/limits");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "120"]);
    let status = pool.ask("/proc/self/status");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    // Python itself ignores PIPE and XFSZ; the two after 31 are the C library's own.
    let ignored = u64::from_str_radix(&field("SigIgn:"), 16).unwrap() & 0x7fff_ffff;
    assert_eq!((field("SigBlk:"), ignored), ("0".repeat(16), 0x0100_1000));
    if rustix::process::geteuid().is_root() {
        assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!(field("CapEff:"), "0".repeat(16));
    }
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_program_that_ignores_its_stop_signal_is_killed_in_time() {
    let mut pool = Pool::start("program-stubborn");
    pool.wait_ready(2);
    let programs = programs(&pool);
    let sleeps: Vec<i32> = programs.iter().flat_map(|program| processes::children_of(*program)).collect();
    assert_eq!(pool.stop().code(), Some(5), "{}", pool.log());
    assert!(programs.iter().chain(&sleeps).all(|pid| is_gone(*pid)), "{}", pool.log());
}
