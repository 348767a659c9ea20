//! Units for systemd: systemd.service(5), systemd.socket(5).

use core::net::IpAddr;

use super::{Bind, Control, Kind, MARGIN, Plan, Refused, whole_seconds};

/// The first version with `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

/// The first version that reports the size of its store of descriptors to the service.
const REPORTS_STORE: u32 = 254;

/// The manager that runs a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manager {
    /// Its version; `None`: unknown, so a new one.
    pub version: Option<u32>,
    /// Whether it is the manager of one user.
    pub is_per_user: bool,
}

impl Manager {
    /// Whether it knows `Type=notify-reload`.
    fn reloads_by_notification(self) -> bool {
        self.version.is_none_or(|version| version >= NOTIFY_RELOAD)
    }
}

/// The service unit.
///
/// # Errors
/// A path has no form in a unit.
pub(crate) fn service(plan: &Plan, manager: Manager) -> Result<String, Refused> {
    let (control, added) = control(plan);
    let mut unit = plan.head("# ", "systemd");
    unit += &format!(
        "\n[Unit]\nDescription={} by mcsup\nAfter=network.target\n\n[Service]\n",
        shown(&plan.title)
    );
    unit += &types(plan, manager, control.as_deref());
    unit += &format!("WorkingDirectory={}\n", text(&plan.directory)?);
    for (name, value) in &plan.environment {
        unit += &format!("Environment={}\n", word(&format!("{name}={value}"), Dollar::Plain));
    }
    if control.is_some() && plan.control == Control::Free {
        unit += &format!("RuntimeDirectory={}\n", text(&plan.name)?);
    }
    unit += &user(plan, manager)?;
    let (subcommand, rest) = plan.parts();
    let front = command(&[&plan.program, subcommand].concat());
    unit += &format!("ExecStart={front}{added} {}\n", words(rest));
    unit += &ends(plan);
    unit += &store(plan, manager);
    let target = if manager.is_per_user { "default.target" } else { "multi-user.target" };
    Ok(unit + &format!("\n[Install]\nWantedBy={target}\n"))
}

/// The lines on starts and reloads.
fn types(plan: &Plan, manager: Manager, control: Option<&str>) -> String {
    let mut lines = String::new();
    if manager.reloads_by_notification() {
        lines += "Type=notify-reload\n";
    } else {
        lines += "# Type=notify-reload needs systemd 253: this command waits for the end of a reload too.\nType=notify\n";
        lines += &match control {
            Some(control) => format!("ExecReload={} reload -s {control}\n", command(&plan.program)),
            None => "ExecReload=/bin/kill -HUP $MAINPID\n".to_owned(),
        };
    }
    lines + "NotifyAccess=main\n"
}

/// The lines on ends, limits and restarts.
fn ends(plan: &Plan) -> String {
    format!(
        "# SIGTERM goes to mcsup, which drains its workers; at the timeout systemd kills what is left.\n\
         KillMode=mixed\n\
         # The drain delay and the graceful timeout, and {} seconds.\n\
         TimeoutStopSec={}\n\
         # A start, or a whole reload.\n\
         TimeoutStartSec={}\n\
         # Not after wrong settings, which a restart does not change.\n\
         Restart=on-failure\n\
         RestartPreventExitStatus=2\n\
         RestartSec=1\n\
         # A supervisor that hangs is killed and restarted.\n\
         WatchdogSec=30\n\
         LimitNOFILE=65536\n",
        whole_seconds(MARGIN),
        plan.times.stop_seconds(),
        plan.times.start_seconds(),
    )
}

/// The lines on the store of descriptors.
fn store(plan: &Plan, manager: Manager) -> String {
    let sockets = plan.sockets.max(1);
    let mut lines = format!(
        "# The queues of connections outlive a killed supervisor.\nFileDescriptorStoreMax={sockets}\n"
    );
    if manager.version.is_some_and(|version| version < REPORTS_STORE) {
        lines += &format!("Environment=FDSTORE={sockets}\n");
    }
    lines
}

/// The line on the user, in a unit of the system.
fn user(plan: &Plan, manager: Manager) -> Result<String, Refused> {
    // The supervisor needs root to change the user of its workers.
    if manager.is_per_user || plan.changes_user() {
        return Ok(String::new());
    }
    Ok(match &plan.own_user {
        Some(own) => format!("User={}\n", text(own)?),
        None => "# Without it the application runs as root.\n#User=www-data\n".to_owned(),
    })
}

/// The control socket as a word of a command line, and the option that opens it where none of the words does.
fn control(plan: &Plan) -> (Option<String>, String) {
    match &plan.control {
        // %t: /run, or the user's own.
        Control::Free => {
            let path = format!("%t/{}/mcsup.ctl", plan.name);
            (Some(path.clone()), format!(" --control-socket={path}"))
        }
        Control::At(path) => (Some(word(path, Dollar::Doubled)), String::new()),
        Control::Off => (None, String::new()),
    }
}

