//! The sources of values and their precedence.
//!
//! Each source gives texts for settings of [`crate::table`]: the command line, the two `*_CMD_ARGS`, the settings file,
//! variables such as `PORT`, and the defaults. There is one rule: the highest source that names a setting sets it. A
//! list is one value: a higher list replaces a lower one, as with gunicorn.

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use mcsup_py::conf::Source;

use super::conf::{self, Conf, Lines};
use super::file::{self, ReadFile};
use crate::args::{self, UsageError};
use crate::table::{self, Given, Kind, Served, State};
use crate::values::{self, Refused, SettingsFile};

/// Looks up a variable in an environment.
pub(crate) type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The default.
    Default,
    /// The environment variable of this name.
    Variable(&'static str),
    /// The settings file of this name, as it was given.
    File(Arc<Path>),
    /// The configuration in Python.
    Conf(Arc<Lines>),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the defaults"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path) => path.display().fmt(f),
            Origin::Conf(lines) => f.write_str(lines.name()),
            Origin::CommandLine => f.write_str("the command line"),
        }
    }
}

/// A value with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its source.
    pub origin: Origin,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The configuration that gunicorn reads if no other is named.
pub(crate) const DEFAULT_CONF: &str = "gunicorn.conf.py";

/// A configuration in Python that the sources name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedConf {
    /// Its place.
    pub source: Source,
    /// Whether no source names it: it is [`DEFAULT_CONF`].
    pub is_default: bool,
    /// The user and the group of the workers, if a source above the configuration names them.
    pub run_as: (Option<String>, Option<String>),
}

/// The sources, the highest first.
pub(super) struct Sources(Vec<(Origin, Given)>);

impl Sources {
    /// Parses the sources above the settings file, which alone may name it.
    fn above_the_file(command_line: Given, environment: &Environment<'_>) -> Result<Self, UsageError> {
        let served = command_line.served;
        let mut sources = vec![(Origin::CommandLine, command_line)];
        for name in ["MCSUP_CMD_ARGS", "GUNICORN_CMD_ARGS"] {
            if let Some(value) = variable(environment, name)? {
                sources.push((Origin::Variable(name), args::parse_variable(name, &value, served)?));
            }
        }
        Ok(Self(sources))
    }

    /// The settings file that these sources name.
    fn file(&self, served: Served) -> Result<Option<SettingsFile>, UsageError> {
        let file = self.optional("config", values::settings_file)?;
        match file {
            Some(Sourced { value: SettingsFile::Python(source), origin }) if served == Served::Program => {
                let why = "a program has no configuration in Python; write TOML, in a file whose name ends with .toml";
                Err(refused("config", &source.to_string(), &origin, why))
            }
            file => Ok(file.map(|file| file.value)),
        }
    }

    /// The configuration in Python that the sources name; without a settings file gunicorn's own, if `has_default`.
    pub(super) fn conf(
        command_line: &Given,
        environment: &Environment<'_>,
        has_default: bool,
    ) -> Result<Option<NamedConf>, UsageError> {
        let served = command_line.served;
        let sources = Self::above_the_file(command_line.clone(), environment)?;
        let (source, is_default) = match sources.file(served)? {
            Some(SettingsFile::Toml(_)) => return Ok(None),
            Some(SettingsFile::Python(source)) => (source, false),
            None if has_default && served == Served::Application => (Source::File(DEFAULT_CONF.into()), true),
            None => return Ok(None),
        };
        let text = |name| Ok(sources.optional(name, values::text)?.map(|text| text.value));
        Ok(Some(NamedConf { source, is_default, run_as: (text("user")?, text("group")?) }))
    }

    /// Parses all sources. `environment` looks up variables, `read_file` reads the settings file, and `conf` is the
    /// configuration in Python of [`conf`](Self::conf). Returns the warnings of the configuration too.
    pub(super) fn collect(
        command_line: Given,
        environment: &Environment<'_>,
        read_file: &ReadFile<'_>,
        conf: Option<&Conf>,
    ) -> Result<(Self, Vec<String>), UsageError> {
        let served = command_line.served;
        let mut sources = Self::above_the_file(command_line, environment)?;
        let mut warnings = Vec::new();
        if let Some(SettingsFile::Toml(path)) = sources.file(served)? {
            let given = file::read(&path, read_file, served)?;
            sources.0.push((Origin::File(path.into()), given));
        }
        if let Some(conf) = conf {
            let read = conf::read(conf)?;
            warnings.extend(read.warnings);
            sources.0.push((Origin::Conf(read.lines), read.given));
        }
        for row in table::rows().filter(|row| served.has(row)) {
            if let Some(name) = row.variable {
                if let Some(value) = variable(environment, name)? {
                    let text = row.variable_prefix.to_owned() + &value;
                    sources.0.push((Origin::Variable(name), Given::one(row, text)));
                }
            }
        }
        sources.0.push((Origin::Default, defaults()));
        Ok((sources, warnings))
    }

    /// Refuses the settings of gunicorn that have no counterpart; returns a warning for each that has no effect.
    pub(super) fn warnings(&self) -> Result<Vec<String>, UsageError> {
        let mut warnings = Vec::new();
        for row in table::rows().filter(|row| !row.is_supported()) {
            let Some((origin, given)) = self.0.iter().find(|(_, given)| given.has(row.name)) else {
                continue;
            };
            let text = given.text(row.name);
            // A flag that is given is on.
            if row.harmless.contains(&text.unwrap_or("true")) {
                continue;
            }
            match row.state {
                State::Supported => {}
                State::Ignored(reason) => {
                    let place = place(row.name, origin);
                    warnings.push(format!("{} (from {place}) has no effect: {reason}", row.name));
                }
                State::Refused(reason) => {
                    return Err(match text {
                        Some(text) => refused(row.name, text, origin, reason),
                        None => UsageError::new(format!(
                            "{} (from {}): {reason}",
                            row.name,
                            place(row.name, origin)
                        )),
                    });
                }
            }
        }
        Ok(warnings)
    }

