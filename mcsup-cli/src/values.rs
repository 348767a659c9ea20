//! Parses the text of values and checks their ranges.
//!
//! An error completes the sentence "this value was refused: …". `settings/sources` adds the source of the value.

mod static_route;
mod worker_class;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mcsup_core::host::processors;
use mcsup_core::policy::Surge;
use mcsup_core::{Address, Error, MoldThreads};
use mcsup_py::ReloadEngine;
use mcsup_py::conf::Source;
use mcsup_py::engine::ServerField;

use crate::logging::{Destination, Level};
pub(crate) use static_route::static_route;
pub(crate) use worker_class::{Beside, worker_class};

/// Largest number of workers: the length of the scoreboard.
const MOST_WORKERS: usize = 512;

/// Longest time: in effect unlimited, and too short to overflow a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The reason why a value is refused.
pub(crate) type Refused = String;

/// Parses a whole decimal number in a range.
pub(crate) fn whole<T>(text: &str, range: RangeInclusive<T>) -> Result<T, Refused>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a whole number".to_owned());
    }
    // Digits that do not fit the type are out of range as well.
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("not from {} to {}", range.start(), range.end())),
    }
}

/// Parses a limit; 0 means `most`, and so does a larger number, as with gunicorn.
pub(crate) fn limit<T>(text: &str, most: T) -> Result<T, Refused>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy + Default,
{
    let none = T::default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match whole(text, none..=most) {
        Ok(limit) if limit != none => Ok(limit),
        Err(refused) if !is_number => Err(refused),
        _ => Ok(most),
    }
}

/// Parses a number of workers.
pub(crate) fn workers(text: &str) -> Result<usize, Refused> {
    whole(text, 1..=MOST_WORKERS)
}

/// Parses the number of a slot.
pub(crate) fn slot(text: &str) -> Result<usize, Refused> {
    whole(text, 0..=MOST_WORKERS - 1)
}

/// Parses the version of systemd: a whole number.
pub(crate) fn version(text: &str) -> Result<u32, Refused> {
    whole(text, 1..=u32::MAX)
}

/// Parses a number of workers, or `auto`: one for each processor that this process may use now.
pub(crate) fn workers_or_auto(text: &str) -> Result<usize, Refused> {
    if text == "auto" { Ok(processors::available().get().min(MOST_WORKERS)) } else { workers(text) }
}

/// Parses the extra workers of a reload: a number, or `all`.
pub(crate) fn surge(text: &str) -> Result<Surge, Refused> {
    match text {
        "all" => Ok(Surge::All),
        _ if text.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
            Err("expected a whole number or the word all".to_owned())
        }
        _ => workers(text).map(Surge::Extra),
    }
}

/// Parses any whole number from 0.
pub(crate) fn count(text: &str) -> Result<u64, Refused> {
    whole(text, 0..=u64::MAX)
}

/// Parses a whole number; 0 turns the limit off.
pub(crate) fn count_or_off(text: &str) -> Result<Option<u64>, Refused> {
    count(text).map(|count| Some(count).filter(|count| *count != 0))
}

/// Parses an amount of memory: bytes, or KiB, MiB or GiB by their first letter.
pub(crate) fn bytes(text: &str) -> Result<u64, Refused> {
    let unit = match text.as_bytes().last() {
        Some(b'K' | b'k') => 1 << 10,
        Some(b'M' | b'm') => 1 << 20,
        Some(b'G' | b'g') => 1 << 30,
        _ => 1,
    };
    let digits = if unit == 1 { text } else { &text[..text.len() - 1] };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a whole number of bytes, such as 1048576, 512K, 256M or 1G".to_owned());
    }
    let bytes = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("more than {} bytes", u64::MAX))
}

/// Parses an amount of memory; 0 turns the limit off.
pub(crate) fn bytes_or_off(text: &str) -> Result<Option<u64>, Refused> {
    bytes(text).map(|bytes| Some(bytes).filter(|bytes| *bytes != 0))
}

/// Parses a number of threads; 0 means one, as with gunicorn.
pub(crate) fn threads(text: &str, most: usize) -> Result<usize, Refused> {
    whole(text, 0..=most).map(|count| count.max(1))
}

/// Parses a time in seconds, with or without a fraction; 0 is allowed. A longer one than [`LONGEST`] is [`LONGEST`].
pub(crate) fn seconds(text: &str) -> Result<Duration, Refused> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    let number: f64 = text.parse().ok().filter(|_| plain).ok_or("not a number of seconds")?;
    if number.is_sign_negative() && number != 0.0 {
        return Err("less than 0 seconds".to_owned());
    }
    Ok(Duration::try_from_secs_f64(number.abs()).map_or(LONGEST, |time| time.min(LONGEST)))
}

/// Parses a time in seconds that is more than 0.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, Refused> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than 0 seconds".to_owned()),
        time => Ok(time),
    }
}

/// Parses a time in seconds; 0 turns the limit off.
pub(crate) fn seconds_or_off(text: &str) -> Result<Option<Duration>, Refused> {
    seconds(text).map(|time| Some(time).filter(|time| !time.is_zero()))
}

/// The shortest liveness timeout: a worker shows a sign of life twice a second.
const SHORTEST_LIVENESS: Duration = Duration::from_secs(1);

