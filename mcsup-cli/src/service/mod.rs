//! Units and manifests that run a pool as a service: systemd, launchd, Docker, Kubernetes.
//!
//! Each file renders a [`Plan`], which has all that depends on the settings and the host, to the text of one kind.

pub(crate) mod docker;
pub(crate) mod kubernetes;
pub(crate) mod launchd;
pub(crate) mod systemd;

#[cfg(test)]
mod fixture;

use std::time::Duration;

/// The first line of each text, behind the mark of a comment. `install` and `uninstall` recognise their files by it.
pub(crate) const MARK: &str = "Printed by `mcsup service";

/// Time beyond the drain before a service manager may kill the pool.
const MARGIN: Duration = Duration::from_secs(10);

/// The control socket in a container.
const CONTAINER_SOCKET: &str = "/run/mcsup/mcsup.ctl";

/// The port in a container, without an option that names one.
const CONTAINER_PORT: u16 = 8000;

/// The path of the health check in a container, without an option that names one.
const HEALTH_PATH: &str = "/healthz";

/// The user and group in a container.
const CONTAINER_USER: u32 = 10_001;

/// Where that user may write: two directories of the image or its volumes, and the kernel's files.
const CONTAINER_FOLDERS: [&str; 4] = ["/tmp/", "/run/mcsup/", "/dev/", "/proc/"];

/// A pool that is run as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Name of the service: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The application or program, for people.
    pub title: String,
    /// The first words of the command line: the absolute path of `mcsup`, or of an interpreter with its arguments.
    pub program: Vec<String>,
    /// The words behind them, as they were given.
    pub words: Vec<String>,
    /// Absolute directory that relative paths in `words` refer to.
    pub directory: String,
    /// Variables that the command needs.
    pub environment: Vec<(String, String)>,
    /// Names of variables that configure a `mcsup run` here, and no service.
    pub ignored_variables: Vec<&'static str>,
    /// Addresses to listen on; empty: the default, loopback.
    pub binds: Vec<Bind>,
    /// Length of the queue of a listening socket.
    pub backlog: i32,
    /// Permission bits of a Unix socket.
    pub socket_mode: u32,
    /// User and group of a Unix socket, where a setting names them.
    pub socket_owner: (Option<String>, Option<String>),
    /// Paths that the server writes: pid file, control socket, logs, Unix sockets.
    pub files: Vec<String>,
    /// The control socket.
    pub control: Control,
    /// Whether the workers are a program that is not Python.
    pub is_program: bool,
    /// Whether clients connect to it; a program may fetch its work itself.
    pub has_listener: bool,
    /// Whether the addresses speak TLS.
    pub tls: Tls,
    /// Path of the health check.
    pub health_path: Option<String>,
    /// Whether an option or the settings file has the number of workers.
    pub has_workers: bool,
    /// Sockets that the supervisor may store in a service manager.
    pub sockets: usize,
    /// Time limits.
    pub times: Times,
    /// The user of the workers, if the pool changes it.
    pub user: Option<String>,
    /// The group of the workers, if the pool changes it.
    pub group: Option<String>,
    /// The user that runs this command; `None`: root.
    pub own_user: Option<String>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    /// A TCP address.
    Tcp {
        /// Name or number, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A UDP address.
    Udp {
        /// Name or number, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket: a path, or an abstract name behind `@`.
    Unix(Kind, String),
    /// An address of vsock(7), in its notation.
    Vsock(String),
    /// A socket that a service manager passes.
    Passed,
}

/// The kind of a Unix socket, unix(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections.
    Stream,
    /// Datagrams.
    Datagram,
    /// Connections that keep the boundaries of messages.
    Seqpacket,
}

impl Bind {
    /// Whether other hosts cannot reach it.
    fn is_loopback(&self) -> bool {
        let Bind::Tcp { host, .. } = self else { return false };
        host == "localhost" || host == "::1" || host.starts_with("127.")
    }

    /// Whether it is a file.
    fn is_file(&self) -> bool {
        matches!(self, Bind::Unix(_, path) if !path.starts_with('@'))
    }
}

