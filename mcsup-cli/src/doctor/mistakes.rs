//! Mistakes in a unit of systemd that runs a server.

use std::time::Duration;

use super::Finding;
use super::unit::{self, Time};

/// `DefaultTimeoutStopSec` and `DefaultTimeoutStartSec` of systemd.
const DEFAULT_TIMEOUT: Time = Time::Limit(Duration::from_secs(90));

/// The first version with `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

/// A unit of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its path.
    pub path: String,
    /// Its text and that of its drop-ins, parsed.
    pub unit: unit::Unit,
    /// Whether a user's manager runs it.
    pub is_per_user: bool,
    /// The version of systemd; `None`: unknown.
    pub systemd: Option<u32>,
    /// The server that it starts.
    pub server: Server,
}

/// The server that a unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// The unit cannot be read, for this reason.
    Unreadable(String),
    /// The unit starts another program.
    Other,
    /// Its settings are wrong, for this reason.
    Wrong(String),
    /// systemd alone knows this path, which its settings depend on.
    Unresolved(String),
    /// Its settings.
    Pool(Pool),
}

/// Settings that matter for a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Longest stop: the drain delay and the graceful timeout.
    pub stop: Duration,
    /// Longest boot of a worker.
    pub boot: Duration,
    /// Whether it goes to the background.
    pub is_daemon: bool,
    /// The pid file.
    pub pid_file: Option<String>,
    /// Whether it has a control socket.
    pub has_control: bool,
    /// Whether it changes the user of its workers.
    pub changes_user: bool,
    /// Sockets in /tmp or /var/tmp.
    pub temporary_sockets: Vec<String>,
    /// Whether the application is found without a working directory.
    pub has_directory: bool,
}

/// Examines a unit.
pub(crate) fn examine(unit: &Unit) -> Vec<Finding> {
    let path = &unit.path;
    let problem = |text: String| vec![Finding::problem(format!("{path}: {text}"))];
    let pool = match &unit.server {
        Server::Unreadable(reason) => return problem(format!("cannot be read: {reason}")),
        Server::Other => return problem("no ExecStart of it runs a server of mcsup itself".to_owned()),
        Server::Wrong(reason) => return problem(format!("its command line is refused: {reason}")),
        Server::Unresolved(file) => {
            let text = format!("{path}: not examined: systemd alone knows the settings file {file}");
            return vec![Finding::note(text).advise("name it by an absolute path without a specifier")];
        }
        Server::Pool(pool) => pool,
    };
    let found = [
        kind(unit, pool),
        reload(unit, pool),
        stop(unit, pool),
        start(unit, pool),
        restart(unit),
        place(unit, pool),
    ];
    let named = |finding: Finding| Finding { text: format!("{path}: {}", finding.text), ..finding };
    let found: Vec<Finding> = found.into_iter().flatten().map(named).collect();
    match found.is_empty() {
        true => vec![Finding::ok(format!("{path}: no mistake"))],
        false => found,
    }
}

/// Type, daemon and notifications.
fn kind(unit: &Unit, pool: &Pool) -> Vec<Finding> {
    let given = unit.unit.get("Type");
    let kind = given.unwrap_or("simple");
    let mut found = Vec::new();
    let is_old = unit.systemd.is_some_and(|version| version < NOTIFY_RELOAD);
    match kind {
        "notify-reload" if is_old => found.push(
            Finding::problem(
                "Type=notify-reload needs systemd 253: this one ignores it, and waits for nothing",
            )
            .advise("Type=notify, and ExecReload= with `mcsup reload`"),
        ),
        // The daemon sends its pid.
        "notify" | "notify-reload" if pool.is_daemon && unit.unit.get("NotifyAccess") != Some("all") => found
            .push(
                Finding::problem(format!("--daemon with Type={kind}: the process that systemd started ends"))
                    .advise("leave --daemon out, or NotifyAccess=all"),
            ),
        "notify" | "notify-reload" => {}
        "forking" if !pool.is_daemon => found.push(
            Finding::problem("Type=forking without --daemon: systemd waits until the start times out")
                .advise("Type=notify-reload"),
        ),
        "forking" => found.push(forking(unit, pool)),
        _ if pool.is_daemon => found.push(
            Finding::problem(format!(
                "--daemon with Type={kind}: systemd takes the server for ended, and kills it"
            ))
            .advise("leave --daemon out, with Type=notify-reload"),
        ),
        _ => found.push(
            Finding::note(format!("Type={kind}: a start counts as done before a worker is ready"))
                .advise("Type=notify-reload, before systemd 253 Type=notify"),
        ),
    }
    if unit.unit.get("NotifyAccess") == Some("none") && kind.starts_with("notify") {
        found.push(
            Finding::problem(
                "NotifyAccess=none: systemd ignores that the server is ready, and the start times out",
            )
            .advise("NotifyAccess=main"),
        );
    }
    found
}

