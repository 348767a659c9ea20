//! Where values come from, and which source wins.
//!
//! Every source is a command line in the end: the defaults are one, `PORT` and `WEB_CONCURRENCY` are a flag each, and
//! the two `*_CMD_ARGS` and the settings file are whole ones. So there is one table of flags, and one rule: the highest source that names a
//! setting gives it. A list is one value: a higher list replaces a lower one, as with gunicorn.

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::DEFAULTS;
use super::file::{self, ReadFile};
use super::values::{self, Refused};
use crate::args::{self, RunArgs, UsageError};

/// Looks a variable up in an environment.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it.
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

/// A value that remembers where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// What was given.
    pub value: T,
    /// By whom.
    pub origin: Origin,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The sources, the one that wins first.
pub(super) struct Sources(Vec<(Origin, RunArgs)>);

impl Sources {
    /// Collects what was given. Reads the environment through `environment` only, the settings file through `read_file`.
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
        // Whoever stands above it may name it, whoever stands below may not.
        let mut sources = Self(sources);
        if let Some(path) = sources.optional("config", |args| &args.config, values::settings_file)? {
            let args = file::read(&path, read_file)?;
            sources.0.push((Origin::File(path.value.into()), args));
        }
        sources.add_lowest(environment)?;
        Ok(sources)
    }

    /// What counts where nobody wrote an option.
    fn add_lowest(&mut self, environment: &Environment<'_>) -> Result<(), UsageError> {
        if let Some(workers) = variable(environment, "WEB_CONCURRENCY")? {
            let args = RunArgs { workers: Some(workers), ..RunArgs::default() };
            self.0.push((Origin::Variable("WEB_CONCURRENCY"), args));
        }
        if let Some(port) = variable(environment, "PORT")? {
            let args = RunArgs { bind: vec![format!("0.0.0.0:{port}")], ..RunArgs::default() };
            self.0.push((Origin::Variable("PORT"), args));
        }
        self.0.push((Origin::Default, defaults()?));
        Ok(())
    }

    /// A setting that may be left out.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        field: impl Fn(&RunArgs) -> &Option<String>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Option<Sourced<T>>, UsageError> {
        let found =
            self.0.iter().find_map(|(origin, args)| field(args).as_deref().map(|text| (origin, text)));
        let Some((origin, text)) = found else { return Ok(None) };
        let value = parse(text).map_err(|reason| refused(name, text, origin, &reason))?;
        Ok(Some(Sourced { value, origin: origin.clone() }))
    }

    /// A setting that has a default.
    pub(super) fn one<T>(
        &self,
        name: &str,
        field: impl Fn(&RunArgs) -> &Option<String>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<T>, UsageError> {
        self.optional(name, field, parse)?.ok_or_else(|| UsageError::new(format!("{name} has no default")))
    }

    /// A setting that may be given repeatedly.
    pub(super) fn many<T>(
        &self,
        name: &str,
        field: impl Fn(&RunArgs) -> &Vec<String>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Sourced<Vec<T>>, UsageError> {
        let found = self.0.iter().find(|(_, args)| !field(args).is_empty());
        let Some((origin, args)) = found else {
            return Ok(Sourced { value: Vec::new(), origin: Origin::Default });
        };
        let parse = |text: &String| parse(text).map_err(|reason| refused(name, text, origin, &reason));
        let value = field(args).iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Sourced { value, origin: origin.clone() })
    }

    /// A flag that is on where any source names it; no source can turn it off.
    pub(super) fn flag(&self, field: impl Fn(&RunArgs) -> bool) -> Sourced<bool> {
        match self.0.iter().find(|(_, args)| field(args)) {
            Some((origin, _)) => Sourced { value: true, origin: origin.clone() },
            None => Sourced { value: false, origin: Origin::Default },
        }
    }
}

/// A variable that is set and not empty: shells and container files leave `PORT=` behind where they mean "not set".
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

/// A value that cannot be.
pub(super) fn refused(name: &str, value: &str, origin: &Origin, reason: &str) -> UsageError {
    UsageError::new(format!("{name} = {value:?} (from {origin}): {reason}"))
}
