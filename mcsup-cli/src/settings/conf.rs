//! `gunicorn.conf.py`: its variables as values of settings.
//!
//! Another process executes the file and describes its variables ([`mcsup_py::conf`]). This module checks their types as
//! gunicorn does, with the line of each; their text is parsed as on a command line.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcsup_py::conf::{HOOKS, Report, Source, Value, Variable};
use serde::{Deserialize, Serialize};

use crate::args::UsageError;
use crate::table::{self, Given, Kind, Row, Served};
use crate::typos;

/// A configuration in Python that was executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conf {
    /// Its place.
    pub source: Source,
    /// Its variables.
    pub report: Report,
}

impl Conf {
    /// It as text; empty: its place is not Unicode.
    pub(super) fn note(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The configuration of such a text, or that there is none; `None`: the text does not have it.
    pub(crate) fn of_note(note: &str) -> Option<Option<Self>> {
        serde_json::from_str(note).ok()
    }
}

/// The name of a configuration in Python, and the lines of its settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    name: String,
    lines: BTreeMap<&'static str, u32>,
}

impl Lines {
    /// The name of the file, with the line of a setting if it is known.
    pub(crate) fn place(&self, setting: &str) -> String {
        match self.lines.get(setting) {
            Some(line) => format!("{}:{line}", self.name),
            None => self.name.clone(),
        }
    }

    /// The name of the file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The settings of a configuration in Python.
#[derive(Debug)]
pub(crate) struct FromConf {
    pub(crate) given: Given,
    pub(crate) lines: Arc<Lines>,
    pub(crate) warnings: Vec<String>,
}

/// The names that a configuration is asked for: those of gunicorn's settings.
pub(crate) fn known_names() -> Vec<&'static str> {
    let names = table::rows().map(|row| row.gunicorn).filter(|name| !name.is_empty() && *name != "config");
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Translates the variables to values of settings. As with gunicorn an unknown name is none.
pub(crate) fn read(conf: &Conf) -> Result<FromConf, UsageError> {
    let name = conf.source.to_string();
    let mut lines = Lines { name: name.clone(), lines: BTreeMap::new() };
    let mut given = Given::none(Served::Application);
    for variable in &conf.report.variables {
        let Some(row) = table::rows().find(|row| row.gunicorn == variable.name) else { continue };
        lines.lines.extend(variable.line.map(|line| (row.name, line)));
        let setting = Setting { row, variable, place: lines.place(row.name) };
        setting.give_to(&mut given)?;
    }
    let warnings =
        conf.report.others.iter().filter_map(|other| warning(&name, other, &conf.report)).collect();
    Ok(FromConf { given, lines: Arc::new(lines), warnings })
}

/// A warning for a variable that may be meant as a setting.
fn warning(file: &str, (name, line): &(String, u32), report: &Report) -> Option<String> {
    let is_set = |known: &str| report.variables.iter().any(|variable| variable.name == known);
    let meant = meant(&name.to_lowercase())?;
    // A file may have a variable of such a name for the setting itself.
    (!is_set(meant)).then(|| format!("{file}:{line}: {name} is no setting; is '{meant}' meant?"))
}

/// The setting that a variable may be meant as: it has another of its names, the end of its name, or a typing error.
fn meant(name: &str) -> Option<&'static str> {
    if let Some(row) = table::by_key(name) {
        // gunicorn's file has no name for the others.
        return Some(row.gunicorn).filter(|known| !known.is_empty());
    }
    let supported = table::rows().filter(|row| row.is_supported()).map(|row| row.gunicorn);
    let is_end =
        |known: &&str| name.contains('_') && known.strip_suffix(name).is_some_and(|it| it.ends_with('_'));
    let longer: Vec<&str> = supported.filter(is_end).collect();
    match longer[..] {
        [only] => Some(only),
        _ => typos::nearly(known_names().into_iter(), name),
    }
}

/// A setting in the file.
struct Setting<'a> {
    row: &'static Row,
    variable: &'a Variable,
    place: String,
}

