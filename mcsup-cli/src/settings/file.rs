//! The settings file: TOML whose keys are the long names of the options, translated to a command line.
//!
//! The options define the keys. This module checks the type of a value; its text is parsed as on a command line. A
//! function passes the text of the file; [`reader`] makes the one that reads the disk.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};
use rustix::fs::{FileType, Mode, OFlags};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::{self, RunArgs, UsageError};
use crate::typos;

/// Reads a file whole.
pub(crate) type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// Reads files from the disk, relative paths from the directory `start`.
///
/// A path in a command line or a variable is relative to the directory of the start. A reload reads the file again
/// after `--chdir`: `start` must be absolute, and determined before it.
pub(crate) fn reader(start: PathBuf) -> impl Fn(&Path) -> io::Result<String> {
    move |path| read_text(&start.join(path))
}

/// Largest settings file.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a regular file. Opening never blocks on a FIFO or device: a reload runs in the event loop.
fn read_text(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other(format!("it is {}, not a regular file", kind_name(kind))));
    }
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(text)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "a special file",
    }
}

/// Parses the options in the file at `path`.
pub(super) fn read(path: &Path, read_file: &ReadFile<'_>) -> Result<RunArgs, UsageError> {
    let text = read_file(path).map_err(|error| {
        UsageError::new(format!("cannot read the settings file {}: {error}", path.display()))
    })?;
    let file = File { name: path.display().to_string(), text: &text };
    let words = file.words()?;
    args::parse_words(&file.name, words.iter().map(String::as_str))
}

/// A key, its byte offset, and its value.
type Entry<'a> = (&'a str, usize, &'a Spanned<DeValue<'a>>);

/// The file that is parsed.
struct File<'a> {
    name: String,
    text: &'a str,
}

impl File<'_> {
    /// Translates the file to the words of a command line.
    fn words(&self) -> Result<Vec<String>, UsageError> {
        let table = DeTable::parse(self.text)
            .map_err(|error| self.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
        let command = RunArgs::command();
        let (mut words, mut seen, mut app) = (Vec::new(), Vec::new(), None);
        for (key, at, value) in in_order(table.get_ref()) {
            let Some(option) = option(&command, key) else { return Err(self.unknown(&command, key, at)) };
            if seen.contains(&option.get_id()) {
                return Err(self.wrong(at, &format!("{key} is set twice")));
            }
            seen.push(option.get_id());
            match option.get_long() {
                Some(long) => self.option(&mut words, option, long, key, value)?,
                None => app = Some(self.scalar(key, value)?),
            }
        }
        // Behind `--`: the application is no option, also if it begins with a hyphen.
        words.extend(app.into_iter().flat_map(|app| ["--".to_owned(), app]));
        Ok(words)
    }

    fn option(
        &self,
        words: &mut Vec<String>,
        option: &Arg,
        long: &str,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), UsageError> {
        match (option.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, DeValue::Boolean(true)) => words.push(format!("--{long}")),
            // Has no effect: no source turns off a flag of another.
            (ArgAction::SetTrue, DeValue::Boolean(false)) => {}
            (ArgAction::SetTrue, other) => {
                let reason = format!("{key} is true or false, not {}", type_name(other));
                return Err(self.wrong(value.span().start, &reason));
            }
            (ArgAction::Append, DeValue::Array(items)) => {
                for item in items.iter() {
                    words.push(format!("--{long}={}", self.scalar(key, item)?));
                }
            }
            (ArgAction::Append, DeValue::Table(table)) if long == "env" => {
                for (name, at, value) in in_order(table) {
                    if name.is_empty() || name.contains(['=', '\0']) {
                        return Err(self.wrong(at, &format!("{name:?} cannot be a variable's name")));
                    }
                    words.push(format!("--{long}={name}={}", self.scalar(&format!("{key}.{name}"), value)?));
                }
            }
            _ => words.push(format!("--{long}={}", self.scalar(key, value)?)),
        }
        Ok(())
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

    fn unknown(&self, command: &Command, key: &str, at: usize) -> UsageError {
        let reason = match nearest(command, key) {
            _ if as_key(key) == "config" => "config cannot stand in a settings file".to_owned(),
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

/// Whether an option may stand in the file: all settings except the name of the file.
fn is_setting(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
        && option.get_id() != "config"
}

/// All the names of an option, as keys.
fn keys(option: &Arg) -> Vec<String> {
    let names = option.get_long().into_iter().chain(option.get_all_aliases().unwrap_or_default());
    let names = names.map(as_key).collect::<Vec<_>>();
    if names.is_empty() { vec![option.get_id().to_string()] } else { names }
}

fn as_key(name: &str) -> String {
    name.replace('-', "_")
}

fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let key = as_key(key);
    command.get_arguments().filter(|option| is_setting(option)).find(|option| keys(option).contains(&key))
}

/// The known key of which `key` may be a typing error.
fn nearest(command: &Command, key: &str) -> Option<String> {
    let written = as_key(&key.to_lowercase());
    let known = command.get_arguments().filter(|option| is_setting(option)).flat_map(keys);
    known.min_by_key(|known| typos::distance(known, &written)).filter(|near| typos::is_near(near, &written))
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
