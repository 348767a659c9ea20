//! The listeners of a program under the common contracts: variables of its environment, and placeholders in
//! its arguments.
//!
//! | contract | variables |
//! |---|---|
//! | sd_listen_fds(3) | `LISTEN_FDS`, `LISTEN_FDNAMES`, and `LISTEN_PID`, which the new process sets |
//! | Einhorn | `EINHORN_FD_COUNT`, `EINHORN_FD_0` and so on, `EINHORN_CHILD_INDEX` |
//! | Server::Starter | `SERVER_STARTER_PORT`: `ADDRESS=FD`, separated by `;` |
//! | mcsup | `MCSUP_FDS`: `ADDRESS=FD`, separated by `,`; `MCSUP_SLOT` |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The number of the first listener's descriptor (sd_listen_fds(3): `SD_LISTEN_FDS_START`).
pub(super) const FIRST: usize = 3;

/// The variables of all contracts. A program gets none of them from the supervisor's own environment.
pub(super) fn is_ours(name: &OsStr) -> bool {
    const NAMES: [&str; 16] = [
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "SERVER_STARTER_PORT",
        "SERVER_STARTER_GENERATION",
        "MCSUP_FDS",
        "MCSUP_SLOT",
        "MCSUP_READY_FD",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "FDSTORE",
        "MCSUP_PASSED_SOCKETS",
        "MAINPID",
        "MANAGERPID",
    ];
    NAMES.iter().any(|ours| name == *ours) || name.as_bytes().starts_with(b"EINHORN_")
}

/// A listener of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    /// `HOST:PORT`, or `unix:PATH`.
    pub(super) address: String,
    pub(super) port: Option<u16>,
}

/// The slot of a worker and its listeners, in the order of their descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: usize,
    pub(super) listeners: Vec<Listening>,
}

impl Place {
    /// The number of the descriptor for reports.
    pub(super) fn ready_fd(&self) -> usize {
        FIRST + self.listeners.len()
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Listening)> {
        (FIRST..).zip(&self.listeners)
    }

    /// The variables about the listeners and the slot.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let count = self.listeners.len().to_string();
        let list = |entry: &dyn Fn(usize, &Listening) -> String, separator: &str| {
            let entries: Vec<String> = self.numbered().map(|(fd, listening)| entry(fd, listening)).collect();
            entries.join(separator)
        };
        let path_or_port =
            |fd, of: &Listening| format!("{}={fd}", of.address.strip_prefix("unix:").unwrap_or(&of.address));
        // The signs of the lists.
        let escaped = |text: &str| text.replace('%', "%25").replace(',', "%2C").replace('=', "%3D");
        let mut variables = vec![
            ("LISTEN_FDS".to_owned(), count.clone()),
            ("LISTEN_FDNAMES".to_owned(), list(&|_, of| of.address.replace(':', "-"), ":")),
            ("SERVER_STARTER_PORT".to_owned(), list(&path_or_port, ";")),
            ("MCSUP_FDS".to_owned(), list(&|fd, of| format!("{}={fd}", escaped(&of.address)), ",")),
            ("MCSUP_SLOT".to_owned(), self.slot.to_string()),
            ("EINHORN_FD_COUNT".to_owned(), count),
            ("EINHORN_CHILD_INDEX".to_owned(), self.slot.to_string()),
        ];
        for (index, (fd, _)) in self.numbered().enumerate() {
            variables.push((format!("EINHORN_FD_{index}"), fd.to_string()));
        }
        variables
    }

    /// Fills `{slot}`, `{fd}`, `{fd:N}`, `{port}`, `{port:N}`, `{address}` and `{address:N}` in. N counts the
    /// listeners from 0. Other text in braces stays.
    pub(super) fn fill(&self, text: &OsStr) -> OsString {
        let mut filled = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
            let (before, from) = rest.split_at(at);
            filled.extend_from_slice(before);
            let end = from.iter().position(|byte| *byte == b'}');
            let value =
                end.and_then(|end| Some((end, self.value(std::str::from_utf8(&from[1..end]).ok()?)?)));
            rest = match value {
                Some((end, value)) => {
                    filled.extend_from_slice(value.as_bytes());
                    &from[end + 1..]
                }
                None => {
                    filled.push(b'{');
                    &from[1..]
                }
            };
        }
        filled.extend_from_slice(rest);
        OsString::from_vec(filled)
    }

    fn value(&self, name: &str) -> Option<String> {
        let (name, index) =
            name.split_once(':').map_or((name, Some(0)), |(name, at)| (name, at.parse().ok()));
        if name == "slot" {
            return Some(self.slot.to_string());
        }
        let index: usize = index?;
        let listening = self.listeners.get(index)?;
        match name {
            "fd" => Some((FIRST + index).to_string()),
            "port" => listening.port.map(|port| port.to_string()),
            "address" => Some(listening.address.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let tcp = Listening { address: "127.0.0.1:8000".into(), port: Some(8000) };
        let unix = Listening { address: "unix:/run/a,b=c.sock".into(), port: None };
        Place { slot: 2, listeners: vec![tcp, unix] }
    }

    #[test]
    fn every_contract_names_every_listener() {
        let variables = place().variables();
        let value = |name: &str| {
            variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).unwrap()
        };
        assert_eq!(value("LISTEN_FDS"), "2");
        assert_eq!(value("LISTEN_FDNAMES"), "127.0.0.1-8000:unix-/run/a,b=c.sock");
        assert_eq!(value("SERVER_STARTER_PORT"), "127.0.0.1:8000=3;/run/a,b=c.sock=4");
        assert_eq!(value("MCSUP_FDS"), "127.0.0.1:8000=3,unix:/run/a%2Cb%3Dc.sock=4");
        assert_eq!(
            (value("EINHORN_FD_COUNT"), value("EINHORN_FD_0"), value("EINHORN_FD_1")),
            ("2", "3", "4")
        );
        assert_eq!((value("EINHORN_CHILD_INDEX"), value("MCSUP_SLOT")), ("2", "2"));
        assert!(variables.iter().all(|(name, _)| is_ours(name.as_ref())));
        assert!(is_ours("FDSTORE".as_ref()) && is_ours("MCSUP_PASSED_SOCKETS".as_ref()));
        assert!(!is_ours("PATH".as_ref()) && !is_ours("MCSUP_TEST".as_ref()));
        assert_eq!(place().ready_fd(), 5);
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_stay() {
        for (text, expected) in [
            ("--fd={fd:0}", "--fd=3"),
            ("{fd}{fd:1}", "34"),
            ("localhost:{port}/{slot}", "localhost:8000/2"),
            ("{address:1}", "unix:/run/a,b=c.sock"),
            ("{port:1} {fd:2} {fd:x}", "{port:1} {fd:2} {fd:x}"),
            (r#"{"key": {"slot": {slot}}}"#, r#"{"key": {"slot": 2}}"#),
            ("{", "{"),
            ("${HOME}", "${HOME}"),
        ] {
            assert_eq!(place().fill(text.as_ref()), expected, "{text}");
        }
        let raw = OsStr::from_bytes(b"\xff{slot}");
        assert_eq!(place().fill(raw).as_bytes(), b"\xff2");
    }
}
