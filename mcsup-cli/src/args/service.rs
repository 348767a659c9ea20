//! The arguments of `mcsup service`.

use clap::{Args, Parser, Subcommand};

use crate::values;

/// Print a unit or manifest that runs a server as a service, or install one for the current user.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
pub(crate) struct ServiceArgs {
    /// The kind of service.
    #[command(subcommand)]
    pub action: ServiceAction,
}

/// The kinds of services.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum ServiceAction {
    /// Print a unit for systemd
    Systemd(SystemdArgs),
    /// Print a property list for launchd
    Launchd(PoolArgs),
    /// Print a Dockerfile for the application in this directory
    Docker(PoolArgs),
    /// Print manifests for Kubernetes: Deployment, Service, PodDisruptionBudget, HorizontalPodAutoscaler
    Kubernetes(KubernetesArgs),
    /// Install a service of the current user, and start it: by systemd, on macOS by launchd
    Install(InstallArgs),
    /// Stop a service of the current user, and remove it
    Uninstall(UninstallArgs),
}

/// A server to run as a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct PoolArgs {
    /// Name of the service [default: --name, or the module of the application]
    #[arg(long, value_name = "NAME")]
    pub service_name: Option<String>,
    /// Options and application as for `mcsup run`, or `exec` with those of `mcsup exec`; the options of `mcsup service`
    /// stand before them
    #[arg(value_name = "OPTIONS APP", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// The arguments of `mcsup service systemd`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct SystemdArgs {
    /// A unit of one user's manager, `systemctl --user`, and not of the system
    #[arg(long)]
    pub per_user: bool,
    /// The unit of the listening sockets, which systemd then holds while the service is stopped
    #[arg(long)]
    pub socket: bool,
    /// The version of systemd that runs the unit [default: that of this host, or a new one]
    #[arg(long, value_name = "VERSION", value_parser = values::version)]
    pub systemd: Option<u32>,
    /// The server.
    #[command(flatten)]
    pub pool: PoolArgs,
}

/// The arguments of `mcsup service kubernetes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct KubernetesArgs {
    /// The image of the container; a program needs the option [default: NAME:latest for an application]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The server.
    #[command(flatten)]
    pub pool: PoolArgs,
}

/// The arguments of `mcsup service install`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct InstallArgs {
    /// Install it for the next login, without a start
    #[arg(long)]
    pub no_start: bool,
    /// The server.
    #[command(flatten)]
    pub pool: PoolArgs,
}

/// The arguments of `mcsup service uninstall`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct UninstallArgs {
    /// Name of the service, as `mcsup service install` has printed it
    #[arg(value_name = "NAME")]
    pub service_name: String,
}