    /// The names of the hooks that the configuration in Python defines.
    pub(super) fn hooks(&self) -> Vec<&'static str> {
        let hooks = table::rows().filter(|row| row.kind == Kind::Hook).map(|row| row.name);
        hooks.filter(|name| self.0.iter().any(|(_, given)| given.has(name))).collect()
    }

    /// The settings of gunicorn that a source beside the configuration in Python gives, by gunicorn's names: `true` or
    /// `false`, a text, or a list of texts.
    pub(super) fn beside_the_conf(&self) -> Vec<(&'static str, serde_json::Value)> {
        let rows = table::rows().filter(|row| !row.gunicorn.is_empty() && row.kind != Kind::Hook);
        let given = rows.filter_map(|row| {
            let (origin, texts) = self.written(row.name)?;
            if matches!(origin, Origin::Conf(_) | Origin::Default) {
                return None;
            }
            let value = match row.kind {
                // The option is for the other value.
                Kind::Flag => (row.name != "no_sendfile" && texts.is_empty()).into(),
                Kind::List => texts.into(),
                Kind::Value | Kind::Hook => texts.last()?.as_str().into(),
            };
            Some((row.gunicorn, value))
        });
        given.collect()
    }

    /// The settings file that is read, and the source that names it.
    pub(super) fn settings_file(&self) -> (String, String) {
        let read = self.0.iter().find_map(|(origin, _)| match origin {
            Origin::Conf(lines) => Some(lines.name().to_owned()),
            Origin::File(path) => Some(path.display().to_string()),
            _ => None,
        });
        let named = self.written("config").map_or(&Origin::Default, |(origin, _)| origin);
        (read.map_or_else(|| "none".to_owned(), |read| format!("{read:?}")), named.to_string())
    }

    /// The highest source that names a setting.
    fn highest(&self, name: &str) -> Result<Option<(&Origin, &Given)>, UsageError> {
        match table::row(name) {
            Some(_) => {
                Ok(self.0.iter().find(|(_, given)| given.has(name)).map(|(origin, given)| (origin, given)))
            }
            None => Err(UsageError::new(format!("{name} is no setting"))),
        }
    }

    /// The values of a setting as they are written, and their source.
    pub(super) fn written(&self, name: &str) -> Option<(&Origin, &[String])> {
        let (origin, given) = self.0.iter().find(|(_, given)| given.has(name))?;
        let texts = given.texts(name);
        let is_list = table::row(name).is_some_and(|row| row.kind == Kind::List);
        Some((
            origin,
            if is_list { texts } else { texts.get(texts.len().saturating_sub(1)..).unwrap_or_default() },
        ))
    }

    /// Whether the application is only loaded: for `--check-config` or `--print-config`.
    pub(super) fn check_only(&self) -> Result<Sourced<bool>, UsageError> {
        let check = self.flag("check_config")?;
        if *check { Ok(check) } else { self.flag("print_config") }
    }

    /// A setting without a default.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Option<Sourced<T>>, UsageError> {
        let Some((origin, given)) = self.highest(name)? else { return Ok(None) };
        let Some(text) = given.text(name) else { return Ok(None) };
        let value = parse(text).map_err(|reason| refused(name, text, origin, &reason))?;
        Ok(Some(Sourced { value, origin: origin.clone() }))
    }

    /// A setting with a default.
    pub(super) fn one<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<T>, UsageError> {
        self.optional(name, parse)?.ok_or_else(|| UsageError::new(format!("{name} has no default")))
    }

    /// A repeatable setting.
    pub(super) fn many<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<Vec<T>>, UsageError> {
        let Some((origin, given)) = self.highest(name)? else {
            return Ok(Sourced { value: Vec::new(), origin: Origin::Default });
        };
        let parse = |text: &String| parse(text).map_err(|reason| refused(name, text, origin, &reason));
        let value = given.texts(name).iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Sourced { value, origin: origin.clone() })
    }

    /// A flag that any source turns on; no source turns it off.
    pub(super) fn flag(&self, name: &str) -> Result<Sourced<bool>, UsageError> {
        Ok(match self.highest(name)? {
            Some((origin, _)) => Sourced { value: true, origin: origin.clone() },
            None => Sourced { value: false, origin: Origin::Default },
        })
    }
}

/// A variable that is set and not empty: scripts and container files write `PORT=` for "not set".
fn variable(environment: &Environment<'_>, name: &str) -> Result<Option<String>, UsageError> {
    match environment(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => Err(UsageError::new(format!("{name}: not UTF-8"))),
    }
}

/// The lowest source.
fn defaults() -> Given {
    let mut given = Given::default();
    for row in table::rows() {
        given.give(row, row.default.map(str::to_owned).into_iter().collect());
    }
    given
}

/// Settings whose values may be secrets, also where the name of the secret is missing. No message has them.
const SECRET: [&str; 2] = ["env", "raw_paste_global_conf"];

/// The error for a value that is refused.
pub(super) fn refused(name: &str, value: &str, origin: &Origin, reason: &str) -> UsageError {
    let value = if SECRET.contains(&name) { String::new() } else { format!(" = {value:?}") };
    UsageError::new(format!("{name}{value} (from {}): {reason}", place(name, origin)))
}

/// The source of a setting, with its line in a configuration in Python.
fn place(name: &str, origin: &Origin) -> String {
    match origin {
        Origin::Conf(lines) => lines.place(name),
        other => other.to_string(),
    }
}
