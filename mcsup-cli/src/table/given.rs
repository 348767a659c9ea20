//! The values that one source gives, by the names of their settings.

use std::collections::BTreeMap;

use super::{Kind, Row, Scope};

/// The work of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Served {
    /// A Python application: `mcsup run`.
    #[default]
    Application,
    /// A program of any language: `mcsup exec`.
    Program,
}

impl Served {
    /// Whether a setting has a meaning for it.
    pub(crate) fn has(self, row: &Row) -> bool {
        match row.scope {
            Scope::Pool => true,
            Scope::Application => self == Served::Application,
            Scope::Program => self == Served::Program,
        }
    }
}

/// The values of one source, as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// The work of the pool whose settings these are.
    pub served: Served,
    /// A flag that is on has no values, and one that is off has `false`; a [`Kind::Value`] has one or more, of which the last counts.
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Given {
    /// No values.
    pub(crate) fn none(served: Served) -> Self {
        Self { served, values: BTreeMap::new() }
    }

    /// Turns on a flag.
    pub(crate) fn turn_on(&mut self, row: &'static Row) {
        self.values.insert(row.name, Vec::new());
    }

    /// Turns a flag on. It is noted as off too, if that is another behaviour than what happens anyway.
    pub(crate) fn turn(&mut self, row: &'static Row, is_on: bool) {
        if is_on {
            self.turn_on(row);
        } else if row.harmless.contains(&"true") {
            self.give(row, vec!["false".to_owned()]);
        }
    }

    /// Gives values. An empty list gives nothing.
    pub(crate) fn give(&mut self, row: &'static Row, values: Vec<String>) {
        if !values.is_empty() {
            self.values.insert(row.name, values);
        }
    }

    /// Whether the setting is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of a setting.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).last().map(String::as_str)
    }

    /// The values of a repeatable setting.
    pub(crate) fn texts(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The names of all settings that are given, each with its values.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.values.iter().map(|(name, values)| (*name, values.as_slice()))
    }

    /// These values in the kind of the setting: `true` for a flag.
    pub(crate) fn one(row: &'static Row, text: String) -> Self {
        let mut given = Self::default();
        match row.kind {
            Kind::Flag => given.turn_on(row),
            Kind::Value | Kind::List | Kind::Hook => given.give(row, vec![text]),
        }
        given
    }
}