/// TLS of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Plain HTTP.
    None,
    /// HTTPS for any client.
    Any,
    /// HTTPS for clients with certificates.
    WithClientCertificates,
}

/// The control socket of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// No option names it or turns it off.
    Free,
    /// At this path, by an option or beside the pid file.
    At(String),
    /// Turned off.
    Off,
}

/// Time limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Longest time before a worker boots: of a configuration in Python, and of its `on_starting`.
    pub before_boot: Duration,
    /// Longest boot of one worker.
    pub boot: Duration,
    /// Longest reload.
    pub reload: Duration,
    /// Time in which a stopping pool still accepts; `None`: the default, none.
    pub drain_delay: Option<Duration>,
    /// Longest drain.
    pub graceful: Duration,
    /// Longest time of `on_exit`, after the drain.
    pub on_exit: Duration,
}

impl Times {
    /// Seconds after which a service manager may kill a pool that is stopping.
    fn stop_seconds(&self) -> u64 {
        let drain = self.drain_delay.unwrap_or_default().saturating_add(self.graceful);
        whole_seconds(drain.saturating_add(self.on_exit).saturating_add(MARGIN))
    }

    /// Seconds after which the first worker is ready or its boot has failed.
    fn boot_seconds(&self) -> u64 {
        whole_seconds(self.before_boot.saturating_add(self.boot))
    }

