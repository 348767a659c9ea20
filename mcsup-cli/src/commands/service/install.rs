//! `mcsup service install` and `uninstall`: a file in the user's home, and commands of the service manager.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{home, systemd_version};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::service::systemd::Manager;
use crate::service::{Control, MARK, Plan, launchd, systemd};

/// Number of lines in which a file of this command has its mark.
const MARK_LINES: usize = 5;

/// A service manager of the current user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Systemd,
    Launchd {
        /// The user's id.
        uid: u32,
    },
}

/// A command of the service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    words: Vec<String>,
    /// Whether a failure has no meaning, as that of a stop of a service that does not run.
    may_fail: bool,
    /// Whether it starts the service, so that the service's own log has the reason of a failure.
    is_start: bool,
}

impl Step {
    fn new(words: &[&str]) -> Self {
        Self {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            may_fail: false,
            is_start: false,
        }
    }

    fn that_starts(self) -> Self {
        Self { is_start: true, ..self }
    }

    fn that_may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }
}

impl Host {
    fn of_this_system() -> Self {
        if cfg!(target_vendor = "apple") {
            Self::Launchd { uid: rustix::process::geteuid().as_raw() }
        } else {
            Self::Systemd
        }
    }

    /// The file of a service.
    fn file(self, home: &Path, config: &Path, name: &str) -> PathBuf {
        match self {
            Self::Systemd => config.join(format!("systemd/user/{name}.service")),
            Self::Launchd { .. } => home.join(format!("Library/LaunchAgents/{name}.plist")),
        }
    }

    /// The commands behind a new file.
    fn install_steps(self, name: &str, file: &Path, starts: bool) -> Vec<Step> {
        match self {
            Self::Systemd => {
                let unit = format!("{name}.service");
                let mut steps = vec![
                    Step::new(&["systemctl", "--user", "daemon-reload"]),
                    Step::new(&["systemctl", "--user", "enable", &unit]),
                ];
                if starts {
                    // One that runs gets the new unit.
                    steps.push(Step::new(&["systemctl", "--user", "restart", &unit]).that_starts());
                }
                steps
            }
            Self::Launchd { uid } => {
                let (domain, target) = (format!("gui/{uid}"), format!("gui/{uid}/{name}"));
                let file = file.to_string_lossy();
                let mut steps = vec![Step::new(&["launchctl", "enable", &target])];
                if starts {
                    steps.push(Step::new(&["launchctl", "bootout", &target]).that_may_fail());
                    steps.push(Step::new(&["launchctl", "bootstrap", &domain, &file]).that_starts());
                }
                steps
            }
        }
    }

    /// Whether a service runs, as far as its manager answers.
    fn runs(self, name: &str) -> bool {
        match self {
            Self::Systemd => {
                let unit = format!("{name}.service");
                perform(&Step::new(&["systemctl", "--user", "is-active", "--quiet", &unit])).is_ok()
            }
            Self::Launchd { .. } => false,
        }
    }

    /// Removes the link that starts the service at a login, if a manager that did not answer has left it.
    fn forget_start(self, config: &Path, name: &str) {
        if self == Self::Systemd {
            let link = config.join(format!("systemd/user/default.target.wants/{name}.service"));
            if link.is_symlink() {
                // One that stays names a unit that is gone, which systemd passes over.
                let _ = fs::remove_file(&link);
            }
        }
    }

    /// The commands before the removal of a file, and behind it.
    fn uninstall_steps(self, name: &str) -> (Vec<Step>, Vec<Step>) {
        match self {
            Self::Systemd => {
                let unit = format!("{name}.service");
                let forget = Step::new(&["systemctl", "--user", "reset-failed", &unit]).that_may_fail();
                (
                    vec![Step::new(&["systemctl", "--user", "disable", "--now", &unit])],
                    vec![Step::new(&["systemctl", "--user", "daemon-reload"]), forget],
                )
            }
            Self::Launchd { uid } => {
                let target = format!("gui/{uid}/{name}");
                (vec![Step::new(&["launchctl", "bootout", &target]).that_may_fail()], Vec::new())
            }
        }
    }
}

