//! The exit codes of the command: one table, the same as `docs/EXIT_CODES.md`.

use std::process::ExitCode;

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded.
    Done,
    /// The system or the server refused a request.
    Refused,
    /// The command line or a setting is wrong.
    Usage,
    /// No worker became ready, or a reload, upgrade, scale or recycle failed.
    BootFailed,
    /// The application could not be loaded.
    NotLoaded,
    /// Workers were killed at the graceful timeout.
    Killed,
    /// No server runs.
    NotRunning,
    /// A process of the pool or a port is left after a stop.
    LeftRunning,
    /// A newer request replaced this one.
    Superseded,
    /// The command did not finish within its timeout.
    Unfinished,
    /// The server ended, and SIGKILL did not end one of its processes.
    Unkillable,
}

impl Exit {
    /// All results, in the order of their codes.
    pub const ALL: [Exit; 11] = [
        Exit::Done,
        Exit::Refused,
        Exit::Usage,
        Exit::BootFailed,
        Exit::NotLoaded,
        Exit::Killed,
        Exit::NotRunning,
        Exit::LeftRunning,
        Exit::Superseded,
        Exit::Unfinished,
        Exit::Unkillable,
    ];

    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::BootFailed => 3,
            Exit::NotLoaded => 4,
            Exit::Killed => 5,
            Exit::NotRunning => 6,
            Exit::LeftRunning => 7,
            Exit::Superseded => 8,
            Exit::Unfinished => 9,
            Exit::Unkillable => 10,
        }
    }

    /// The result with this code; [`Exit::Refused`] for an unknown code.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Refused)
    }

    /// The meaning of the code, in the words of `docs/EXIT_CODES.md`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => {
                "success; `status`: the server runs; `stop`: the server is stopped (processes that its application \
                 started may still run, and are named), or was not running; `--no-wait`: the command has begun"
            }
            Exit::Refused => {
                "the server could not start or continue: an address, the pid file, a file, a permission; or the \
                 server refused a command"
            }
            Exit::Usage => "wrong usage or settings; nothing was started",
            Exit::BootFailed => {
                "a worker could not boot: it died, hung or failed for a reason other than its application; `reload`, \
                 `upgrade`, `scale`, `recycle`: the command failed for any reason, and nothing has changed"
            }
            Exit::NotLoaded => {
                "the application could not be loaded: no such module or attribute, not callable, or an exception"
            }
            Exit::Killed => "stopped, but workers had to be killed at the graceful timeout",
            Exit::NotRunning => "no server runs, or the server ended before it answered",
            Exit::LeftRunning => {
                "`stop`: a process of the pool still runs, or a port is still held; the message names it"
            }
            Exit::Superseded => "a newer request replaced this one before it was done",
            Exit::Unfinished => "not finished within `--timeout`; the command continues",
            Exit::Unkillable => {
                "stopped, but SIGKILL did not end a worker or mold within seconds; the log names it"
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Code and meaning of each row `| code | meaning |` that begins with a number.
    fn rows(document: &str) -> Vec<(u8, String)> {
        let row = |line: &str| {
            let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.trim_matches('`').parse().ok()?, cells.next()?.to_owned()))
        };
        document.lines().filter_map(row).collect()
    }

    #[test]
    fn the_codes_count_up_from_zero() {
        let codes: Vec<u8> = Exit::ALL.map(Exit::code).to_vec();
        assert_eq!(codes, (0..11).collect::<Vec<u8>>());
    }

    #[test]
    fn the_documented_table_says_the_same() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EXIT_CODES.md");
        // A crate that was packaged alone has no documents beside it.
        let Ok(document) = std::fs::read_to_string(path) else { return };
        let ours = Exit::ALL.map(|exit| (exit.code(), exit.meaning().to_owned()));
        assert_eq!(rows(&document), ours);
    }

    #[test]
    fn a_table_is_read_by_its_rows() {
        let document = "# Codes\n| code | meaning |\n|---|---|\n| 0 | fine |\n| `1` | not fine |\n";
        assert_eq!(rows(document), [(0, "fine".to_owned()), (1, "not fine".to_owned())]);
    }
}
