//! `mcsup reload`, `upgrade`, `scale`, `recycle` and `reopen-logs`: one request to the control socket.

use mcsup_core::control::Command;

use super::client;
use crate::args::operator::ControlArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Sends the command and returns its outcome.
pub(crate) fn run(command: Command, args: &ControlArgs) -> Result<(Exit, String), Failure> {
    let reply = client::request(&args.server, command, !args.no_wait)?;
    client::result(&reply, &args.server)
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
