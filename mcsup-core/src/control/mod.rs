//! What an operator says to a supervisor and hears from it: a Unix socket beside the pid file, one JSON object a line.
//!
//! - [`protocol`]: what is asked and answered, and its bytes; also what a status is made of.
//! - `server`: the supervisor's end. Never blocks, and never fails the supervisor.
//! - [`client`]: the other end, for commands and for other programs.
//!
//! The protocol is documented in `docs/CONTROL.md`.

pub mod client;
#[cfg(test)]
mod fixture;
pub mod protocol;
pub(crate) mod server;

pub use client::{AskError, Client, Peer};
pub use protocol::{
    Command, Death, Mistake, MoldStatus, Outcome, Reply, Request, SlotStatus, Status, WorkerStatus,
};

use std::path::{Path, PathBuf};

/// Where the control socket of the server with this pid file is: beside it, with the extension `ctl`.
pub fn path_beside(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("ctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_beside_the_pid_file() {
        for (pid_file, socket) in
            [("/run/app.pid", "/run/app.ctl"), ("app", "app.ctl"), ("run/a.b.pid", "run/a.b.ctl")]
        {
            assert_eq!(path_beside(Path::new(pid_file)), Path::new(socket));
        }
    }
}
