//! No comment, page or name has a word of the list: plain technical English says the same.

use std::fs;
use std::path::Path;

use super::sources::{files, top};

/// The words, and in their place: the noun that is meant, *it*, or the plain verb.
const WORDS: [&str; 32] = [
    "who",
    "whom",
    "whoever",
    "whomever",
    "he",
    "him",
    "his",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "anew",
    "is told",
    "are told",
    "was told",
    "were told",
    "been told",
    "be told",
    "not told",
    "told of",
    "told yet",
    "tells of",
    "hear of",
    "hears of",
    "heard of",
    "so many",
    "let go of",
    "lets go of",
    "letting go of",
    "heard out",
    "which is to be",
    "in vain",
];

/// Where the sources and pages are.
const FOLDERS: [&str; 7] = [".github", "docs", "examples", "mcsup-cli", "mcsup-core", "mcsup-py", "tests"];

/// The file that has to name the words.
const THIS: &str = "tests/architecture/words.rs";

/// A finding: line and word.
type Finding = (usize, &'static str);

/// Log lines that tests cite. The log's lines stay as they are.
const CITED: [&str; 2] = ["its client was told", "somebody asked for it"];

/// A page is prose as a whole, and so are the sentences of a test. Of other sources the comments and names are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Page,
    Test,
    Product,
}

fn kind(path: &Path) -> Kind {
    let is_of_tests = |part: &str| part == "tests" || part.ends_with("tests.rs");
    match path.extension() {
        Some(extension) if extension == "md" => Kind::Page,
        _ if path.iter().any(|part| part.to_str().is_some_and(is_of_tests)) => Kind::Test,
        _ => Kind::Product,
    }
}

/// The prose of a source or page, line by line and without the marks of comments.
fn prose(kind: Kind, text: &str) -> Vec<String> {
    let plain = |line: &str| {
        let line = line.trim();
        if kind == Kind::Page {
            return line.to_owned();
        }
        let comment = line.trim_start_matches(['/', '!', '#', '*']);
        let is_code = comment.len() == line.len();
        words_of_names(&if is_code { without_literals(line, kind) } else { comment.to_owned() })
    };
    let cited = |text: String, line: &str| text.replace(line, "");
    CITED.into_iter().fold(text.to_owned(), cited).lines().map(plain).collect()
}

/// Names in snake and camel case, word by word.
fn words_of_names(text: &str) -> String {
    let mut words = String::new();
    for c in text.chars() {
        if c.is_uppercase() && words.ends_with(char::is_lowercase) {
            words.push(' ');
        }
        words.push(if c == '_' { ' ' } else { c });
    }
    words
}

/// Text in quotes is for an operator and stays as it is, or for a reader of tests if it has several words.
fn without_literals(line: &str, kind: Kind) -> String {
    if line.contains("\"\"\"") {
        return line.to_owned();
    }
    let is_kept = |(at, part): &(usize, &str)| at % 2 == 0 || kind == Kind::Test && part.contains(' ');
    let parts: Vec<_> = line.split('"').enumerate().filter(is_kept).map(|(_, part)| part).collect();
    parts.join(" ")
}

/// The words in `lines`, also where a line ends in the middle of one.
fn findings(lines: &[String]) -> Vec<Finding> {
    let (mut text, mut starts) = (String::new(), Vec::new());
    for line in lines {
        starts.push(text.len());
        text.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
        text.push(' ');
    }
    let mut found = Vec::new();
    for word in WORDS {
        for (at, _) in text.match_indices(word) {
            let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let (before, behind) = (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
            if !is_letter(before) && !is_letter(behind) {
                found.push((starts.partition_point(|start| *start <= at), word));
            }
        }
    }
    found
}

fn findings_in(path: &Path) -> Vec<Finding> {
    let below = path.strip_prefix(top()).unwrap();
    findings(&prose(kind(below), &fs::read_to_string(path).unwrap()))
}

#[test]
fn the_words_are_plain() {
    let top = top();
    let mut paths: Vec<_> = FOLDERS
        .iter()
        .flat_map(|folder| files(&top.join(folder), &["rs", "py", "md", "sh", "toml", "txt", "yml"]))
        .collect();
    let pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let manifests = ["Makefile", "pyproject.toml", "Cargo.toml", "deny.toml"];
    paths.extend([pages, manifests].concat().iter().map(|name| top.join(name)));
    paths.extend(Some(top.join(".ci/run")).filter(|path| path.exists()));
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.strip_prefix(&top).unwrap();
        if name == Path::new(THIS) || name.components().any(|part| part.as_os_str() == "target") {
            continue;
        }
        let in_its_name = findings(&[words_of_names(name.to_str().unwrap())]);
        for (line, word) in in_its_name.into_iter().chain(findings_in(&path)) {
            wrong.push(format!("{}:{line}: {word}", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_word_is_found_in_a_comment_and_in_a_name_and_in_a_sentence_of_a_test() {
    let lines = |path: &str, text: &str| findings(&prose(kind(Path::new(path)), text));
    assert_eq!(lines("core/src/a.rs", "/// It is\n    /// told.\n"), [(1, "is told")]);
    assert_eq!(lines("core/src/a.rs", "fn nobody_waits() {}\n"), [(1, "nobody")]);
    assert_eq!(
        lines("core/src/a.rs", "enum ToldNobody {}\n// If \"somebody\" asks.\n"),
        [(1, "nobody"), (2, "somebody")]
    );
    assert_eq!(lines("core/src/a.rs", "log(\"nobody listens\"); // A renewal.\n"), []);
    for path in ["tests/core/a.rs", "core/src/a_tests.rs"] {
        assert_eq!(lines(path, "run_as(\"nobody\"); assert!(ok, \"nobody listens\");\n"), [(1, "nobody")]);
    }
}
