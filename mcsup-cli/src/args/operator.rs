//! The arguments of the commands for a running server.

use std::time::Duration;

use clap::{Args, Parser};

use crate::values;

/// Selects a server, and the form of its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct ServerArgs {
    /// The server's pid file; its control socket is beside it, with the extension `ctl`
    #[arg(short, long, value_name = "PIDFILE")]
    pub pid: Option<String>,
    /// The server's control socket, where it is not beside a pid file [env: MCSUP_CONTROL_SOCKET]
    #[arg(short = 's', long, value_name = "PATH")]
    pub control_socket: Option<String>,
    /// Longest time to wait, in seconds; a command that has begun continues [default: no limit; for `status` 10]
    #[arg(long, value_name = "SECS", value_parser = values::positive_seconds)]
    pub timeout: Option<Duration>,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Show the state of a server: exit code 0 if it runs, 6 if not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub(crate) struct StatusArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Stop a server gracefully, and return when all of its processes are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub(crate) struct StopArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Abort the requests in progress
    #[arg(long)]
    pub quick: bool,
    /// Return once the signal is sent
    #[arg(long)]
    pub no_wait: bool,
}

/// The arguments of every command that changes a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub(crate) struct ControlArgs {
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Return once the command has begun
    #[arg(long)]
    pub no_wait: bool,
}

/// Change the number of workers; the new number survives a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub(crate) struct ScaleArgs {
    /// Number of workers, 1 to 512
    #[arg(value_name = "N", value_parser = values::workers)]
    pub workers: usize,
    /// The server and how to wait.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Replace the worker of one slot; its successor is ready before it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub(crate) struct RecycleArgs {
    /// The worker's slot, as `mcsup status` shows it
    #[arg(value_name = "SLOT", value_parser = values::slot)]
    pub slot: usize,
    /// The server and how to wait.
    #[command(flatten)]
    pub control: ControlArgs,
}
