//! What the command does, a file for each kind of subcommand.

mod asking;
#[cfg(test)]
mod fixture;
mod leftovers;
pub(crate) mod operator;
mod pool;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod stop;
mod wiring;
