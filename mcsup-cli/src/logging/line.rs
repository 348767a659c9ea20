//! The format of a log line: `[2026-11-25 07:50:01 +0000] [PID] [LEVEL] message`, or one JSON object.

use std::fmt;
use std::io::{self, Write};

use env_logger::fmt::Formatter;
use jiff::ZonedDateTime;
use log::{Level, Record};
use mcsup_py::targets::Severity;

use super::CRITICAL;

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// gunicorn's lines; a record may have several.
    #[default]
    Text,
    /// One JSON object for each record, on one line.
    Json,
}

impl Form {
    /// Formats one record. The process id is read each time: a fork changes it.
    pub(super) fn write(self, line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
        line.write_all(self.line(severity(record), record.args()).as_bytes())
    }

    /// A line that the log writes itself.
    pub(super) fn own(self, level: Level, text: &dyn fmt::Display) -> String {
        self.record(of_level(level), text)
    }

    /// A record of another logger.
    pub(super) fn record(self, severity: Severity, text: &dyn fmt::Display) -> String {
        self.line(severity, &format_args!("{text}"))
    }

    /// The application's own text. As text it is not changed.
    pub(super) fn application(self, text: &[u8]) -> Option<Vec<u8>> {
        if self == Form::Text {
            return None;
        }
        let text = String::from_utf8_lossy(text);
        // `print` writes the newline separately.
        Some(match text.trim_end_matches(['\r', '\n']) {
            "" => Vec::new(),
            text => json(&[("stream", "wsgi.errors"), ("message", text)]).into_bytes(),
        })
    }

    fn line(self, severity: Severity, text: &fmt::Arguments<'_>) -> String {
        if self == Form::Json {
            return json(&[("level", name(severity)), ("message", &text.to_string())]);
        }
        let now = ZonedDateTime::now();
        let time = now.strftime("%Y-%m-%d %H:%M:%S %z");
        format!("[{time}] [{}] [{}] {text}\n", std::process::id(), name(severity))
    }
}

/// An object with the time, the process and `fields`.
fn json(fields: &[(&str, &str)]) -> String {
    let time = ZonedDateTime::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
    let mut object = serde_json::Map::new();
    object.insert("time".to_owned(), time.into());
    object.insert("pid".to_owned(), std::process::id().into());
    for (name, value) in fields {
        object.insert((*name).to_owned(), (*value).into());
    }
    format!("{}\n", serde_json::Value::Object(object))
}

/// The importance of a record.
pub(super) fn severity(record: &Record<'_>) -> Severity {
    match record.level() {
        Level::Error if record.target() == CRITICAL => Severity::Critical,
        level => of_level(level),
    }
}

fn of_level(level: Level) -> Severity {
    match level {
        Level::Error => Severity::Error,
        Level::Warn => Severity::Warning,
        Level::Info => Severity::Info,
        Level::Debug | Level::Trace => Severity::Debug,
    }
}

/// gunicorn's names of the levels.
fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
        Severity::Debug => "DEBUG",
    }
}
