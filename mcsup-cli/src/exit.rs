//! The exit codes of the command: one table, the same as `docs/EXIT_CODES.md`. Ends nothing itself.

use std::process::ExitCode;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done,
    /// The system refused something that was needed.
    Refused,
    /// The command line or a setting is wrong.
    Usage,
    /// No worker became ready.
    BootFailed,
    /// There is no application to serve.
    NotLoaded,
    /// The end was not as graceful as asked for.
    Killed,
    /// There is no server.
    NotRunning,
    /// There still is a server.
    LeftRunning,
    /// A newer request took the place of this one.
    Superseded,
    /// It is not over yet.
    Unfinished,
    /// The server has ended, and a process of it has not.
    Unkillable,
}

impl Exit {
    /// Every way to end, in the order of the codes.
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

    /// The number that the caller sees.
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

    /// The way to end that has this number; a number that is none of ours means that something was refused.
    pub fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Refused)
    }

    /// What the number means, as the table in `docs/EXIT_CODES.md` says it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => {
                "ended as asked; `status`: it runs; `stop`: it is stopped (processes that its application started \
                 may run on, and are named), or was not running; `--no-wait`: it was begun"
            }
            Exit::Refused => {
                "could not start or go on: an address, the pid file, a file, a permission; or the server refused a command"
            }
            Exit::Usage => "bad usage or settings; nothing was started",
            Exit::BootFailed => {
                "a worker could not boot: it died, hung or failed for a reason other than its application; `reload`, \
                 `upgrade`, `scale`, `recycle`: it failed for whatever reason, and nothing has changed"
            }
            Exit::NotLoaded => {
                "the application could not be loaded: no such module or attribute, not callable, or it raised"
            }
            Exit::Killed => "stopped, but workers had to be killed at the graceful timeout",
            Exit::NotRunning => "there is no server, or it ended before it answered; `status`: not running",
            Exit::LeftRunning => {
                "`stop`: a process of the pool is left running, or one of its ports is still held, and is named"
            }
            Exit::Superseded => "a newer request took the place of this one before it was done",
            Exit::Unfinished => "not finished within `--timeout`; it goes on",
            Exit::Unkillable => {
                "stopped, but a worker or mold is still there seconds after SIGKILL, and is named"
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

    /// The number and the meaning in each row `| code | meaning |` that begins with a number.
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
