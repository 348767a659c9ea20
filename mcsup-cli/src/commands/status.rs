//! `mcsup status`: whether a server runs, and which processes it consists of.

use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;

use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::failure::Failure;

/// What is known about the server that holds the pid file.
pub(crate) fn run(args: &StatusArgs) -> Result<(Exit, String), Failure> {
    let Running::Pid(pid) = PidFile::running(args.pid.as_ref())? else {
        return Ok((Exit::NotRunning, "not running".to_owned()));
    };
    let mut text = format!("running: {}", processes::describe(pid));
    for address in processes::listening_addresses(pid) {
        text.push_str(&format!("\nlistening: {address}"));
    }
    for worker in processes::children_of(pid) {
        text.push_str(&format!("\nworker: pid {worker}"));
    }
    Ok((Exit::Done, text))
}
