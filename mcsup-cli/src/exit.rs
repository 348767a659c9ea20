//! The exit codes of the command; `docs/EXIT_CODES.md` has the meaning of each.

use std::process::ExitCode;

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded.
    Done = 0,
    /// The system or the server refused a request.
    Refused = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// No worker became ready, or a reload, upgrade, scale or recycle failed.
    BootFailed = 3,
    /// The application could not be loaded.
    NotLoaded = 4,
    /// Workers were killed at the graceful timeout.
    Killed = 5,
    /// No server runs.
    NotRunning = 6,
    /// A process of the pool or a port is left after a stop.
    LeftRunning = 7,
    /// A newer request replaced this one.
    Superseded = 8,
    /// The command did not finish within its timeout.
    Unfinished = 9,
    /// The server ended, and SIGKILL did not end one of its processes.
    Unkillable = 10,
}

impl Exit {
    /// All results, in the order of their codes.
    pub(crate) const ALL: [Exit; 11] = [
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
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The result with this code; [`Exit::Refused`] for an unknown code.
    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Refused)
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

    /// The code of each row `| code | meaning |` that begins with a number and has a meaning.
    fn codes_in(document: &str) -> Vec<u8> {
        let row = |line: &str| {
            let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
            let code = cells.next()?.trim_matches('`').parse().ok()?;
            cells.next().filter(|meaning| !meaning.is_empty()).map(|_| code)
        };
        document.lines().filter_map(row).collect()
    }

    #[test]
    fn the_codes_count_up_from_zero() {
        assert_eq!(Exit::ALL.map(Exit::code).to_vec(), (0..11).collect::<Vec<u8>>());
    }

    #[test]
    fn the_documented_table_has_the_same_codes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EXIT_CODES.md");
        // A crate that was packaged alone has no documents beside it.
        let Ok(document) = std::fs::read_to_string(path) else { return };
        assert_eq!(codes_in(&document), Exit::ALL.map(Exit::code));
    }

    #[test]
    fn a_table_is_read_by_its_rows() {
        let document = "# Codes\n| code | meaning |\n|---|---|\n| 0 | fine |\n| `1` | not fine |\n| 2 | |\n";
        assert_eq!(codes_in(document), [0, 1]);
    }
}
