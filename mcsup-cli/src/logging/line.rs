//! The format of a log line: `[2026-11-25 07:50:01 +0000] [PID] [LEVEL] message`.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use jiff::ZonedDateTime;
use log::{Level, Record};

use super::CRITICAL;

/// Formats one record. The process id is read each time: a fork changes it.
pub(super) fn write(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    line.write_all(format_level(level(record), record.args()).as_bytes())
}

/// A line that the log writes itself.
pub(super) fn format(level: Level, text: &str) -> String {
    format_level(name(level), &format_args!("{text}"))
}

fn format_level(level: &str, text: &std::fmt::Arguments<'_>) -> String {
    let now = ZonedDateTime::now();
    let time = now.strftime("%Y-%m-%d %H:%M:%S %z");
    format!("[{time}] [{}] [{level}] {text}\n", std::process::id())
}

fn level(record: &Record<'_>) -> &'static str {
    if record.level() == Level::Error && record.target() == CRITICAL {
        "CRITICAL"
    } else {
        name(record.level())
    }
}

/// gunicorn's names of the levels.
fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug | Level::Trace => "DEBUG",
    }
}
