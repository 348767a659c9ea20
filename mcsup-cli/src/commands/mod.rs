//! What the command does, a file for each subcommand.

mod pool;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod stop;
mod wiring;
