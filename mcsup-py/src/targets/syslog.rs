//! Messages for syslog (RFC 3164), in the form of Python's `SysLogHandler` with gunicorn's format.

use std::io::{self, Write as _};
use std::time::Duration;

use super::address::Address;
use super::link::{Link, Report};

/// A longer message is cut: a datagram of IPv4 has room for no more.
const LONGEST: usize = 60_000;

/// The importance of a message (RFC 5424 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A critical condition.
    Critical = 2,
    /// An error.
    Error = 3,
    /// A warning.
    Warning = 4,
    /// Normal operation.
    Info = 6,
    /// For developers.
    Debug = 7,
}

/// The part of a system that a message comes from (RFC 5424 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// The names that gunicorn takes.
const FACILITIES: [(&str, u8); 21] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("security", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Facility {
    /// The facility of a name, in any case.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = FACILITIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, code)| Self(*code)).ok_or_else(|| {
            let names: Vec<&str> = FACILITIES.iter().map(|(name, _)| *name).collect();
            format!("{name:?} is no facility of syslog: expected one of {}", names.join(", "))
        })
    }
}

/// One log's way to syslog.
#[derive(Debug)]
pub struct Syslog {
    link: Link,
    facility: Facility,
    /// The program's name in each message.
    tag: String,
}

impl Syslog {
    /// A log to `address` with `tag` as the program's name.
    ///
    /// # Errors
    /// The host has no address.
    pub fn open(address: Address, facility: Facility, tag: String) -> io::Result<Self> {
        Ok(Self { link: Link::open(address)?, facility, tag })
    }

    /// A further log at the same place with its own `tag`, without another look for the host's address.
    pub fn beside(&self, tag: String) -> Self {
        Self { link: self.link.beside(), facility: self.facility, tag }
    }

    /// Sends one message.
    #[must_use = "a report belongs into the error log"]
    pub fn send(&self, severity: Severity, text: &[u8]) -> Option<Report> {
        self.link.send(&self.message(severity, text))
    }

    /// Sends messages that wait for a stream.
    #[must_use = "a report belongs into the error log"]
    pub fn drive(&self) -> Option<Report> {
        self.link.drive()
    }

    /// Sends messages that wait for a stream, and waits for that for `limit` at most.
    #[must_use = "a report belongs into the error log"]
    pub fn flush(&self, limit: Duration) -> Option<Report> {
        self.link.flush(limit)
    }

    /// Whether messages wait for a stream.
    pub fn has_waiting(&self) -> bool {
        self.link.has_waiting()
    }

    fn message(&self, severity: Severity, text: &[u8]) -> Vec<u8> {
        let text = text.get(..LONGEST).unwrap_or(text);
        let mut message = Vec::with_capacity(text.len() + 64);
        let priority = self.facility.0 * 8 + severity as u8;
        // Writing to a vector cannot fail.
        let _ = write!(message, "<{priority}>{}: [{}] ", self.tag, std::process::id());
        message.extend_from_slice(text);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_priority_the_programs_name_and_the_process() {
        let address = Address::syslog("udp://127.0.0.1:9").unwrap();
        let facility = Facility::parse("LOCAL3").unwrap();
        let syslog = Syslog::open(address, facility, "gunicorn.app.error".to_owned()).unwrap();
        let message = String::from_utf8(syslog.message(Severity::Warning, b"hello\nworld")).unwrap();
        assert_eq!(message, format!("<156>gunicorn.app.error: [{}] hello\nworld", std::process::id()));
        assert!(syslog.message(Severity::Info, &[b'x'; 100_000]).len() < 61_000);
    }

    #[test]
    fn an_unknown_facility_is_refused_with_the_names() {
        let error = Facility::parse("locl0").unwrap_err();
        assert!(error.contains("\"locl0\"") && error.contains("local0, local1"), "{error}");
    }
}
