//! What the text of a value means, and which values are allowed.
//!
//! Each function gives a reason that completes the sentence "this value was refused: …". None knows where the text
//! came from; [`super::sources`] adds that.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mcsup_core::Address;

use crate::logging::{Destination, Level};

/// The longest time that is accepted: long enough to mean "never", short enough that no clock overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a value is refused.
pub(crate) type Refused = String;

/// A whole decimal number in a range.
pub(super) fn whole<T>(text: &str, range: RangeInclusive<T>) -> Result<T, Refused>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a whole number".to_owned());
    }
    // Digits that do not fit the type are out of range too.
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("not from {} to {}", range.start(), range.end())),
    }
}

/// A limit of which 0 says that there is none, which is as much as `most`.
pub(super) fn limit<T>(text: &str, most: T) -> Result<T, Refused>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy + Default,
{
    let none = T::default();
    whole(text, none..=most).map(|limit| if limit == none { most } else { limit })
}

/// A time in seconds, with or without a fraction; 0 is allowed.
pub(super) fn seconds(text: &str) -> Result<Duration, Refused> {
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

/// A time in seconds where none at all would mean that nothing ever succeeds.
pub(crate) fn positive_seconds(text: &str) -> Result<Duration, Refused> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than 0 seconds".to_owned()),
        time => Ok(time),
    }
}

/// A time in seconds where 0 turns the limit off.
pub(super) fn seconds_or_off(text: &str) -> Result<Option<Duration>, Refused> {
    seconds(text).map(|time| Some(time).filter(|time| !time.is_zero()))
}

/// Permission bits in octal: `007`, `0o007`, or one digit.
///
/// Without a leading 0, `22` is decimal to gunicorn and octal to everyone else: it is refused, not guessed.
pub(super) fn umask(text: &str) -> Result<u32, Refused> {
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

/// An address to listen on. Kept as text: whoever binds parses it again, and says it as the operator wrote it.
pub(super) fn bind(text: &str) -> Result<String, Refused> {
    text.parse::<Address>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// `NAME=VALUE`; the value may be empty and may hold more `=`.
pub(super) fn variable(text: &str) -> Result<(String, String), Refused> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Directories separated by commas; empty places are skipped.
pub(super) fn directories(text: &str) -> Result<Vec<String>, Refused> {
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Any text but the empty one.
pub(super) fn text(text: &str) -> Result<String, Refused> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The path of a file or directory.
pub(super) fn path(value: &str) -> Result<PathBuf, Refused> {
    text(value).map(PathBuf::from)
}

/// Where a log goes: `-` or a file.
pub(super) fn destination(text: &str) -> Result<Destination, Refused> {
    match text {
        "-" => Ok(Destination::Standard),
        _ => path(text).map(Destination::File),
    }
}

/// The name of a level, in any case.
pub(super) fn level(text: &str) -> Result<Level, Refused> {
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
