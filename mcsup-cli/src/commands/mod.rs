//! What the command does, a file for each subcommand.

pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod stop;
