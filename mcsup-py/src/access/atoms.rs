//! The values of a request by the names of gunicorn's atoms, for handlers and formatters of Python's `logging`.
//!
//! Formatters that write JSON read them from `record.args`, by names such as `h` or `{x-request-id}i`.

use super::Entry;
use super::format::{Clock, Format, as_in_a_line, value as value_of};
use crate::targets::queue::Value;

/// The atoms that are numbers in Python.
const NUMBERS: [&str; 4] = ["B", "T", "M", "D"];

/// The atoms that are text, and have a value of their own.
const TEXTS: [&str; 13] = ["h", "u", "t", "r", "m", "U", "q", "H", "b", "f", "a", "L", "p"];

/// The values of `entry`. Those of the environ are the ones that the format names.
pub(super) fn of(format: &Format, entry: &Entry<'_>, clock: &mut Clock) -> Vec<(String, Value)> {
    let mut atoms = vec![
        ("l".to_owned(), Value::Text(b"-".to_vec())),
        ("s".to_owned(), Value::Text(entry.response.status().to_string().into_bytes())),
    ];
    let milliseconds = u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX);
    let microseconds = u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX);
    let numbers = [entry.bytes, entry.took.as_secs(), milliseconds, microseconds];
    for (name, number) in NUMBERS.into_iter().zip(numbers) {
        atoms.push((name.to_owned(), Value::Number(number)));
    }
    for name in TEXTS {
        atoms.push((name.to_owned(), Value::Text(value_of(name, entry, clock))));
    }
    if let Some(head) = &entry.head {
        for (name, value) in head.headers() {
            atoms.push((format!("{{{}}}i", lower(name)), Value::Text(as_in_a_line(value))));
        }
    }
    for (name, value) in entry.response.fields() {
        atoms.push((format!("{{{}}}o", lower(name)), Value::Text(as_in_a_line(value))));
    }
    if let Some(length) = entry.response.content_length() {
        atoms.push(("{content-length}o".to_owned(), Value::Text(length.to_string().into_bytes())));
    }
    for (name, value) in format.variables().iter().zip(&entry.left.variables) {
        if let Some(value) = value {
            atoms.push((format!("{{{}}}e", name.to_lowercase()), Value::Text(as_in_a_line(value))));
        }
    }
    atoms
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}
