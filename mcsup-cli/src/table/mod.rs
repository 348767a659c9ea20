//! The one table of settings: each row is an option of the command line, a key of the settings file and of
//! `gunicorn.conf.py`, and a line of the help and of the pages.
//!
//! A row describes a setting; [`crate::settings`] parses its value. A setting of gunicorn that has no counterpart has a
//! row too, with what happens to it ([`State`]).

mod given;
#[cfg(test)]
mod page;
mod row;
mod rows;

#[cfg(test)]
mod tests;

pub(crate) use given::{Given, Served};
pub(crate) use row::{Kind, Row, Scope, State};

use crate::typos;

/// Rows under one heading of the help.
#[derive(Debug)]
pub(crate) struct Section {
    /// The heading; empty: the options without one.
    pub heading: &'static str,
    /// The rows in the order of the help.
    pub rows: &'static [Row],
}

/// All sections in the order of the help.
pub(crate) fn sections() -> &'static [Section] {
    &rows::SECTIONS
}

/// All rows in the order of the help.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    sections().iter().flat_map(|section| section.rows)
}

/// The row of a setting by its own name.
pub(crate) fn row(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}

/// The row that a key names: by its own name, its flag, an alias, or gunicorn's name, with `-` or `_`.
pub(crate) fn by_key(key: &str) -> Option<&'static Row> {
    let key = as_key(key);
    rows().filter(|row| row.is_in_files()).find(|row| row.keys().any(|known| known == key))
}

/// The known key of which `key` may be a typing error.
pub(crate) fn nearest_key(key: &str) -> Option<String> {
    let written = as_key(&key.to_lowercase());
    typos::nearest(rows().filter(|row| row.is_in_files()).flat_map(Row::keys), &written)
}

/// A name in the spelling of keys.
pub(crate) fn as_key(name: &str) -> String {
    name.replace('-', "_")
}
