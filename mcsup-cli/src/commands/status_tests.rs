use super::super::fixture::FakeServer;
use super::*;
use mcsup_core::control::WorkerStatus;

fn args(server: ServerArgs) -> StatusArgs {
    StatusArgs { server }
}

fn busy_server() -> FakeServer {
    let mut asked = 0.0;
    FakeServer::start(move |request| {
        assert_eq!(request.command, Command::Status);
        let worker = WorkerStatus {
            pid: Some(7),
            // Two replies that are 250 ms apart by its own clock.
            age_seconds: Some(10.0 + asked * 0.25),
            cpu_seconds: Some(3.0 + asked * 0.1),
            ..WorkerStatus::default()
        };
        asked += 1.0;
        let status = Status {
            pid: Some(6),
            phase: Some("serving".into()),
            workers: vec![worker],
            ..Status::default()
        };
        Some(Reply::new(Outcome::Done, "serving").with_status(status))
    })
}

#[test]
fn the_table_has_the_cpu_usage() {
    let (exit, text) = run(&args(busy_server().args())).unwrap();
    assert_eq!(exit, Exit::Done);
    assert!(text.starts_with("serving: pid 6 for -"), "{text}");
    let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_eq!((row[1], row[row.len() - 2]), ("7", "40"), "{text}");
}

#[test]
fn the_json_has_the_cpu_usage() {
    let server = busy_server();
    let (exit, text) = run(&args(ServerArgs { json: true, ..server.args() })).unwrap();
    assert_eq!((exit, text.lines().count()), (Exit::Done, 1));
    let status = Reply::from_line(text.as_bytes()).unwrap().status.unwrap();
    assert_eq!((status.pid, status.workers[0].cpu_percent), (Some(6), Some(40.0)));
}

#[test]
fn a_worker_that_is_in_one_reply_only_has_no_cpu_usage() {
    let worker =
        |slot, pid, cpu| WorkerStatus { slot, pid: Some(pid), cpu_seconds: cpu, ..WorkerStatus::default() };
    let before =
        Status { workers: vec![worker(0, 7, Some(1.0)), worker(1, 8, Some(1.0))], ..Status::default() };
    let mut after = Status {
        workers: vec![worker(0, 7, Some(1.5)), worker(1, 9, Some(0.2)), worker(2, 10, None)],
        ..Status::default()
    };
    add_cpu_percent(&before, &mut after, Duration::from_millis(250));
    let shares: Vec<_> = after.workers.iter().map(|worker| worker.cpu_percent).collect();
    assert_eq!(shares, [Some(200.0), None, None]);
}

#[test]
fn a_server_that_does_not_run_is_reported_as_not_running() {
    let server = busy_server();
    let by_pid_file = ServerArgs { pid: Some(server.pid_file()), ..ServerArgs::default() };
    assert_eq!(run(&args(by_pid_file.clone())), Ok((Exit::NotRunning, "not running".to_owned())));
    let (exit, text) = run(&args(ServerArgs { json: true, ..by_pid_file })).unwrap();
    assert_eq!(
        (exit, Reply::from_line(text.as_bytes()).unwrap().message.as_str()),
        (Exit::NotRunning, "not running")
    );
    std::fs::remove_file(&server.path).unwrap();
    let (exit, text) = run(&args(server.args())).unwrap();
    assert_eq!(exit, Exit::NotRunning);
    assert!(text.starts_with("not running: no server listens at "), "{text}");
}

#[test]
fn a_socket_that_is_named_wins_over_a_pid_file() {
    let server = busy_server();
    let both = ServerArgs { pid: Some(server.pid_file()), ..server.args() };
    // No process holds the pid file.
    assert!(run(&args(both.clone())).unwrap().1.starts_with("serving: pid 6"));
    let _held = PidFile::hold(server.pid_file().as_ref()).unwrap();
    std::fs::remove_file(&server.path).unwrap();
    let (exit, text) = run(&args(both)).unwrap();
    assert_eq!(exit, Exit::NotRunning, "{text}");
}

#[test]
fn a_server_that_cannot_be_asked_is_seen_from_outside() {
    let ours = std::process::id();
    let server = busy_server();
    let _held = PidFile::hold(server.pid_file().as_ref()).unwrap();
    let by_pid_file = ServerArgs { pid: Some(server.pid_file()), ..ServerArgs::default() };
    // Beside the pid file.
    assert!(run(&args(by_pid_file.clone())).unwrap().1.starts_with("serving: pid 6"));
    std::fs::remove_file(&server.path).unwrap();
    let (exit, text) = run(&args(by_pid_file.clone())).unwrap();
    assert_eq!(exit, Exit::Done);
    assert!(text.starts_with(&format!("running: pid {ours}")), "{text}");
    assert!(text.lines().last().unwrap().starts_with("no more is known: no server listens at "), "{text}");
    let (_, text) = run(&args(ServerArgs { json: true, ..by_pid_file })).unwrap();
    let status = Reply::from_line(text.as_bytes()).unwrap().status.unwrap();
    assert_eq!(status.pid, i32::try_from(ours).ok());
}

#[test]
fn a_server_that_hangs_is_not_waited_for() {
    let (_keep, silence) = std::sync::mpsc::channel::<Reply>();
    let server = FakeServer::start(move |_| silence.recv().ok());
    let timeout = Some(Duration::from_millis(30));
    let failure = run(&args(ServerArgs { timeout, ..server.args() })).unwrap_err();
    assert_eq!(failure.exit, Exit::Unfinished);
    let _held = PidFile::hold(server.pid_file().as_ref()).unwrap();
    let by_pid_file = ServerArgs { pid: Some(server.pid_file()), timeout, ..ServerArgs::default() };
    let (exit, text) = run(&args(by_pid_file)).unwrap();
    assert_eq!(exit, Exit::Done);
    assert!(text.ends_with("no more is known: no answer in time"), "{text}");
}
