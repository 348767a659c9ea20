//! The form of a line: `[2026-11-25 07:50:01 +0000] [PID] [LEVEL] message`.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use jiff::ZonedDateTime;
use log::{Level, Record};

use super::CRITICAL;

/// Formats one record. The process id is asked for each time, since a worker is a fork of the supervisor.
pub(super) fn write(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let now = ZonedDateTime::now();
    let time = now.strftime("%Y-%m-%d %H:%M:%S %z");
    writeln!(line, "[{time}] [{}] [{}] {}", std::process::id(), level(record), record.args())
}

/// gunicorn's names of the levels.
fn level(record: &Record<'_>) -> &'static str {
    match record.level() {
        Level::Error if record.target() == CRITICAL => "CRITICAL",
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}