fn forking(unit: &Unit, pool: &Pool) -> Finding {
    match unit.unit.get("PIDFile") {
        None => Finding::problem("Type=forking without PIDFile=: systemd has to guess the main process")
            .advise("Type=notify-reload, and leave --daemon out"),
        Some(file) if pool.pid_file.as_deref().is_none_or(|own| !is_same_file(file, own)) => {
            let own = pool.pid_file.as_deref().unwrap_or("none");
            Finding::problem(format!("PIDFile={file}, but the pid file of the server is {own}"))
                .advise("Type=notify-reload, and leave --daemon out")
        }
        Some(_) => Finding::note("Type=forking: a reload reports no result to systemd")
            .advise("Type=notify-reload, and leave --daemon out"),
    }
}

/// Whether two paths may name the same file: a relative path has its directory elsewhere.
fn is_same_file(one: &str, other: &str) -> bool {
    one == other || !other.starts_with('/') && one.ends_with(other)
}

fn reload(unit: &Unit, pool: &Pool) -> Vec<Finding> {
    if unit.unit.get("Type") == Some("notify-reload") {
        return Vec::new();
    }
    let advice = match pool.has_control {
        true => "ExecReload= with `mcsup reload -p PIDFILE` or `-s SOCKET`, which waits for the result",
        false => {
            "--control-socket, and ExecReload= with `mcsup reload -s SOCKET`, which waits for the result"
        }
    };
    match unit.unit.get("ExecReload") {
        None => vec![Finding::note("no ExecReload=: `systemctl reload` is refused").advise(advice)],
        Some(command) if command.contains("kill") => {
            let text = "ExecReload= sends a signal: `systemctl reload` succeeds although a reload may fail";
            vec![Finding::note(text).advise(advice)]
        }
        Some(_) => Vec::new(),
    }
}

fn stop(unit: &Unit, pool: &Pool) -> Vec<Finding> {
    let mut found = Vec::new();
    match unit.unit.get("KillMode") {
        Some("mixed") => {}
        Some(mode @ ("none" | "process")) => found.push(
            Finding::problem(format!(
                "KillMode={mode}: processes that the application starts outlive the service"
            ))
            .advise("KillMode=mixed"),
        ),
        _ => found.push(
            Finding::note(
                "KillMode=control-group: a stop also sends SIGTERM to each process of the application",
            )
            .advise("KillMode=mixed"),
        ),
    }
    let limit = unit.unit.timeout(["TimeoutStopSec", "TimeoutSec"]).unwrap_or(DEFAULT_TIMEOUT);
    if limit.is_below(pool.stop) {
        let (stop, limit) = (seconds(pool.stop), text_of(limit));
        found.push(
            Finding::problem(format!(
                "systemd kills a stopping server after {limit}, and its workers may drain for {stop} s"
            ))
            .advise(format!("TimeoutStopSec={}", seconds(pool.stop) + 10)),
        );
    }
    if unit.unit.get("KillSignal").is_some_and(|signal| !matches!(signal, "SIGTERM" | "TERM" | "15")) {
        found.push(
            Finding::problem("KillSignal= is not SIGTERM: a stop is not graceful").advise("leave it out"),
        );
    }
    found
}

fn start(unit: &Unit, pool: &Pool) -> Vec<Finding> {
    let is_waited_for =
        unit.unit.get("Type").is_some_and(|kind| kind.starts_with("notify") || kind == "forking");
    let limit = unit.unit.timeout(["TimeoutStartSec", "TimeoutSec"]).unwrap_or(DEFAULT_TIMEOUT);
    if !is_waited_for || !limit.is_below(pool.boot) {
        return Vec::new();
    }
    let (boot, limit) = (seconds(pool.boot), text_of(limit));
    let text = format!("systemd ends a start after {limit}, and a worker may boot for {boot} s");
    vec![Finding::note(text).advise(format!("TimeoutStartSec={}", boot + 10))]
}

fn restart(unit: &Unit) -> Vec<Finding> {
    match unit.unit.get("Restart") {
        None | Some("no" | "on-success") => {
            let text = "no Restart=: a supervisor that was killed stays down";
            vec![Finding::problem(text).advise("Restart=on-failure")]
        }
        Some(_) => Vec::new(),
    }
}

/// Directory, user and files.
fn place(unit: &Unit, pool: &Pool) -> Vec<Finding> {
    let mut found = Vec::new();
    if unit.unit.get("WorkingDirectory").is_none() && !pool.has_directory {
        found.push(
            Finding::problem("no WorkingDirectory=: the application is searched for in /")
                .advise("WorkingDirectory= with the directory of the application, or --chdir"),
        );
    }
    if !unit.is_per_user
        && unit.unit.get("User").is_none()
        && !unit.unit.is_on("DynamicUser")
        && !pool.changes_user
    {
        found.push(Finding::note("no User= and no --user: the application runs as root").advise("User="));
    }
    if unit.unit.is_on("PrivateTmp") {
        found.extend(pool.temporary_sockets.iter().map(|path| {
            Finding::problem(format!("PrivateTmp=: no other service can reach the socket {path}"))
                .advise("RuntimeDirectory=, and the socket in /run")
        }));
    }
    found
}

fn seconds(time: Duration) -> u64 {
    time.as_secs_f64().ceil() as u64
}

fn text_of(time: Time) -> String {
    match time {
        Time::Limit(limit) => format!("{} s", seconds(limit)),
        Time::Infinite => "no time".to_owned(),
    }
}

#[cfg(test)]
#[path = "mistakes_tests.rs"]
mod tests;
