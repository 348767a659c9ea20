//! The order of the folders, held: each uses only those above it in its list. See docs/ARCHITECTURE.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

const CORE: &[&str] =
    &["error", "clock", "policy", "sys", "host", "listener", "link", "worker", "spawn", "supervisor"];
const PY: &[&str] = &["http", "net", "app", "access", "engine", "python", "wsgi", "worker"];

/// What pure folders must not name: the world.
const WORLD: &[&str] = &[
    "std::fs",
    "std::net",
    "std::time::Instant",
    "std::time::SystemTime",
    "rustix",
    "libc",
    "log::",
    "socket2",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file's lines of code: without comments, and without the tests at its end.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

/// The folder (or file) directly below `src` to which a file belongs.
fn part_of(src: &Path, path: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn check_order(crate_name: &str, order: &[&str]) {
    let src = top().join(crate_name).join("src");
    for path in sources(&src) {
        let part = part_of(&src, &path);
        if part == "lib" || path.ends_with("tests.rs") {
            continue;
        }
        let place = order.iter().position(|other| *other == part);
        let place = place.unwrap_or_else(|| panic!("{part} of {crate_name} is in no list"));
        for line in code(&path) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = order.iter().position(|name| *name == used) else { continue };
                assert!(other <= place, "{} uses {used}, which comes after {part}:\n{line}", path.display());
            }
        }
    }
}

#[test]
fn a_folder_uses_only_the_folders_above_it() {
    check_order("mcsup-core", CORE);
    check_order("mcsup-py", PY);
}

#[test]
fn pure_folders_know_nothing_of_the_world() {
    for folder in ["mcsup-core/src/policy", "mcsup-py/src/http"] {
        for path in sources(&top().join(folder)) {
            for line in code(&path) {
                let named = WORLD.iter().find(|name| line.contains(**name));
                assert!(named.is_none(), "{} names {}:\n{line}", path.display(), named.unwrap());
            }
        }
    }
}

#[test]
fn core_has_no_word_of_http_or_python() {
    for path in sources(&top().join("mcsup-core/src")) {
        for line in code(&path) {
            let lower = line.to_lowercase();
            let named = ["http", "python", "pyo3", "wsgi"].iter().find(|word| lower.contains(**word));
            assert!(named.is_none(), "{}:\n{line}", path.display());
        }
    }
}

#[test]
fn the_documented_signals_are_those_of_the_table() {
    let table = fs::read_to_string(top().join("mcsup-core/src/supervisor/signals.rs")).unwrap();
    let document = fs::read_to_string(top().join("docs/SIGNALS.md")).unwrap();
    let supervisor = document.split("## To a worker").next().unwrap();
    let names = table.lines().filter_map(|line| line.trim().strip_prefix("(libc::SIG")?.split(',').next());
    for name in names {
        let documented = supervisor.lines().any(|row| {
            let cell = row.split('|').nth(1).unwrap_or_default();
            cell.split([',', ' ']).any(|word| word == name)
        });
        assert!(documented, "docs/SIGNALS.md does not say what {name} means");
    }
}
