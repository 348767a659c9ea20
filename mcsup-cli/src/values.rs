//! Parses the text of values and checks their ranges.
//!
//! An error completes the sentence "this value was refused: …". `settings/sources` adds the source of the value.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mcsup_core::host::processors;
use mcsup_core::policy::Surge;
use mcsup_core::{Address, Error, MoldThreads};
use mcsup_py::ReloadEngine;

use crate::logging::{Destination, Level};

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

/// Parses a limit; 0 means `most`.
pub(crate) fn limit<T>(text: &str, most: T) -> Result<T, Refused>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy + Default,
{
    let none = T::default();
    whole(text, none..=most).map(|limit| if limit == none { most } else { limit })
}

/// Parses a number of workers.
pub(crate) fn workers(text: &str) -> Result<usize, Refused> {
    whole(text, 1..=MOST_WORKERS)
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

/// Parses a time in seconds, with or without a fraction; 0 is allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, Refused> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    let number: f64 = text.parse().ok().filter(|_| plain).ok_or("not a number of seconds")?;
    if number.is_sign_negative() && number != 0.0 {
        return Err("less than 0 seconds".to_owned());
    }
    match Duration::try_from_secs_f64(number.abs()) {
        Ok(time) if time <= LONGEST => Ok(time),
        _ => Err(format!("more than a year ({} seconds)", LONGEST.as_secs())),
    }
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

/// Parses the path of the settings file.
pub(crate) fn settings_file(text: &str) -> Result<PathBuf, Refused> {
    if text.ends_with(".py") || text.starts_with("python:") {
        return Err("gunicorn's Python settings files are not read by this version; write TOML".to_owned());
    }
    path(text)
}

/// Parses the destination of a log: `-` or a file.
pub(crate) fn destination(text: &str) -> Result<Destination, Refused> {
    match text {
        "-" => Ok(Destination::Standard),
        _ => path(text).map(Destination::File),
    }
}

/// Parses the name of a level, in any case.
pub(crate) fn level(text: &str) -> Result<Level, Refused> {
    Level::ALL
        .into_iter()
        .find(|level| level.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| "expected debug, info, warning, error or critical".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
        result.map_or_else(|reason| format!("refused: {reason}"), |value| format!("{value:?}"))
    }

    #[test]
    fn whole_numbers_are_decimal_and_in_range() {
        for (text, expected) in [
            ("1", "1"),
            ("512", "512"),
            ("0", "refused: not from 1 to 512"),
            ("513", "refused: not from 1 to 512"),
            ("-1", "refused: not from 1 to 512"),
            ("99999999999999999999999", "refused: not from 1 to 512"),
            ("", "refused: not a whole number"),
            ("-", "refused: not a whole number"),
            ("x", "refused: not a whole number"),
            ("1.5", "refused: not a whole number"),
            ("0x10", "refused: not a whole number"),
            (" 1", "refused: not a whole number"),
            ("+1", "refused: not a whole number"),
        ] {
            assert_eq!(shown(whole(text, 1..=512_usize)), expected, "{text:?}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_the_most_that_is_possible() {
        assert_eq!(limit("0", 100_usize), Ok(100));
        assert_eq!(limit("7", 100_usize), Ok(7));
        assert_eq!(limit("0", u64::MAX), Ok(u64::MAX));
        assert_eq!(shown(limit("101", 100_usize)), "refused: not from 0 to 100");
    }

    #[test]
    fn a_surge_is_a_number_or_all() {
        assert_eq!(surge("all"), Ok(Surge::All));
        assert_eq!(surge("1"), Ok(Surge::Extra(1)));
        assert_eq!(surge("512"), Ok(Surge::Extra(512)));
        for text in ["All", "none", "1e2"] {
            assert_eq!(shown(surge(text)), "refused: expected a whole number or the word all", "{text:?}");
        }
        assert_eq!(shown(surge("0")), "refused: not from 1 to 512");
        assert_eq!(shown(surge("1.5")), "refused: not a whole number");
    }

    #[test]
    fn a_count_of_zero_is_off() {
        assert_eq!(count_or_off("0"), Ok(None));
        assert_eq!(count_or_off("18446744073709551615"), Ok(Some(u64::MAX)));
        assert_eq!(shown(count("18446744073709551616")), "refused: not from 0 to 18446744073709551615");
        assert_eq!(shown(count("-1")), "refused: not from 0 to 18446744073709551615");
    }

    #[test]
    fn memory_is_bytes_or_has_a_unit() {
        let words = "refused: not a whole number of bytes, such as 1048576, 512K, 256M or 1G";
        for (text, expected) in [
            ("0", "0"),
            ("1048576", "1048576"),
            ("1K", "1024"),
            ("256M", "268435456"),
            ("256m", "268435456"),
            ("1G", "1073741824"),
            ("0G", "0"),
            ("17179869183G", "18446744072635809792"),
            ("17179869184G", "refused: more than 18446744073709551615 bytes"),
            ("18446744073709551616", "refused: more than 18446744073709551615 bytes"),
            ("-1M", words),
            ("", words),
            ("M", words),
            ("1.5G", words),
            ("1MB", words),
            ("1MiB", words),
            ("1 M", words),
            ("1µ", words),
        ] {
            assert_eq!(shown(bytes(text)), expected, "{text:?}");
        }
        assert_eq!((bytes_or_off("0M"), bytes_or_off("2K")), (Ok(None), Ok(Some(2048))));
    }

    #[test]
    fn a_request_path_is_absolute_and_has_no_query() {
        assert_eq!(request_path("/-/health"), Ok("/-/health".to_owned()));
        for (text, expected) in [
            ("", "refused: it must begin with /"),
            ("health", "refused: it must begin with /"),
            ("http://a/", "refused: it must begin with /"),
            ("/a?b", "refused: it may hold no ? and no white space"),
            ("/a b", "refused: it may hold no ? and no white space"),
            ("/a\u{a0}", "refused: it may hold no ? and no white space"),
            ("/a\0", "refused: it may hold no ? and no white space"),
        ] {
            assert_eq!(shown(request_path(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn words_are_taken_as_they_are_written() {
        assert_eq!(preload_threads("refuse"), Ok(MoldThreads::Refuse));
        assert_eq!(shown(preload_threads("Warn")), "refused: expected refuse or warn");
        assert_eq!(reload_engine("poll"), Ok(ReloadEngine::Poll));
        assert_eq!(reload_engine("inotify"), Ok(ReloadEngine::Inotify));
        assert_eq!(shown(reload_engine("")), "refused: expected auto, poll or inotify");
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        for (text, expected) in [
            ("30", "30s"),
            ("0", "0ns"),
            ("-0", "0ns"),
            ("0.5", "500ms"),
            ("1e3", "1000s"),
            ("-1", "refused: less than 0 seconds"),
            ("-0.001", "refused: less than 0 seconds"),
            ("inf", "refused: not a number of seconds"),
            ("nan", "refused: not a number of seconds"),
            ("1e300", "refused: more than a year (31536000 seconds)"),
            ("1e999", "refused: more than a year (31536000 seconds)"),
            ("31536000", "31536000s"),
            ("31536001", "refused: more than a year (31536000 seconds)"),
            ("30s", "refused: not a number of seconds"),
            ("", "refused: not a number of seconds"),
        ] {
            assert_eq!(shown(seconds(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn zero_seconds_mean_off_or_are_refused() {
        assert_eq!(seconds_or_off("0"), Ok(None));
        assert_eq!(seconds_or_off("1"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(shown(positive_seconds("0.0")), "refused: must be more than 0 seconds");
        assert_eq!(positive_seconds("0.1"), Ok(Duration::from_millis(100)));
    }

    #[test]
    fn a_liveness_timeout_is_longer_than_the_time_between_signs_of_life() {
        assert_eq!(liveness_or_off("0"), Ok(None));
        assert_eq!(liveness_or_off("1"), Ok(Some(SHORTEST_LIVENESS)));
        assert!(liveness_or_off("0.9").is_err_and(|reason| reason.contains("at least 1")));
    }

    #[test]
    fn a_umask_is_octal_beyond_doubt() {
        for (text, expected) in [
            ("007", "7"),
            ("0o007", "7"),
            ("0", "0"),
            ("7", "7"),
            ("0777", "511"),
            ("0o27", "23"),
            ("22", "refused: octal or decimal? Write 022 if octal"),
            ("01000", "refused: not from 0 to 0777"),
            ("0777777777777777777777", "refused: not from 0 to 0777"),
            ("8", "refused: not an octal number such as 007"),
            ("089", "refused: not an octal number such as 007"),
            ("0x7", "refused: not an octal number such as 007"),
            ("0o", "refused: not an octal number such as 007"),
            ("-1", "refused: not an octal number such as 007"),
            ("", "refused: not an octal number such as 007"),
        ] {
            assert_eq!(shown(umask(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn variables_have_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        for text in ["A", "=b", ""] {
            assert_eq!(shown(variable(text)), "refused: expected NAME=VALUE", "{text:?}");
        }
    }

    #[test]
    fn directories_are_split_at_commas() {
        assert_eq!(shown(directories("a, b,,/c d")), r#"["a", "b", "/c d"]"#);
        assert_eq!(shown(directories("")), "[]");
    }

    #[test]
    fn levels_and_destinations_are_named() {
        assert_eq!(level("Warning"), Ok(Level::Warning));
        assert!(level("loud").is_err());
        assert_eq!(destination("-"), Ok(Destination::Standard));
        assert_eq!(destination("a.log"), Ok(Destination::File("a.log".into())));
        assert!(destination("").is_err());
    }
}
