//! Each folder uses only the folders above it in its list. The lists stand in docs/ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

use super::sources::{CRATES, code, sources, top};

/// Paths that code without side effects does not name.
const WORLD: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::time::Instant",
    "std::time::SystemTime",
    "rustix",
    "libc",
    "log::",
    "socket2",
];

/// One line of a list: a folder or file of `src`.
struct Part {
    name: String,
    is_pure: bool,
    may_be_unsafe: bool,
}

/// The list of a crate: the first code block of its section, one part a line, its marks in brackets.
fn list(crate_name: &str) -> Vec<Part> {
    let page = fs::read_to_string(top().join("docs/ARCHITECTURE.md")).unwrap();
    let (_, section) = page.split_once(&format!("\n## {crate_name}\n")).unwrap();
    let block = section.split("```").nth(1).unwrap();
    let lines = block.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let part = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap();
        Part {
            name: name.trim_end_matches('/').to_owned(),
            is_pure: rest.contains("[pure]"),
            may_be_unsafe: rest.contains("[unsafe]"),
        }
    };
    lines.map(part).collect()
}

fn src(crate_name: &str) -> PathBuf {
    top().join(crate_name).join("src")
}

/// The modules from the root of the crate to this file.
fn modules(src: &Path, path: &Path) -> Vec<String> {
    let below = path.strip_prefix(src).unwrap().with_extension("");
    let names = below.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// The first modules that a line names from the root of the crate.
fn used(line: &str) -> impl Iterator<Item = String> + '_ {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    line.split("crate::").skip(1).map(name)
}

/// How many `super::` a `use` begins with.
fn steps_up(line: &str) -> usize {
    let path = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
    path.strip_prefix("use ")
        .map_or(0, |path| path.split("super::").take_while(|part| part.is_empty()).count())
}

fn check_order(crate_name: &str) {
    let list = list(crate_name);
    let place = |name: &str| list.iter().position(|part| part.name == name);
    let src = src(crate_name);
    for path in sources(&src) {
        let modules = modules(&src, &path);
        let part = modules.first().map_or("", String::as_str);
        if ["lib", "main"].contains(&part) || modules.last().is_some_and(|name| name.ends_with("tests")) {
            continue;
        }
        let own = place(part).unwrap_or_else(|| panic!("{part} of {crate_name} is in no list"));
        for line in code(&path) {
            assert!(!line.contains("crate::{"), "{}: name the folder of each:\n{line}", path.display());
            assert!(steps_up(&line) < modules.len(), "{}: begin with crate::\n{line}", path.display());
            for used in used(&line) {
                let Some(other) = place(&used) else { continue };
                assert!(other <= own, "{} uses {used}, which comes after {part}:\n{line}", path.display());
            }
        }
    }
}

#[test]
fn a_folder_uses_only_the_folders_above_it() {
    CRATES.into_iter().for_each(check_order);
}

#[test]
fn every_part_of_a_list_is_there() {
    for crate_name in CRATES {
        let src = src(crate_name);
        let list = list(crate_name);
        assert!(list.len() > 5, "{crate_name} has a list of {}", list.len());
        for Part { name, .. } in list {
            let is_there = src.join(&name).is_dir() || src.join(&name).with_extension("rs").exists();
            assert!(is_there, "{crate_name} has no {name}");
        }
    }
}

#[test]
fn pure_folders_have_no_side_effects() {
    let mut count = 0;
    for crate_name in CRATES {
        for part in list(crate_name).iter().filter(|part| part.is_pure) {
            count += 1;
            for path in sources(&src(crate_name).join(&part.name)) {
                for line in code(&path) {
                    let named = WORLD.iter().find(|name| line.contains(**name));
                    assert!(named.is_none(), "{} names {}:\n{line}", path.display(), named.unwrap());
                }
            }
        }
    }
    assert_eq!(count, 2, "policy and http are pure");
}

#[test]
fn unsafe_code_stays_in_its_folders() {
    for crate_name in CRATES {
        let list = list(crate_name);
        let may = |name: &str| list.iter().any(|part| part.name == name && part.may_be_unsafe);
        let src = src(crate_name);
        for path in sources(&src) {
            let is_allowed = modules(&src, &path).first().is_some_and(|part| may(part));
            let is_used = code(&path).iter().any(|line| line.contains("unsafe"));
            assert!(is_allowed || !is_used, "{}", path.display());
        }
    }
}

#[test]
fn core_has_no_word_of_http_or_python() {
    for path in sources(&src("mcsup-core")) {
        for line in code(&path) {
            let lower = line.to_lowercase();
            let named = ["http", "python", "pyo3", "wsgi"].iter().find(|word| lower.contains(**word));
            assert!(named.is_none(), "{}:\n{line}", path.display());
        }
    }
}
