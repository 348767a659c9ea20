//! `mcsup reload`, `upgrade`, `scale`, `recycle` and `reopen-logs`: one question to the server, whose answer is the
//! outcome.

use mcsup_core::control::Command;

use super::asking;
use crate::args::operator::OrderArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// Has the server do it.
pub(crate) fn run(command: Command, args: &OrderArgs) -> Result<(Exit, String), Failure> {
    let reply = asking::ask(&args.server, command, !args.no_wait)?;
    asking::judge(&reply, &args.server)
}

#[cfg(test)]
#[path = "operator_tests.rs"]
mod tests;
