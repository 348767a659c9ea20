//! The settings file: TOML whose keys are the long names of the options, or gunicorn's names.
//!
//! [`crate::table`] defines the keys. This module checks the type of a value; its text is parsed as on a command line.
//! A function passes the text of the file; [`reader`] makes the one that reads the disk.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mcsup_py::regular_file;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::{UsageError, exec};
use crate::table::{self, Given, Kind, Row, Scope, Served};

/// Reads a file whole.
pub(crate) type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// Reads files from the disk, relative paths from the directory `start`.
///
/// A path in a command line or a variable is relative to the directory of the start. A reload reads the file again
/// after `--chdir`: `start` must be absolute, and determined before it.
pub(crate) fn reader(start: PathBuf) -> impl Fn(&Path) -> io::Result<String> {
    move |path| read_text(&start.join(path))
}

/// Reads a regular file as text.
fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(regular_file::read(path)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Parses the options in the file at `path`.
pub(super) fn read(path: &Path, read_file: &ReadFile<'_>, served: Served) -> Result<Given, UsageError> {
    let text = read_file(path).map_err(|error| {
        UsageError::new(format!("cannot read the settings file {}: {error}", path.display()))
    })?;
    File { name: path.display().to_string(), text: &text }.given(served)
}

/// A key, its byte offset, and its value.
type Entry<'a> = (&'a str, usize, &'a Spanned<DeValue<'a>>);

/// The file that is parsed.
struct File<'a> {
    name: String,
    text: &'a str,
}

impl File<'_> {
    /// The settings in the file.
    fn given(&self, served: Served) -> Result<Given, UsageError> {
        let table = DeTable::parse(self.text)
            .map_err(|error| self.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
        let (mut given, mut seen) = (Given::none(served), Vec::new());
        for (key, at, value) in in_order(table.get_ref()) {
            let Some(row) = table::by_key(key) else { return Err(self.unknown(key, at)) };
            if seen.contains(&row.name) {
                return Err(self.wrong(at, &format!("{key} is set twice")));
            }
            seen.push(row.name);
            if !served.has(row) {
                return Err(self.wrong(at, &exec::has_no_meaning(key, row)));
            }
            self.setting(&mut given, row, key, value)?;
        }
        Ok(given)
    }

    fn setting(
        &self,
        given: &mut Given,
        row: &'static Row,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), UsageError> {
        let at = value.span().start;
        match (row.kind, value.get_ref()) {
            (Kind::Flag, DeValue::Boolean(on)) => {
                // gunicorn's key of this option has the opposite meaning.
                let is_negated = row.name == "no_sendfile" && table::as_key(key) == row.gunicorn;
                // `false` has no effect: no source turns off a flag of another.
                given.turn(row, *on != is_negated);
            }
            (Kind::Flag, other) => {
                let reason = format!("{key} is true or false, not {}", type_name(other));
                return Err(self.wrong(at, &reason));
            }
            (Kind::Hook, _) => {
                return Err(self.wrong(at, &format!("{key} is a function of gunicorn.conf.py")));
            }
            (Kind::List, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| self.scalar(key, item)).collect::<Result<_, _>>()?;
                given.give(row, texts);
            }
            (Kind::List, DeValue::Table(table)) if matches!(row.name, "env" | "secure_scheme_headers") => {
                given.give(row, self.variables(key, table)?);
            }
            _ => given.give(row, vec![self.scalar(key, value)?]),
        }
        Ok(())
    }

    /// The variables or fields of a table, each as `NAME=VALUE`.
    fn variables(&self, key: &str, table: &DeTable<'_>) -> Result<Vec<String>, UsageError> {
        let mut texts = Vec::new();
        for (name, at, value) in in_order(table) {
            if name.is_empty() || name.contains(['=', '\0']) {
                let kind = if key == "env" { "variable" } else { "field" };
                return Err(self.wrong(at, &format!("{name:?} cannot be a {kind}'s name")));
            }
            texts.push(format!("{name}={}", self.scalar(&format!("{key}.{name}"), value)?));
        }
        Ok(texts)
    }

    /// Translates one value to the text of a command line.
    fn scalar(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, UsageError> {
        match value.get_ref() {
            // A command line cannot contain it, and system calls end at it.
            DeValue::String(text) if text.contains('\0') => {
                Err(self.wrong(value.span().start, &format!("{key} holds a null character")))
            }
            DeValue::String(text) => Ok(text.clone().into_owned()),
            // Unchanged: 0o27 is a umask.
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            other => {
                let reason = format!("{key} is a text or a number, not {}", type_name(other));
                Err(self.wrong(value.span().start, &reason))
            }
        }
    }

    fn unknown(&self, key: &str, at: usize) -> UsageError {
        let own = table::row(&table::as_key(key));
        let reason = match table::nearest_key(key) {
            _ if own.is_some_and(|row| row.scope == Scope::Program) => {
                format!("{key} stands on the command line of mcsup exec, not in a settings file")
            }
            _ if own.is_some() => format!("{key} cannot stand in a settings file"),
            Some(near) => format!("unknown key '{key}'; is '{near}' meant?"),
            None => format!("unknown key '{key}'"),
        };
        self.wrong(at, &reason)
    }

    /// An error with its line.
    fn wrong(&self, at: usize, reason: &str) -> UsageError {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        UsageError::new(format!("{}:{line}: {reason}", self.name))
    }
}

/// The entries of a table in the order of the file.
fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value));
    let mut entries: Vec<Entry<'a>> = entries.collect();
    entries.sort_by_key(|(_, at, _)| *at);
    entries
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
