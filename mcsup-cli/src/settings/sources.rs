//! The sources of values and their precedence.
//!
//! Each source is parsed as a command line: the defaults, `PORT`, `WEB_CONCURRENCY`, the two `*_CMD_ARGS` and the
//! settings file. There is one table of options and one rule: the highest source that names a setting sets it. A list
//! is one value: a higher list replaces a lower one, as with gunicorn.

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::file::{self, ReadFile};
use crate::args::defaults::DEFAULTS;
use crate::args::options::ServingArgs;
use crate::args::{self, RunArgs, UsageError};
use crate::values::{self, Refused};

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
    /// The command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the defaults"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path) => path.display().fmt(f),
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

/// An option of the command line: its long name with `_` for `-`, and its place among the arguments.
pub(super) struct Named<T> {
    pub(super) name: &'static str,
    pub(super) of: fn(&RunArgs) -> &T,
}

/// The [`Named`] option of a group of arguments.
macro_rules! option {
    ($name:ident) => {
        $crate::settings::sources::Named { name: stringify!($name), of: |args| &args.$name }
    };
    ($group:ident.$name:ident) => {
        $crate::settings::sources::Named { name: stringify!($name), of: |args| &args.$group.$name }
    };
}
pub(super) use option;

/// The sources, the highest first.
pub(super) struct Sources(Vec<(Origin, RunArgs)>);

impl Sources {
    /// Parses all sources. `environment` looks up variables, `read_file` reads the settings file.
    pub(super) fn collect(
        command_line: RunArgs,
        environment: &Environment<'_>,
        read_file: &ReadFile<'_>,
    ) -> Result<Self, UsageError> {
        let mut sources = vec![(Origin::CommandLine, command_line)];
        for name in ["MCSUP_CMD_ARGS", "GUNICORN_CMD_ARGS"] {
            if let Some(value) = variable(environment, name)? {
                sources.push((Origin::Variable(name), args::parse_variable(name, &value)?));
            }
        }
        // Only the sources above the file may name it.
        let mut sources = Self(sources);
        if let Some(path) = sources.optional(option!(config), values::settings_file)? {
            let args = file::read(&path, read_file)?;
            sources.0.push((Origin::File(path.value.into()), args));
        }
        sources.add_lowest(environment)?;
        Ok(sources)
    }

    /// Adds the sources below the settings file.
    fn add_lowest(&mut self, environment: &Environment<'_>) -> Result<(), UsageError> {
        if let Some(workers) = variable(environment, "WEB_CONCURRENCY")? {
            let serving = ServingArgs { workers: Some(workers), ..ServingArgs::default() };
            let args = RunArgs { serving, ..RunArgs::default() };
            self.0.push((Origin::Variable("WEB_CONCURRENCY"), args));
        }
        if let Some(port) = variable(environment, "PORT")? {
            let serving = ServingArgs { bind: vec![format!("0.0.0.0:{port}")], ..ServingArgs::default() };
            let args = RunArgs { serving, ..RunArgs::default() };
            self.0.push((Origin::Variable("PORT"), args));
        }
        self.0.push((Origin::Default, defaults()?));
        Ok(())
    }

    /// A setting without a default.
    pub(super) fn optional<T>(
        &self,
        Named { name, of }: Named<Option<String>>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Option<Sourced<T>>, UsageError> {
        let found = self.0.iter().find_map(|(origin, args)| of(args).as_deref().map(|text| (origin, text)));
        let Some((origin, text)) = found else { return Ok(None) };
        let value = parse(text).map_err(|reason| refused(name, text, origin, &reason))?;
        Ok(Some(Sourced { value, origin: origin.clone() }))
    }

    /// A setting with a default.
    pub(super) fn one<T>(
        &self,
        option: Named<Option<String>>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<T>, UsageError> {
        let name = option.name;
        self.optional(option, parse)?.ok_or_else(|| UsageError::new(format!("{name} has no default")))
    }

    /// A repeatable setting.
    pub(super) fn many<T>(
        &self,
        Named { name, of }: Named<Vec<String>>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<Vec<T>>, UsageError> {
        let found = self.0.iter().find(|(_, args)| !of(args).is_empty());
        let Some((origin, args)) = found else {
            return Ok(Sourced { value: Vec::new(), origin: Origin::Default });
        };
        let parse = |text: &String| parse(text).map_err(|reason| refused(name, text, origin, &reason));
        let value = of(args).iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Sourced { value, origin: origin.clone() })
    }

    /// A flag that any source turns on; no source turns it off.
    pub(super) fn flag(&self, Named { of, .. }: Named<bool>) -> Sourced<bool> {
        match self.0.iter().find(|(_, args)| *of(args)) {
            Some((origin, _)) => Sourced { value: true, origin: origin.clone() },
            None => Sourced { value: false, origin: Origin::Default },
        }
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
pub(super) fn defaults() -> Result<RunArgs, UsageError> {
    let words = DEFAULTS.iter().flat_map(|(flag, value)| [*flag, *value]);
    args::parse_words("the defaults", words)
}

/// The error for a value that is refused.
pub(super) fn refused(name: &str, value: &str, origin: &Origin, reason: &str) -> UsageError {
    UsageError::new(format!("{name} = {value:?} (from {origin}): {reason}"))
}
