//! The pages in `docs/` agree with the sources.

use std::fs;
use std::path::{Path, PathBuf};

use super::sources::{CRATES, files, sources, src, top};

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
    let rows = source.lines().filter_map(|line| line.trim().strip_prefix("PoolPhase::")?.split_once("=> \""));
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

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Every page of the project.
fn pages() -> Vec<PathBuf> {
    let at_top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| top().join(name));
    let of_crates = CRATES.map(|name| top().join(name).join("README.md"));
    let below = ["docs", "examples", "mcsup-py/fuzz"].map(|folder| files(&top().join(folder), &["md"]));
    at_top.into_iter().chain(of_crates).chain(below.concat()).collect()
}

/// A page that is published outside of the repository links to its files by this address.
const REPOSITORY: &str = "https://github.com/mcsup/mcsup/blob/main/";

#[test]
fn the_links_of_the_pages_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| target.starts_with(REPOSITORY) || !target.contains("://")) {
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let file = match file.strip_prefix(REPOSITORY) {
                Some(file) => top().join(file),
                None if file.is_empty() => page.clone(),
                None => page.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{} links to {target}", page.display());
            if !wanted.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let is_there = text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted);
                assert!(is_there, "{} links to {target}", page.display());
            }
        }
    }
}

/// Whether a word names a file, folder or module below `folder`.
fn is_there(folder: &Path, word: &str) -> bool {
    let path = folder.join(word);
    path.exists() || path.with_extension("rs").exists()
}

#[test]
fn the_files_that_the_pages_name_are_there() {
    let roots = ["tests/", "docs/", "examples/", "mcsup-core/", "mcsup-py/", "mcsup-cli/"];
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let words = text.lines().flat_map(quoted).filter_map(|quoted| quoted.split(' ').next());
        for word in words {
            let is_path = roots.iter().any(|root| word.starts_with(root));
            assert!(
                !is_path || is_there(&top(), word),
                "{} names {word}, which is not there",
                page.display()
            );
        }
    }
}

/// Whether a word names a module by its path in a crate, and none is there. `crates`: those that the text may mean.
fn is_lost(word: &str, crates: &[&str]) -> Option<bool> {
    let path = word.split("::").next().unwrap_or_default();
    let (first, _) = path.split_once('/').filter(|(first, _)| !first.is_empty() && !path.contains(' '))?;
    let folders: Vec<_> =
        crates.iter().map(|name| src(name)).filter(|src| src.join(first).is_dir()).collect();
    (!folders.is_empty()).then(|| !folders.iter().any(|folder| is_there(folder, path)))
}

#[test]
fn the_modules_that_the_architecture_and_contributing_name_are_there() {
    let mut count = 0;
    for name in ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let page = fs::read_to_string(top().join(name)).unwrap();
        for (section, text) in page.split("\n## ").map(|part| part.split_once('\n').unwrap_or((part, ""))) {
            let own: Vec<_> = CRATES.into_iter().filter(|name| *name == section).collect();
            let crates = if own.is_empty() { CRATES.to_vec() } else { own };
            for word in text.lines().flat_map(quoted) {
                let Some(is_lost) = is_lost(word, &crates) else { continue };
                assert!(!is_lost, "{name}, {section}: there is no {word}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count} modules are named");
}

#[test]
fn the_modules_that_comments_name_are_there() {
    for path in CRATES.into_iter().flat_map(|name| sources(&src(name))) {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text.lines().filter(|line| line.trim_start().starts_with("//"));
        for word in comments.flat_map(quoted) {
            assert!(is_lost(word, &CRATES) != Some(true), "{}: there is no {word}", path.display());
        }
    }
}
