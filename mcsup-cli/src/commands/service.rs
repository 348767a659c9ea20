//! `mcsup service`: prints units and manifests, and installs a service of the current user.

mod environment;
mod install;
mod planning;
mod program;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use mcsup_core::host::processes;
use mcsup_core::upgrade::Image;

use crate::args::service::{KubernetesArgs, PoolArgs, ServiceAction, ServiceArgs, SystemdArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::service::systemd::Manager;
use crate::service::{Plan, docker, kubernetes, launchd, systemd};

/// The outcome of planning: a service, or the help that the words ask for.
enum Planned {
    Service(Box<Plan>),
    Help(String),
}

/// Prints what is asked for, or installs or uninstalls it; returns a text for standard output.
pub(crate) fn run(
    args: &ServiceArgs,
    argv: &[OsString],
    image: Option<&Image>,
) -> Result<(Exit, String), Failure> {
    processes::keep_statuses_of_children();
    let plan = |pool: &PoolArgs| planning::plan(pool, argv, image);
    let printed = |pool: &PoolArgs, text: &dyn Fn(&Plan) -> Result<String, Failure>| match plan(pool)? {
        Planned::Service(plan) => text(&plan),
        Planned::Help(help) => Ok(help),
    };
    let text = match &args.action {
        ServiceAction::Systemd(systemd) => printed(&systemd.pool, &|plan| unit(plan, systemd))?,
        ServiceAction::Launchd(pool) => {
            let logs = home()?.join("Library/Logs").to_string_lossy().into_owned();
            printed(pool, &|plan| launchd::agent(plan, &logs).map_err(Failure::usage))?
        }
        ServiceAction::Docker(pool) => printed(pool, &|plan| docker::file(plan).map_err(Failure::usage))?,
        ServiceAction::Kubernetes(KubernetesArgs { image, pool }) => {
            printed(pool, &|plan| kubernetes::manifests(plan, image.as_deref()).map_err(Failure::usage))?
        }
        ServiceAction::Install(args) => printed(&args.pool, &|plan| install::install(plan, !args.no_start))?,
        ServiceAction::Uninstall(args) => install::uninstall(&args.service_name)?,
    };
    Ok((Exit::Done, text))
}

fn unit(plan: &Plan, args: &SystemdArgs) -> Result<String, Failure> {
    if args.socket {
        return systemd::socket(plan, args.per_user).map_err(Failure::usage);
    }
    let version = args.systemd.or_else(systemd_version);
    systemd::service(plan, Manager { version, is_per_user: args.per_user }).map_err(Failure::usage)
}

/// The version of this host's systemd; `None`: it has none.
pub(super) fn systemd_version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// Parses `systemd 252 (252.38-1~deb12u1)`.
fn version_in(text: &str) -> Option<u32> {
    text.strip_prefix("systemd ")?.split_whitespace().next()?.split(['.', '~', '-']).next()?.parse().ok()
}

/// The home directory of the current user.
fn home() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    home.ok_or_else(|| Failure::refused("HOME does not name the home directory of the current user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_systemd_is_the_first_number() {
        for (text, expected) in [
            ("systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT", Some(252)),
            ("systemd 257.1-2 (x)", Some(257)),
            ("systemd 256~rc3", Some(256)),
            ("elogind 252", None),
            ("", None),
        ] {
            assert_eq!(version_in(text), expected, "{text}");
        }
    }
}
