//! `--print-config`: each setting with its value and its source.

use std::fmt::Write;

use super::sources::Sources;
use crate::table::{self, Kind, Row, Served};

/// One line for each setting that has a value, in the order of the help.
pub(super) fn text(sources: &Sources, served: Served) -> String {
    let rows = table::rows().filter(|row| served.has(row) && row.kind != Kind::Hook);
    let rows: Vec<&Row> = rows.filter(|row| row.is_supported() && row.is_in_files()).collect();
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let (value, origin) = match sources.written(row.name) {
            Some((_, [])) if row.kind != Kind::Flag => continue,
            Some((origin, [])) => ("true".to_owned(), origin.to_string()),
            Some((origin, [one])) if row.kind == Kind::Value => (format!("{one:?}"), origin.to_string()),
            Some((origin, several)) => (format!("{several:?}"), origin.to_string()),
            None if row.kind == Kind::Flag => ("false".to_owned(), "the defaults".to_owned()),
            None => ("none".to_owned(), "the defaults".to_owned()),
        };
        let _ = writeln!(text, "{:width$} = {value}  (from {origin})", row.name);
    }
    text
}
