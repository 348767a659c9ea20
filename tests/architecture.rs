//! The order of the folders, held: each uses only those above it in its list. See docs/ARCHITECTURE.md. And what the
//! other pages say of the sources.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

const CORE: &[&str] = &[
    "error",
    "clock",
    "policy",
    "sys",
    "host",
    "listener",
    "link",
    "worker",
    "spawn",
    "control",
    "upgrade",
    "supervisor",
];
const PY: &[&str] = &["http", "net", "app", "access", "engine", "watch", "python", "wsgi", "worker"];

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
fn unsafe_code_stays_in_its_rooms() {
    let rooms =
        ["mcsup-core/src/sys", "mcsup-py/src/python", "mcsup-py/src/wsgi"].map(|room| top().join(room));
    for name in ["mcsup-core", "mcsup-py", "mcsup-cli"] {
        for path in sources(&top().join(name).join("src")) {
            let may = rooms.iter().any(|room| path.starts_with(room));
            assert!(may || !code(&path).iter().any(|line| line.contains("unsafe")), "{}", path.display());
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

#[test]
fn the_documented_phases_are_those_of_the_policy() {
    let source = fs::read_to_string(top().join("mcsup-core/src/policy/status.rs")).unwrap();
    let document = fs::read_to_string(top().join("docs/CONTROL.md")).unwrap();
    let (_, sentence) = document.split_once("`phase` is").unwrap();
    let documented: Vec<&str> = quoted(sentence.split(';').next().unwrap()).collect();
    let rows = source.lines().filter_map(|line| line.trim().strip_prefix("Phase::")?.split_once("=> \""));
    let names: Vec<&str> = rows.filter_map(|(_, word)| word.strip_suffix("\",")).collect();
    assert!(names.len() > 5, "{names:?}");
    assert_eq!(documented, names, "docs/CONTROL.md names other phases than the policy");
}

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of the tests in a file: Rust's functions behind `#[test]`, Python's that pytest collects.
fn tests_in(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name_of = |line: &str, word: &str| {
        let (name, _) = line.trim().strip_prefix(word)?.split_once('(')?;
        Some(name.to_owned())
    };
    if path.extension().is_some_and(|extension| extension == "py") {
        let names = text.lines().filter_map(|line| name_of(line, "def "));
        return names.filter(|name| name.starts_with("test_")).collect();
    }
    let behind_attribute = text.split("#[test]").skip(1);
    behind_attribute.filter_map(|rest| rest.lines().find_map(|line| name_of(line, "fn "))).collect()
}

#[test]
fn the_documented_tests_of_each_row_of_pep_3333_are_there() {
    let document = fs::read_to_string(top().join("docs/WSGI.md")).unwrap();
    let mut rows = 0;
    for line in document.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, number, _, _, cited, _] = cells[..] else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        rows += 1;
        assert_eq!(number, rows, "a row is missing or out of order");
        let (mut there, mut file, mut count) = (Vec::new(), "", 0);
        for word in quoted(cited) {
            if word.contains('/') {
                (there, file) = (tests_in(&top().join(word)), word);
            } else {
                assert!(there.iter().any(|name| name == word), "row {number}: {file} has no test {word}");
                count += 1;
            }
        }
        assert!(count > 0, "row {number} names no test");
    }
    assert_eq!(rows, 32);
}

#[test]
fn the_files_that_the_pages_name_are_there() {
    for entry in fs::read_dir(top().join("docs")).unwrap() {
        let page = entry.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            for word in quoted(line).filter(|word| word.starts_with("tests/") || word.starts_with("docs/")) {
                // A folder may be meant, or a module without its ending.
                let path = top().join(word);
                let is_there = path.exists() || path.with_extension("rs").exists();
                assert!(is_there, "{} names {word}, which is not there", page.display());
            }
        }
    }
}
