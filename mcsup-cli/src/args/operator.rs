//! The words of the commands that go to a server which runs.

use std::time::Duration;

use clap::{Args, Parser};

use crate::settings::values;

/// Which server is meant, and how the answer is to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ServerArgs {
    /// The server's pid file; its control socket is beside it, with the extension `ctl`
    #[arg(short, long, value_name = "PIDFILE")]
    pub pid: Option<String>,
    /// The server's control socket, where it is not beside a pid file [env: MCSUP_CONTROL_SOCKET]
    #[arg(short = 's', long, value_name = "PATH")]
    pub control_socket: Option<String>,
    /// Seconds to wait at most; what was begun goes on [default: until there is an outcome; for `status` 10]
    #[arg(long, value_name = "SECS", value_parser = values::positive_seconds)]
    pub timeout: Option<Duration>,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Say how a server is: exit code 0 if it runs, 6 if not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct StatusArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Stop a server gracefully, and return when all of its processes are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct StopArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Break off the requests that it is at
    #[arg(long)]
    pub quick: bool,
    /// Return once it was asked
    #[arg(long)]
    pub no_wait: bool,
}

/// What every command has that changes something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct OrderArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Return once it was begun
    #[arg(long)]
    pub no_wait: bool,
}

/// Change the number of workers; it survives a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct ScaleArgs {
    /// How many workers, 1 to 512
    #[arg(value_name = "N", value_parser = values::workers)]
    pub workers: usize,
    /// The rest.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Replace the worker in one place of the pool; its successor is ready before it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct RecycleArgs {
    /// The worker's place, as `mcsup status` shows it
    #[arg(value_name = "SLOT")]
    pub slot: usize,
    /// The rest.
    #[command(flatten)]
    pub order: OrderArgs,
}
