//! The arguments of `mcsup doctor`.

use clap::Parser;

/// Examine this host for a server: the kernel, limits, ports, processes of other servers, and units of systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
pub(crate) struct DoctorArgs {
    /// Unit of systemd to examine, with its drop-ins; repeatable [default: the units of this host that run mcsup]
    #[arg(long, value_name = "FILE")]
    pub unit: Vec<String>,
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Options of `mcsup run`, or `exec` and those of `mcsup exec`, that the server will have; the options of `mcsup
    /// doctor` stand before them
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
