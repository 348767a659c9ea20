//! `--print-config`: each setting with its value and its source.

use std::fmt::Write;

use super::sources::Sources;
use crate::table::{self, Kind, Row, Served};

/// One line for each setting that has a value, in the order of the help: hooks only if they are defined. Brackets have
/// gunicorn's name where it is another one.
pub(super) fn text(sources: &Sources, served: Served) -> String {
    let rows: Vec<&Row> = table::rows().filter(|row| is_listed(row, sources, served)).collect();
    let width = rows.iter().map(|row| shown_name(row).len()).max().unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let (value, origin) = match sources.written(row.name) {
            _ if row.name == "config" => sources.settings_file(),
            Some((origin, _)) if row.kind == Kind::Hook => ("a function".to_owned(), origin.to_string()),
            Some((_, [])) if row.kind != Kind::Flag => continue,
            Some((origin, [])) => ("true".to_owned(), origin.to_string()),
            Some((origin, [one])) if row.kind == Kind::Value => (format!("{one:?}"), origin.to_string()),
            Some((origin, several)) => (format!("{several:?}"), origin.to_string()),
            None if row.kind == Kind::Flag => ("false".to_owned(), "the defaults".to_owned()),
            None => ("none".to_owned(), "the defaults".to_owned()),
        };
        let _ = writeln!(text, "{:width$} = {value}  (from {origin})", shown_name(row));
    }
    text
}

fn is_listed(row: &Row, sources: &Sources, served: Served) -> bool {
    let is_set = || sources.written(row.name).is_some();
    let is_there = row.kind != Kind::Hook || is_set();
    row.is_supported() && served.has(row) && (row.is_in_files() || row.name == "config") && is_there
}

fn shown_name(row: &Row) -> String {
    match row.gunicorn {
        // Its meaning is the opposite.
        "" | "sendfile" => row.name.to_owned(),
        same if same == row.name => row.name.to_owned(),
        other => format!("{} ({other})", row.name),
    }
}