/// The socket unit. With it systemd holds the sockets, and starts the service at the first connection.
///
/// # Errors
/// The settings have no address that systemd can listen on, or no address at all.
pub(crate) fn socket(plan: &Plan, is_per_user: bool) -> Result<String, Refused> {
    if !plan.has_listener {
        return Err("--no-listener: a program without a listener needs no socket unit".to_owned());
    }
    let default = [Bind::Tcp { host: "127.0.0.1".to_owned(), port: 8000 }];
    let binds = if plan.binds.is_empty() { &default } else { plan.binds.as_slice() };
    let mut unit = plan.head("# ", "systemd");
    unit += &format!("\n[Unit]\nDescription={}: its listening sockets\n\n[Socket]\n", shown(&plan.title));
    for bind in binds {
        unit += &format!("{}\n", listen(bind, &plan.directory)?);
    }
    if binds.iter().any(Bind::is_file) {
        unit += "# As mcsup makes them: by default each local user may connect.\n";
        unit += &format!("SocketMode={:04o}\n", plan.socket_mode);
        unit += &owner(plan, is_per_user)?;
    }
    unit += &format!("Backlog={}\n", plan.backlog);
    Ok(unit + "\n[Install]\nWantedBy=sockets.target\n")
}

/// The lines on the owner of a socket's file: the user and group of the workers.
fn owner(plan: &Plan, is_per_user: bool) -> Result<String, Refused> {
    if is_per_user {
        return Ok(String::new());
    }
    let user = if plan.changes_user() { &plan.user } else { &plan.own_user };
    let (own_user, own_group) = &plan.socket_owner;
    let (user, group) = (own_user.as_ref().or(user.as_ref()), own_group.as_ref().or(plan.group.as_ref()));
    let mut lines = String::new();
    for (key, name) in [("SocketUser", user), ("SocketGroup", group)] {
        if let Some(name) = name {
            lines += &format!("{key}={}\n", text(name)?);
        }
    }
    Ok(lines)
}

/// The line of one socket.
fn listen(bind: &Bind, directory: &str) -> Result<String, Refused> {
    let placed = |path: &str| {
        let is_whole = path.starts_with(['/', '@']);
        text(&if is_whole { path.to_owned() } else { format!("{directory}/{path}") })
    };
    Ok(match bind {
        Bind::Tcp { host, port } => format!("ListenStream={}", address(host, *port)?),
        Bind::Udp { host, port } => format!("ListenDatagram={}", address(host, *port)?),
        Bind::Unix(Kind::Stream, path) => format!("ListenStream={}", placed(path)?),
        Bind::Unix(Kind::Datagram, path) => format!("ListenDatagram={}", placed(path)?),
        Bind::Unix(Kind::Seqpacket, path) => format!("ListenSequentialPacket={}", placed(path)?),
        Bind::Vsock(address) => format!("ListenStream={address}"),
        Bind::Passed => return Err("a socket that is passed has no address to listen on".to_owned()),
    })
}

/// Number and port; an IPv6 address in brackets, its zone behind the port.
fn address(host: &str, port: u16) -> Result<String, Refused> {
    let (number, zone) = match host.split_once('%') {
        Some((number, zone)) => (number, format!("%%{}", text(zone)?)),
        None => (host, String::new()),
    };
    match number.parse() {
        Ok(IpAddr::V4(_)) => Ok(format!("{number}:{port}")),
        Ok(IpAddr::V6(_)) => Ok(format!("[{number}]:{port}{zone}")),
        Err(_) => Err(format!("systemd listens on numbers, not on names: {host}")),
    }
}

/// The meaning of `$` in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dollar {
    /// It is a character.
    Plain,
    /// It begins a variable, unless it is doubled.
    Doubled,
}

/// Text up to the end of its line: `%` begins a specifier.
///
/// # Errors
/// There is no form of it (systemd.syntax(7)): it has a control character, or ends with a space or with `\`, which
/// joins the next line to it.
fn text(value: &str) -> Result<String, Refused> {
    if value.contains(char::is_control) || value.ends_with([' ', '\\']) {
        return Err(format!("a unit of systemd has no form of {value:?}"));
    }
    Ok(value.replace('%', "%%"))
}

/// Text for people, within its line.
fn shown(value: &str) -> String {
    value.replace('%', "%%").replace(char::is_control, " ")
}

/// A command line. In the path of its executable `$` begins no variable (systemd.service(5)).
fn command(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [executable] => word(executable, Dollar::Plain),
        [executable, rest @ ..] => format!("{} {}", word(executable, Dollar::Plain), words(rest)),
    }
}

/// Words of a command line behind its executable.
fn words(all: &[String]) -> String {
    let quoted: Vec<String> = all.iter().map(|each| word(each, Dollar::Doubled)).collect();
    quoted.join(" ")
}

/// One word, quoted where it needs it (systemd.syntax(7)).
fn word(value: &str, dollar: Dollar) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%$+".contains(c);
    let mut quoted = String::new();
    for c in value.chars() {
        match c {
            '%' => quoted += "%%",
            '$' if dollar == Dollar::Doubled => quoted += "$$",
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted += "\\n",
            c if c.is_ascii_control() => quoted += &format!("\\x{:02x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    if !value.is_empty() && value.chars().all(is_plain) { quoted } else { format!("\"{quoted}\"") }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
