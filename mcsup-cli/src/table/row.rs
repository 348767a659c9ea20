//! A row of the table. `const` methods make rows, so that one reads like a sentence.

use super::as_key;

/// The values that a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Present or not; no source turns off a flag of another.
    Flag,
    /// One value; of several in one source the last counts.
    Value,
    /// Any number of values; a higher source replaces the whole list.
    List,
    /// A function, which only `gunicorn.conf.py` can define.
    Hook,
}

/// The commands that have a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `mcsup run` and `mcsup exec`.
    Pool,
    /// `mcsup run` alone: it is about a Python application.
    Application,
    /// The command line of `mcsup exec` alone.
    Program,
}

/// The treatment of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has its effect.
    Supported,
    /// It has no effect, for this reason; a warning says so.
    Ignored(&'static str),
    /// It is an error, for this reason.
    Refused(&'static str),
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Name in messages and files, with `_`.
    pub name: &'static str,
    /// Long option without `--`; empty: none.
    pub flag: &'static str,
    /// Short option.
    pub short: Option<char>,
    /// Further long options.
    pub aliases: &'static [&'static str],
    /// Environment variable.
    pub variable: Option<&'static str>,
    /// The variable's value stands behind this text.
    pub variable_prefix: &'static str,
    /// Values.
    pub kind: Kind,
    /// Name of the value in the help.
    pub value_name: &'static str,
    /// The words that it takes, which a shell completes; empty: others.
    pub words: &'static [&'static str],
    /// The value of a [`Kind::Value`] that is written without one; `None`: a value must follow.
    pub bare: Option<&'static str>,
    /// Default, as it would be written.
    pub default: Option<&'static str>,
    /// Default that depends on other things, in words; empty: none.
    pub default_in_words: &'static str,
    /// Meaning.
    pub help: &'static str,
    /// Version that has it first.
    #[allow(dead_code, reason = "docs/SETTINGS.md states it")]
    pub since: &'static str,
    /// Its name in gunicorn, also a key; empty: gunicorn lacks it.
    pub gunicorn: &'static str,
    /// Treatment.
    pub state: State,
    /// Values to which [`State`] does not apply: they ask for what happens anyway.
    pub harmless: &'static [&'static str],
    /// Commands.
    pub scope: Scope,
}

impl Row {
    const fn new(kind: Kind, name: &'static str, flag: &'static str, help: &'static str) -> Self {
        Self {
            name,
            flag,
            short: None,
            aliases: &[],
            variable: None,
            variable_prefix: "",
            kind,
            value_name: "",
            words: &[],
            bare: None,
            default: None,
            default_in_words: "",
            help,
            since: "0.1.0",
            gunicorn: "",
            state: State::Supported,
            harmless: &[],
            scope: Scope::Pool,
        }
    }

    /// A flag.
    pub(super) const fn flag(name: &'static str, flag: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Flag, name, flag, help)
    }

    /// A setting with one value.
    pub(super) const fn value(
        name: &'static str,
        flag: &'static str,
        value_name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { value_name, ..Self::new(Kind::Value, name, flag, help) }
    }

    /// A repeatable setting.
    pub(super) const fn list(
        name: &'static str,
        flag: &'static str,
        value_name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { value_name, ..Self::new(Kind::List, name, flag, help) }
    }

    /// A function of `gunicorn.conf.py`.
    pub(super) const fn hook(name: &'static str, help: &'static str) -> Self {
        Self::new(Kind::Hook, name, "", help).of_applications().as_in_gunicorn()
    }

    /// With a short option.
    pub(super) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// With further long options.
    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// With words that a shell completes.
    pub(super) const fn words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    /// With an environment variable.
    pub(super) const fn variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    /// With an environment variable whose value stands behind `prefix`.
    pub(super) const fn variable_behind(self, prefix: &'static str, variable: &'static str) -> Self {
        Self { variable: Some(variable), variable_prefix: prefix, ..self }
    }

    /// With a default, as it would be written.
    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// With a default that depends on other things.
    pub(super) const fn default_in_words(self, words: &'static str) -> Self {
        Self { default_in_words: words, ..self }
    }

    /// Of the same name in gunicorn.
    pub(super) const fn as_in_gunicorn(self) -> Self {
        self.gunicorn(self.name)
    }

    /// Of this name in gunicorn.
    pub(super) const fn gunicorn(self, name: &'static str) -> Self {
        Self { gunicorn: name, ..self }
    }

    /// Without an effect.
    pub(super) const fn ignored(self, reason: &'static str) -> Self {
        Self { state: State::Ignored(reason), ..self }
    }

    /// An error.
    pub(super) const fn refused(self, reason: &'static str) -> Self {
        Self { state: State::Refused(reason), ..self }
    }

    /// With values that ask for what happens anyway.
    pub(super) const fn harmless(self, values: &'static [&'static str]) -> Self {
        Self { harmless: values, ..self }
    }

    /// Only for Python applications.
    pub(super) const fn of_applications(self) -> Self {
        Self { scope: Scope::Application, ..self }
    }

    /// Only on the command line of `mcsup exec`.
    pub(super) const fn of_programs(self) -> Self {
        Self { scope: Scope::Program, ..self }
    }

    /// Whether it is an option or argument of the command line.
    pub(crate) fn is_on_command_lines(&self) -> bool {
        !self.flag.is_empty() || self.name == "app"
    }

    /// Whether it may stand in a settings file: all settings except the name of the file.
    pub(crate) fn is_in_files(&self) -> bool {
        self.scope != Scope::Program && self.name != "config"
    }

    /// All its long options.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static str> {
        [self.flag].into_iter().chain(self.aliases.iter().copied()).filter(|flag| !flag.is_empty())
    }

    /// All its keys. A name may be there several times.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        // An attribute of the package gunicorn is no key.
        let is_key = |name: &&str| !name.is_empty() && !name.contains('.');
        let names = [self.name, self.gunicorn].into_iter().filter(is_key);
        names.chain(self.flags()).map(as_key)
    }

    /// Whether it has its effect.
    pub(crate) fn is_supported(&self) -> bool {
        self.state == State::Supported
    }

    /// The help with variable and default.
    pub(crate) fn full_help(&self) -> String {
        let mut help = self.help.to_owned();
        match self.variable {
            Some(variable) if self.variable_prefix.is_empty() => help += &format!(" [env: {variable}]"),
            Some(variable) => help += &format!(" [env: {variable}, for {}{variable}]", self.variable_prefix),
            None => {}
        }
        match self.default {
            Some(default) => help + &format!(" [default: {default}]"),
            None if self.default_in_words.is_empty() => help,
            None => help + &format!(" [default: {}]", self.default_in_words),
        }
    }
}