/// Parses the liveness timeout in seconds; 0 turns it off.
pub(crate) fn liveness_or_off(text: &str) -> Result<Option<Duration>, Refused> {
    match seconds_or_off(text)? {
        Some(time) if time < SHORTEST_LIVENESS => {
            Err("must be 0 or at least 1: a worker shows a sign of life twice a second".to_owned())
        }
        time => Ok(time),
    }
}

/// Parses permission bits in octal: `007`, `0o007`, or one digit.
///
/// `22` without a leading 0 is refused: it is decimal for gunicorn and octal elsewhere.
pub(crate) fn umask(text: &str) -> Result<u32, Refused> {
    let digits = match text.strip_prefix("0o").or_else(|| text.strip_prefix("0O")) {
        Some(digits) => digits,
        None if text.len() == 1 || text.starts_with('0') => text,
        None if !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) => {
            return Err(format!("octal or decimal? Write 0{text} if octal"));
        }
        None => text,
    };
    if digits.is_empty() || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return Err("not an octal number such as 007".to_owned());
    }
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|bits| *bits <= 0o777)
        .ok_or_else(|| "not from 0 to 0777".to_owned())
}

/// The owner of a Unix socket: a user, a group, or both, by name or number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SocketOwner {
    /// The user.
    pub user: Option<String>,
    /// The group.
    pub group: Option<String>,
}

/// Parses `USER`, `USER:GROUP` or `:GROUP`, as chown(1) does.
pub(crate) fn socket_owner(text: &str) -> Result<SocketOwner, Refused> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    let owner = SocketOwner { user: name(user), group: group.and_then(name) };
    match (&owner, group) {
        (SocketOwner { user: None, group: None }, _) | (SocketOwner { group: None, .. }, Some(_)) => {
            Err("expected USER, USER:GROUP or :GROUP".to_owned())
        }
        _ => Ok(owner),
    }
}

/// Parses an address to listen on.
pub(crate) fn address(text: &str) -> Result<Address, Refused> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// Parses `NAME=VALUE`; the value may be empty and may contain `=`.
pub(crate) fn variable(text: &str) -> Result<(String, String), Refused> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Splits directories at commas and skips empty ones.
pub(crate) fn directories(text: &str) -> Result<Vec<String>, Refused> {
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Accepts any text that is not empty.
pub(crate) fn text(text: &str) -> Result<String, Refused> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// Parses the path of a file or directory.
pub(crate) fn path(value: &str) -> Result<PathBuf, Refused> {
    text(value).map(PathBuf::from)
}

/// Parses the path of a request target, without a query.
pub(crate) fn request_path(path: &str) -> Result<String, Refused> {
    if !path.starts_with('/') {
        return Err("it must begin with /".to_owned());
    }
    if path.contains(|c: char| c == '?' || c.is_whitespace() || c.is_control()) {
        return Err("it may hold no ? and no white space".to_owned());
    }
    Ok(path.to_owned())
}

/// Parses the value of the field Server; an empty text: no field.
pub(crate) fn server_field(text: &str) -> Result<ServerField, Refused> {
    ServerField::new(text).ok_or_else(|| "expected printable ASCII, without spaces at its ends".to_owned())
}

/// Parses the reaction to threads at a fork.
pub(crate) fn preload_threads(text: &str) -> Result<MoldThreads, Refused> {
    match text {
        "refuse" => Ok(MoldThreads::Refuse),
        "warn" => Ok(MoldThreads::Warn),
        _ => Err("expected refuse or warn".to_owned()),
    }
}

/// Parses the method that detects changed files.
pub(crate) fn reload_engine(text: &str) -> Result<ReloadEngine, Refused> {
    match text {
        "auto" => Ok(ReloadEngine::Auto),
        "poll" => Ok(ReloadEngine::Poll),
        "inotify" => Ok(ReloadEngine::Inotify),
        _ => Err("expected auto, poll or inotify".to_owned()),
    }
}

/// A file of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SettingsFile {
    /// TOML.
    Toml(PathBuf),
    /// A configuration in Python, which another process executes.
    Python(Source),
}

/// Parses the path of the settings file.
pub(crate) fn settings_file(text: &str) -> Result<SettingsFile, Refused> {
    if !text.is_empty() && Source::is_named_by(text) {
        let Ok(source) = text.parse::<Source>();
        return match &source {
            Source::Module(name) if name.is_empty() => Err("python: needs the name of a module".to_owned()),
            Source::File(file) if file.as_os_str().is_empty() => Err("file: needs a path".to_owned()),
            _ => Ok(SettingsFile::Python(source)),
        };
    }
    path(text).map(SettingsFile::Toml)
}

/// Parses the destination of a log: `-` or a file.
pub(crate) fn destination(text: &str) -> Result<Destination, Refused> {
    match text {
        "-" => Ok(Destination::Standard),
        _ => path(text).map(Destination::File),
    }
}

/// Parses the name of a level, in any case; also those of Python's `logging`, as one variable often serves both.
pub(crate) fn level(text: &str) -> Result<Level, Refused> {
    let text = match text.to_ascii_lowercase().as_str() {
        "warn" => "warning",
        "fatal" => "critical",
        "notset" | "trace" => "debug",
        // gunicorn's choice.
        "" => "info",
        _ => text,
    };
    Level::ALL
        .into_iter()
        .find(|level| level.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| "expected debug, info, warning, error or critical".to_owned())
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
