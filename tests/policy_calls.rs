//! The direction of the calls in `mcsup-core/src/policy`: from the machine to the parts, from these to the facts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of the folder. Each uses only those above it.
const ORDER: [&str; 14] = [
    "rules", "exit", "event", "notice", "effect", "jitter", "state", "table", "rollout", "status", "pool",
    "step", "restart", "PARTS",
];

/// Files with a state of their own, below all of the above. None uses another.
const PARTS: [&str; 8] = ["starts", "refusals", "molds", "reloads", "recycle", "scale", "upgrades", "stops"];

/// The files of the machine. Each calls only methods of itself and of those above it.
const MACHINE: [&str; 12] = [
    "record",
    "acts",
    "fill",
    "size",
    "recycling",
    "reload",
    "upgrade",
    "end",
    "failure",
    "mold",
    "worker",
    "machine",
];

fn policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy")
}

/// A file's code, without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The same in one line, with a call next to its object.
fn flat(path: &Path) -> String {
    let code = code(path);
    let words: Vec<&str> = code.split_whitespace().collect();
    words.join(" ").replace(" .", ".")
}

/// The names that follow `before` in `code`.
fn names<'a>(code: &'a str, before: &str) -> Vec<&'a str> {
    let rest = code.split(before).skip(1);
    let name = |rest: &'a str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    rest.filter_map(name).collect()
}

/// The names of the files in a folder, without their ending.
fn files(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_part_uses_the_facts_and_no_other_part() {
    let place = |name: &str| {
        let name = if PARTS.contains(&name) { "PARTS" } else { name };
        ORDER.iter().position(|other| *other == name)
    };
    for file in files(&policy()).into_iter().filter(|file| !["mod", "machine"].contains(&file.as_str())) {
        let own = place(&file).unwrap_or_else(|| panic!("{file} is in no list"));
        let code = code(&policy().join(&file).with_extension("rs"));
        let imports = names(&code, "super::").into_iter().chain(names(&code, "policy::"));
        for used in imports.filter(|used| *used != file) {
            assert!(
                place(used).is_some_and(|other| other < own),
                "{file} uses {used}, which is not above it"
            );
        }
    }
}

#[test]
fn the_machine_alone_changes_the_facts() {
    for file in files(&policy()).iter().filter(|file| *file != "machine") {
        let code = code(&policy().join(file).with_extension("rs"));
        for change in ["impl Machine", "&mut Pool", "&mut Table", "&mut Phase"] {
            assert!(!code.contains(change), "{file} has {change}");
        }
    }
}

#[test]
fn one_function_enters_a_phase() {
    for file in MACHINE.into_iter().filter(|file| !["acts", "machine"].contains(file)) {
        let code = flat(&policy().join("machine").join(file).with_extension("rs"));
        assert!(!code.contains("pool.phase = "), "{file} changes the phase by itself");
    }
    assert!(!flat(&policy().join("machine.rs")).contains("pool.phase = "));
}

#[test]
fn the_calls_within_the_machine_go_one_way() {
    let mut sources = BTreeMap::new();
    for file in MACHINE.into_iter().filter(|file| *file != "machine") {
        sources.insert(file, flat(&policy().join("machine").join(file).with_extension("rs")));
    }
    sources.insert("machine", flat(&policy().join("machine.rs")));
    let is_listed = |file: &String| MACHINE.contains(&file.as_str());
    assert!(files(&policy().join("machine")).iter().all(is_listed), "a file is in no list");
    let place = |file: &str| MACHINE.iter().position(|other| *other == file).unwrap();
    let mut methods = BTreeMap::new();
    for (file, code) in &sources {
        for name in names(code, "fn ") {
            let other = methods.insert(name, *file);
            assert!(other.is_none_or(|other| other == *file), "{name} is in {file} and in {other:?}");
        }
    }
    let mut calls = 0;
    for (file, code) in &sources {
        for name in names(code, "self.") {
            let Some(other) = methods.get(name).filter(|_| code.contains(&format!("self.{name}("))) else {
                continue;
            };
            calls += 1;
            assert!(place(other) <= place(file), "{file} calls {name} of {other}, which is below it");
        }
    }
    assert!(calls > 100, "{calls} calls are too few to be all");
}
