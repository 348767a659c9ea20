//! Operator commands over a Unix socket beside the pid file, one JSON object a line.
//!
//! - `protocol`: requests and replies, and their bytes; `status`: the status of a server in a reply.
//! - `server`: the supervisor's end, which never blocks; `session`: one of its clients.
//! - `client`: the other end, for commands and for other programs.
//! - `handle`: the same for the program that has the pool; `handle_end`: its end in the supervisor.
//!
//! The protocol is documented in `docs/CONTROL.md`.

mod client;
#[cfg(test)]
mod fixture;
pub(crate) mod handle;
pub(crate) mod handle_end;
pub(crate) mod protocol;
pub(crate) mod server;
mod session;
mod status;

pub use client::{AskError, Client, Peer};
pub use handle::{Handle, Ticket};
pub use protocol::{Command, Mistake, Outcome, Reply, Request};
pub use status::{Death, MoldStatus, SlotStatus, Status, WorkerStatus};

use std::path::{Path, PathBuf};

/// The path of the control socket that belongs to a pid file: its extension is `ctl`.
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
