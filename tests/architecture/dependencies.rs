//! The dependencies keep the rules of `deny.toml` about licences and doubled versions, also where cargo-deny is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::sources::top;

/// The rules.
fn rules() -> toml::Table {
    fs::read_to_string(top().join("deny.toml")).unwrap().parse().unwrap()
}

/// The strings of a list, or of the key `crate` in each of its tables.
fn strings(list: &toml::Value) -> Vec<&str> {
    let text = |value: &'_ toml::Value| value.as_str().is_some();
    let entries = list.as_array().unwrap().iter();
    entries
        .map(|entry| if text(entry) { entry } else { &entry["crate"] })
        .map(|s| s.as_str().unwrap())
        .collect()
}

/// The packages that a build for one of the rules' targets uses, tests included: name, version, licence.
fn packages(rules: &toml::Table) -> BTreeSet<(String, String, String)> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--all-features", "--format-version", "1"]).current_dir(top());
    for target in strings(&rules["graph"]["targets"]) {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]);
    let used: BTreeSet<_> = used.map(|id| id.as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| used.contains(package["id"].as_str().unwrap()));
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    packages
        .map(|package| (text(package, "name"), text(package, "version"), text(package, "license")))
        .collect()
}

/// Whether `allowed` is enough for an expression of SPDX. `WITH` binds first, then `AND`, then `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = any(&mut words, allowed);
    result && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut result = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed);
    }
    result
}

fn all(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    let mut result = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let result = any(words, allowed);
        return words.next() == Some(")") && result;
    }
    let Some(licence) = words.next() else { return false };
    match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
        Some(exception) => allowed.contains(&format!("{licence} WITH {exception}").as_str()),
        None => allowed.contains(&licence),
    }
}

#[test]
fn an_expression_of_licences_is_read_by_its_words() {
    for yes in ["MIT", "GPL-3.0 OR MIT", "Unlicense/MIT", "(MIT OR X) AND ISC", "A WITH B OR MIT"] {
        assert!(is_allowed(yes, &["MIT", "ISC"]), "{yes}");
    }
    for no in ["", "GPL-3.0", "MIT AND X", "X OR MIT AND X", "(MIT", "MIT)", "MIT WITH B", "mit", "MIT ISC"] {
        assert!(!is_allowed(no, &["MIT", "ISC"]), "{no}");
    }
}

#[test]
fn each_dependency_has_a_licence_that_deny_toml_allows() {
    let rules = rules();
    let allowed = strings(&rules["licenses"]["allow"]);
    let refused: Vec<_> =
        packages(&rules).into_iter().filter(|(.., text)| !is_allowed(text, &allowed)).collect();
    assert!(refused.is_empty(), "deny.toml does not allow the licences of {refused:?}");
}

#[test]
fn a_crate_is_there_in_one_version_or_deny_toml_says_why() {
    let rules = rules();
    let excepted = strings(&rules["bans"]["skip"]);
    let mut versions = BTreeMap::<_, Vec<_>>::new();
    for (name, version, _) in packages(&rules) {
        versions.entry(name).or_default().push(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let is_excepted = |name: &str, version: &str| {
        let begin = |entry: &&str| {
            entry.split_once(':').is_some_and(|(n, v)| n == name && version.starts_with(&format!("{v}.")))
        };
        excepted.iter().any(begin)
    };
    for (name, versions) in &versions {
        let others: Vec<_> = versions.iter().filter(|version| !is_excepted(name, version)).collect();
        assert!(
            others.len() < 2,
            "{name} is there as {others:?}: unify them, or except the older one in deny.toml"
        );
    }
    for entry in excepted {
        let (name, _) = entry.split_once(':').unwrap();
        assert!(versions.contains_key(name), "deny.toml excepts {entry}, which is there once");
    }
}
