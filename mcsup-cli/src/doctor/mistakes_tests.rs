use super::super::Level;
use super::*;

impl Unit {
    fn is_fine(&self) -> bool {
        examine(self).iter().all(|finding| finding.level == Level::Ok)
    }
}

fn pool() -> Pool {
    Pool {
        stop: Duration::from_secs(30),
        boot: Duration::from_secs(60),
        is_daemon: false,
        pid_file: None,
        has_control: true,
        changes_user: false,
        temporary_sockets: Vec::new(),
        has_directory: false,
    }
}

const GOOD: &str =
    "[Service]\nType=notify-reload\nKillMode=mixed\nRestart=on-failure\nWorkingDirectory=/srv\nUser=app\n";

fn unit(more: &str, pool: Pool) -> Unit {
    Unit {
        path: "a.service".to_owned(),
        unit: unit::Unit::parse(&format!("{GOOD}{more}")),
        is_per_user: false,
        systemd: Some(257),
        server: Server::Pool(pool),
    }
}

#[track_caller]
fn assert_one(unit: &Unit, level: Level, words: &str) {
    let found = examine(unit);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].level, level, "{found:?}");
    assert!(found[0].text.starts_with("a.service: ") && found[0].text.contains(words), "{found:?}");
}

#[test]
fn a_unit_without_a_mistake_is_fine() {
    assert!(unit("", pool()).is_fine());
    assert!(unit("User=\n", Pool { changes_user: true, ..pool() }).is_fine());
    assert!(
        unit("Type=notify\nExecReload=/bin/mcsup reload -p a.pid\nTimeoutStopSec=infinity\n", pool())
            .is_fine()
    );
    assert!(unit("TimeoutStopSec=0\nTimeoutStartSec=0", pool()).is_fine());
    assert!(unit("TimeoutStopSec=5\nTimeoutSec=100", pool()).is_fine());
}

#[test]
fn each_mistake_in_a_line_is_found() {
    for (more, level, words) in [
        ("Type=\nType=simple\nExecReload=mcsup reload", Level::Note, "before a worker is ready"),
        ("Type=forking\nExecReload=mcsup reload", Level::Problem, "Type=forking without --daemon"),
        ("NotifyAccess=none", Level::Problem, "NotifyAccess=none"),
        ("Type=notify", Level::Note, "no ExecReload="),
        ("Type=notify\nExecReload=/bin/kill -HUP $MAINPID", Level::Note, "sends a signal"),
        ("KillMode=", Level::Note, "KillMode=control-group"),
        ("KillMode=process", Level::Problem, "KillMode=process"),
        ("KillSignal=SIGINT", Level::Problem, "KillSignal="),
        ("TimeoutStopSec=20", Level::Problem, "after 20 s, and its workers may drain for 30 s"),
        ("TimeoutStartSec=1min -5", Level::Ok, "no mistake"),
        ("TimeoutStartSec=10s", Level::Note, "a worker may boot for 60 s"),
        ("TimeoutSec=25", Level::Problem, "may drain"),
        ("Restart=no", Level::Problem, "no Restart="),
        ("WorkingDirectory=", Level::Problem, "no WorkingDirectory="),
        ("User=", Level::Note, "runs as root"),
    ] {
        if words == "may drain" {
            assert_eq!(examine(&unit(more, pool())).len(), 2);
        } else {
            assert_one(&unit(more, pool()), level, words);
        }
    }
}

#[test]
fn a_daemon_is_refused_but_with_forking_and_its_own_pid_file() {
    let daemon =
        |pid_file: Option<&str>| Pool { is_daemon: true, pid_file: pid_file.map(str::to_owned), ..pool() };
    let reload = "ExecReload=mcsup reload -p a.pid\n";
    assert_one(&unit("", daemon(None)), Level::Problem, "--daemon with Type=notify-reload");
    assert!(unit("NotifyAccess=all", daemon(None)).is_fine());
    let simple = format!("Type=simple\n{reload}");
    assert_one(&unit(&simple, daemon(None)), Level::Problem, "takes the server for ended");
    let forking = |line: &str| format!("Type=forking\n{reload}{line}");
    assert_one(&unit(&forking(""), daemon(Some("a.pid"))), Level::Problem, "without PIDFile=");
    let unit_of = |own| unit(&forking("PIDFile=/srv/a.pid"), daemon(own));
    assert_one(&unit_of(Some("b.pid")), Level::Problem, "the pid file of the server is b.pid");
    assert_one(&unit_of(None), Level::Problem, "the pid file of the server is none");
    assert_one(&unit_of(Some("a.pid")), Level::Note, "reports no result");
}

#[test]
fn an_old_systemd_does_not_know_the_reload_by_notification() {
    let old = Unit { systemd: Some(252), ..unit("", pool()) };
    assert_one(&old, Level::Problem, "needs systemd 253");
    assert!(Unit { systemd: None, ..old }.is_fine());
}

#[test]
fn a_socket_in_a_private_directory_is_found() {
    let pool = Pool { temporary_sockets: vec!["/tmp/a.sock".to_owned()], ..pool() };
    assert_one(&unit("PrivateTmp=yes", pool.clone()), Level::Problem, "/tmp/a.sock");
    assert!(unit("PrivateTmp=no", pool).is_fine());
}

#[test]
fn a_unit_of_a_user_needs_no_user_and_one_that_runs_nothing_of_ours_is_said_so() {
    assert!(Unit { is_per_user: true, ..unit("User=\n", pool()) }.is_fine());
    let other = |server| Unit { server, ..unit("", pool()) };
    assert_one(&other(Server::Other), Level::Problem, "runs a server of mcsup itself");
    assert_one(&other(Server::Unresolved("%h/a.toml".to_owned())), Level::Note, "settings file %h/a.toml");
    assert_one(&other(Server::Wrong("workers".to_owned())), Level::Problem, "is refused: workers");
    assert_one(&other(Server::Unreadable("no such file".to_owned())), Level::Problem, "no such file");
}