    /// Seconds after which a start or reload has failed.
    fn start_seconds(&self) -> u64 {
        let boots = self.boot.max(self.reload);
        whole_seconds(self.before_boot.saturating_add(boots).saturating_add(MARGIN))
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// The reason why a service of a kind cannot be made of the settings.
pub(crate) type Refused = String;

impl Plan {
    /// The subcommand, if the words name it, and the words behind it.
    fn parts(&self) -> (&[String], &[String]) {
        let is_named = self.words.first().is_some_and(|word| word == "run" || word == "exec");
        self.words.split_at(usize::from(is_named))
    }

    /// The whole command line, with `added` options in front of the given ones.
    fn command_line(&self, program: &[String], added: &[String]) -> Vec<String> {
        let (subcommand, rest) = self.parts();
        [program, subcommand, added, rest].concat()
    }

    /// Whether the pool needs root, to change the user or group of its workers.
    fn changes_user(&self) -> bool {
        self.user.is_some() || self.group.is_some()
    }

    /// The name of an image: no capital letters, and single separators (the reference format of OCI images).
    fn image(&self) -> String {
        let is_separator = |c: char| !c.is_ascii_alphanumeric();
        let mut image = String::new();
        for c in self.name.to_ascii_lowercase().chars() {
            if !(is_separator(c) && image.ends_with(is_separator)) {
                image.push(c);
            }
        }
        image
    }

    /// Refuses files that the user of a container cannot write.
    fn refuse_files(&self) -> Result<(), Refused> {
        let is_writable = |path: &&String| CONTAINER_FOLDERS.iter().any(|folder| path.starts_with(folder));
        match self.files.iter().find(|path| !is_writable(path)) {
            None => Ok(()),
            Some(path) => Err(format!(
                "{path}: user {CONTAINER_USER} of the container may write below /tmp and /run/mcsup only"
            )),
        }
    }

    /// The control socket in a container.
    fn control_in_container(&self) -> Option<String> {
        match &self.control {
            Control::Free => Some(CONTAINER_SOCKET.to_owned()),
            Control::At(path) => Some(path.clone()),
            Control::Off => None,
        }
    }

    /// The first TCP port; `None`: there is none.
    fn port(&self) -> Option<u16> {
        if !self.has_listener {
            return None;
        }
        if self.binds.is_empty() {
            return Some(CONTAINER_PORT);
        }
        self.binds.iter().find_map(|bind| if let Bind::Tcp { port, .. } = bind { Some(*port) } else { None })
    }

    /// The command line in a container, with the options that one needs and `more`.
    ///
    /// # Errors
    /// The pool would not be reachable from outside.
    fn in_container(&self, more: &[String]) -> Result<Vec<String>, Refused> {
        if let Some(Bind::Tcp { host, port }) = self.binds.iter().find(|bind| bind.is_loopback()) {
            return Err(format!("{host}:{port} is reachable inside its container only: -b 0.0.0.0:{port}"));
        }
        let mut added = more.to_vec();
        if self.binds.is_empty() && self.has_listener {
            added.push(format!("--bind=0.0.0.0:{CONTAINER_PORT}"));
        }
        if !self.has_workers {
            added.push("--workers=auto".to_owned());
        }
        if self.control == Control::Free {
            added.push(format!("--control-socket={CONTAINER_SOCKET}"));
        }
        if self.health_path.is_none() && !self.is_program {
            added.push(format!("--health-path={HEALTH_PATH}"));
        }
        Ok(self.command_line(&["mcsup".to_owned()], &added))
    }

    /// The path of the health check in a container; `None`: a program has none.
    fn health_in_container(&self) -> Option<&str> {
        let path = self.health_path.as_deref();
        // A probe has no certificate.
        if self.is_program || self.tls == Tls::WithClientCertificates {
            None
        } else {
            Some(path.unwrap_or(HEALTH_PATH))
        }
    }

    /// Comment lines that all kinds have, each behind `mark`.
    fn head(&self, mark: &str, kind: &str) -> String {
        let mut lines = format!("{mark}{MARK} {kind}`, mcsup {}.\n", env!("CARGO_PKG_VERSION"));
        for name in &self.ignored_variables {
            lines += &format!("{mark}{name} is set where this was printed; the service does not have it.\n");
        }
        lines
    }
}

/// Makes a service's name of any text: other characters become `-`.
pub(crate) fn name_of(text: &str) -> Option<String> {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = text.chars().map(|c| if is_kept(c) { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '_', '.']);
    (!name.is_empty()).then(|| name.chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::fixture::plan;
    use super::*;

    #[test]
    fn a_name_has_no_character_that_a_file_or_a_unit_cannot_have() {
        for (text, expected) in [
            ("server", Some("server")),
            ("my_shop.web", Some("my_shop.web")),
            ("a b/c", Some("a-b-c")),
            ("../etc", Some("etc")),
            ("Ümlaut", Some("mlaut")),
            ("--", None),
            ("", None),
        ] {
            assert_eq!(name_of(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_image_has_a_name_that_a_registry_accepts() {
        for (name, expected) in [("shop.web", "shop.web"), ("My_Shop", "my_shop"), ("a._-b--c", "a.b-c")] {
            assert_eq!(Plan { name: name.to_owned(), ..plan() }.image(), expected);
        }
    }

    #[test]
    fn a_service_manager_waits_longer_than_a_pool_drains() {
        let times = Times {
            before_boot: Duration::ZERO,
            boot: Duration::from_secs(60),
            reload: Duration::from_secs(90),
            drain_delay: Some(Duration::from_millis(2_500)),
            graceful: Duration::from_secs(30),
            on_exit: Duration::ZERO,
        };
        assert_eq!((times.stop_seconds(), times.boot_seconds(), times.start_seconds()), (43, 60, 100));
        let half_a_minute = Duration::from_secs(30);
        let hooked = Times { before_boot: 2 * half_a_minute, on_exit: half_a_minute, ..times };
        assert_eq!((hooked.stop_seconds(), hooked.boot_seconds(), hooked.start_seconds()), (73, 120, 160));
        let endless = Times { graceful: Duration::MAX, ..times };
        assert!(endless.stop_seconds() > 1 << 62);
    }

    #[test]
    fn added_options_stand_behind_the_subcommand_and_before_the_application() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (given, expected) in [
            (&["-w", "2", "a:b"][..], &["mcsup", "--x", "-w", "2", "a:b"][..]),
            (&["run", "a:b"], &["mcsup", "run", "--x", "a:b"]),
            (&["exec", "--", "run"], &["mcsup", "exec", "--x", "--", "run"]),
        ] {
            let plan = Plan { words: words(given), ..plan() };
            assert_eq!(plan.command_line(&words(&["mcsup"]), &words(&["--x"])), words(expected));
        }
    }
}