impl Setting<'_> {
    fn give_to(&self, given: &mut Given) -> Result<(), UsageError> {
        let row = self.row;
        match (row.kind, &self.variable.value) {
            // Not set.
            (_, Value::None) => {}
            (Kind::Flag, value) => {
                // The option is for the other value.
                let turns_on = row.name != "no_sendfile";
                given.turn(row, self.truth(value)? == turns_on);
            }
            (Kind::Hook, value) => {
                self.check_hook(value)?;
                given.turn_on(row);
            }
            (Kind::List, Value::List(items)) => {
                let texts = items.iter().map(|item| self.text(item)).collect::<Result<_, _>>()?;
                given.give(row, texts);
            }
            (Kind::List, Value::Map(pairs)) if row.name == "secure_scheme_headers" => {
                let pair = |(name, value): &(String, Value)| Ok(format!("{name}={}", self.text(value)?));
                let pairs: Vec<String> = pairs.iter().map(pair).collect::<Result<_, UsageError>>()?;
                // Without a field, unlike a setting that is not given.
                given.give(row, if pairs.is_empty() { vec![String::new()] } else { pairs });
            }
            (Kind::List, value) => given.give(row, vec![self.text(value)?]),
            (Kind::Value, Value::Bool(on)) if row.bare.is_some() => {
                given.give(row, vec![if *on { row.bare.unwrap_or_default() } else { "off" }.to_owned()]);
            }
            (Kind::Value, value) => given.give(row, vec![self.text(value)?]),
        }
        Ok(())
    }

    fn truth(&self, value: &Value) -> Result<bool, UsageError> {
        match value {
            Value::Bool(on) => Ok(*on),
            Value::Text(text) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Value::Text(text) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            other => Err(self.wrong("True or False", other)),
        }
    }

    /// The text of a command line.
    fn text(&self, value: &Value) -> Result<String, UsageError> {
        match value {
            Value::Text(text) if text.contains('\0') => {
                Err(UsageError::new(format!("{}: {} holds a null character", self.place, self.variable.name)))
            }
            Value::Text(text) => Ok(decimal(text.trim())),
            Value::Int(number) if matches!(self.row.name, "umask" | "control_socket_mode") => {
                Ok(format!("0o{number:o}"))
            }
            Value::Int(number) => Ok(number.to_string()),
            Value::Float(number) => Ok(number.to_string()),
            Value::Class(name) => Ok(name.clone()),
            Value::Map(pairs) => self.pairs(pairs),
            other => Err(self.wrong("a text or a number", other)),
        }
    }

    /// A dictionary as JSON.
    fn pairs(&self, pairs: &[(String, Value)]) -> Result<String, UsageError> {
        if self.row.name != "logconfig_dict" {
            return Err(self.wrong("a text or a number", &Value::Map(Vec::new())));
        }
        let object: serde_json::Map<_, _> =
            pairs.iter().map(|(name, value)| (name.clone(), json(value))).collect();
        Ok(serde_json::Value::Object(object).to_string())
    }

    fn check_hook(&self, value: &Value) -> Result<(), UsageError> {
        let name = self.variable.name.as_str();
        let counts =
            HOOKS.iter().find(|(known, _)| *known == name).map(|(_, counts)| *counts).unwrap_or_default();
        match value {
            Value::Function(-1) | Value::Class(_) => Ok(()),
            Value::Function(count) if counts.is_empty() || counts.contains(count) => Ok(()),
            Value::Function(count) => {
                let expected: Vec<String> = counts.iter().map(ToString::to_string).collect();
                let expected = expected.join(" or ");
                let why = format!("{}: {name} takes {count} arguments: expected {expected}", self.place);
                Err(UsageError::new(why))
            }
            Value::Broken(why) => Err(UsageError::new(format!("{}: {name} = {why}", self.place))),
            other => Err(self.wrong("a function, or its name as MODULE.NAME", other)),
        }
    }

    fn wrong(&self, expected: &str, value: &Value) -> UsageError {
        let (place, name) = (&self.place, &self.variable.name);
        UsageError::new(format!("{place}: {name} is {}: expected {expected}", kind_of(value)))
    }
}

/// A number as gunicorn reads it, `0x10` for example, in decimal; any other text as it is.
fn decimal(text: &str) -> String {
    let digits =
        |prefix: &str| text.strip_prefix(prefix).or_else(|| text.strip_prefix(&prefix.to_uppercase()));
    let number = [("0x", 16), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| u64::from_str_radix(digits(prefix)?, radix).ok());
    number.map_or_else(|| text.to_owned(), |number| number.to_string())
}

/// The value as JSON, as far as JSON has it.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(on) => (*on).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) | Value::Class(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        Value::None | Value::Function(_) | Value::Broken(_) | Value::Other(_) => serde_json::Value::Null,
    }
}

/// A value's type, in words.
fn kind_of(value: &Value) -> String {
    match value {
        Value::None => "None".to_owned(),
        Value::Bool(on) => if *on { "True" } else { "False" }.to_owned(),
        Value::Int(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Text(text) => format!("the text {text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a dictionary".to_owned(),
        Value::Function(_) => "a function".to_owned(),
        Value::Broken(why) => format!("the text {why}"),
        Value::Class(name) => format!("the class {name}"),
        Value::Other(kind) => format!("a {kind}"),
    }
}

#[cfg(test)]
#[path = "conf_tests.rs"]
mod tests;