/// Installs the service; returns the text for standard output.
pub(super) fn install(plan: &Plan, starts: bool) -> Result<String, Failure> {
    let host = Host::of_this_system();
    let (home, config) = places()?;
    let file = host.file(&home, &config, &plan.name);
    let logs = home.join("Library/Logs").to_string_lossy().into_owned();
    let text = match host {
        Host::Systemd => systemd::service(plan, Manager { version: systemd_version(), is_per_user: true }),
        Host::Launchd { .. } => launchd::agent(plan, &logs),
    }
    .map_err(Failure::usage)?;
    replace(&file, &text)?;
    for step in host.install_steps(&plan.name, &file, starts) {
        perform(&step).map_err(|reason| {
            let log = match host {
                Host::Systemd if step.is_start => format!("; see journalctl --user -u {}", plan.name),
                // The unit has no line yet: the manager itself has refused.
                Host::Systemd => "; see journalctl --user".to_owned(),
                Host::Launchd { .. } if step.is_start => format!("; see {logs}/{}.log", plan.name),
                Host::Launchd { .. } => String::new(),
            };
            let text = format!("installed {}, but {reason}{log}", file.display());
            Failure::new(Exit::BootFailed, text)
        })?;
    }
    let done = if starts { "installed and started" } else { "installed" };
    Ok(format!("{done}: {}\n{}", file.display(), advice(plan, host, &logs)))
}

/// Uninstalls the service of a name; returns the text for standard output.
pub(super) fn uninstall(name: &str) -> Result<String, Failure> {
    let host = Host::of_this_system();
    if crate::service::name_of(name).as_deref() != Some(name) {
        return Err(Failure::usage(format!("{name:?} is no name of a service")));
    }
    let (home, config) = places()?;
    let file = host.file(&home, &config, name);
    match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(format!("not installed: {name} (there is no {})\n", file.display()));
        }
        Err(error) => return Err(Failure::refused(format!("cannot read {}: {error}", file.display()))),
        Ok(text) if !is_ours(&text) => return Err(foreign(&file)),
        Ok(_) => {}
    }
    let (before, behind) = host.uninstall_steps(name);
    let stopped = before.iter().try_for_each(perform);
    if let (Err(reason), true) = (&stopped, host.runs(name)) {
        return Err(Failure::refused(reason.as_str()));
    }
    fs::remove_file(&file)
        .map_err(|error| Failure::refused(format!("cannot remove {}: {error}", file.display())))?;
    host.forget_start(&config, name);
    let Err(reason) = stopped else {
        behind.iter().try_for_each(perform).map_err(Failure::refused)?;
        return Ok(format!("stopped and removed: {}\n", file.display()));
    };
    Ok(format!("removed: {}\nthe service manager does not know the service: {reason}\n", file.display()))
}

/// The home directory, and that of the configuration.
fn places() -> Result<(PathBuf, PathBuf), Failure> {
    let home = home()?;
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.unwrap_or_else(|| home.join(".config"));
    Ok((home, config))
}

/// Lines for the operator.
fn advice(plan: &Plan, host: Host, logs: &str) -> String {
    let name = &plan.name;
    let socket = match (&plan.control, host) {
        (Control::Free, Host::Systemd) => Some(format!("$XDG_RUNTIME_DIR/{name}/mcsup.ctl")),
        (Control::Free, Host::Launchd { .. }) => launchd::control_socket(plan, logs),
        (Control::At(path), _) => Some(Path::new(&plan.directory).join(path).to_string_lossy().into_owned()),
        (Control::Off, _) => None,
    };
    let mut lines =
        socket.map(|path| format!("its state: mcsup status -s {}\n", quoted(&path))).unwrap_or_default();
    if host == Host::Systemd {
        lines += &format!("its log: journalctl --user -u {name}\n");
        lines += "to run without a login: loginctl enable-linger\n";
    }
    lines + &format!("to remove it: mcsup service uninstall {name}\n")
}

/// A word of a shell, in which variables are expanded.
fn quoted(path: &str) -> String {
    if path.contains(' ') { format!("\"{path}\"") } else { path.to_owned() }
}

/// Whether this command has printed the text.
fn is_ours(text: &str) -> bool {
    text.lines().take(MARK_LINES).any(|line| line.contains(MARK))
}

fn foreign(file: &Path) -> Failure {
    Failure::refused(format!("{} is not of this command: it stays as it is", file.display()))
}

/// Writes a file of this command, and replaces an older one as a whole.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::refused(format!("cannot write {}: {error}", file.display()));
    match fs::read_to_string(file) {
        Ok(old) if !is_ours(&old) => return Err(foreign(file)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let new = folder.join(format!(".mcsup-{}.new", std::process::id()));
    let written = fs::File::create_new(&new)
        .and_then(|mut created| created.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, file));
    written.map_err(|error| {
        // The error is that of the first step that failed.
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

/// Runs a command, whose messages go to standard error.
fn perform(step: &Step) -> Result<(), String> {
    let (program, arguments) = step.words.split_first().ok_or("no command")?;
    let line = step.words.join(" ");
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if output.status.success() || step.may_fail {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let reason = if reason.is_empty() { output.status.to_string() } else { reason };
    Err(format!("`{line}` failed: {reason}"))
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
