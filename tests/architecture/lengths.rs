//! Files and functions are short: the lengths that CONTRIBUTING.md names are those of the sources.

use std::fs;
use std::path::Path;

use super::sources::{CRATES, files, is_of_tests, modules, sources, src, top};

/// The most lines of a source with the unit tests in it.
const SOURCE: usize = 450;

/// The most lines of a file of tests.
const TESTS: usize = 600;

fn assert_short(path: &Path, limit: usize) {
    let length = fs::read_to_string(path).unwrap().lines().count();
    assert!(length <= limit, "{} has {length} lines, {limit} at most", path.display());
}

#[test]
fn no_file_is_long() {
    for src in CRATES.map(src) {
        for path in sources(&src) {
            assert_short(&path, if is_of_tests(&modules(&src, &path)) { TESTS } else { SOURCE });
        }
    }
    for path in ["tests", "examples"].map(|folder| files(&top().join(folder), &["rs", "py"])).concat() {
        assert_short(&path, TESTS);
    }
}

#[test]
fn contributing_names_the_lengths() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let clippy = read("clippy.toml");
    let function = clippy.lines().find_map(|line| line.strip_prefix("too-many-lines-threshold = ")).unwrap();
    let page = read("CONTRIBUTING.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = format!(
        "A source has at most {SOURCE} lines, its unit tests included; a file of tests has at most {TESTS}; a \
         function has at most {function}."
    );
    assert!(page.contains(&sentence), "CONTRIBUTING.md does not say: {sentence}");
}
