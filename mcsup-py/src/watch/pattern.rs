//! Paths with wildcards: `*`, `?`, `[a-z]`, `[!a-z]` in a name, and `**` for directories of any depth.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// An absolute path with wildcards in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// What is before the first name with wildcards.
    base: PathBuf,
    /// The names of directories below it.
    folders: Vec<String>,
    /// The file's.
    name: String,
}

impl Pattern {
    /// `None`: there are no wildcards in it.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let mut names = path.components().map(|part| part.as_os_str());
        let is_wild = |name: &str| name.contains(['*', '?', '[']);
        let mut base = PathBuf::new();
        let first = names.by_ref().find(|name| {
            let is_first = is_wild(&name.to_string_lossy());
            if !is_first {
                base.push(name);
            }
            is_first
        })?;
        let mut folders: Vec<String> =
            [first].into_iter().chain(names).map(|name| name.to_string_lossy().into_owned()).collect();
        // `templates/**`: all files below.
        let name = if folders.last().is_some_and(|last| last == "**") {
            Some("*".to_owned())
        } else {
            folders.pop()
        };
        Some(Self { base, folders, name: name? })
    }

    /// Every visible file in `folder`.
    pub(super) fn all_in(folder: &Path) -> Self {
        Self { base: folder.to_owned(), folders: Vec::new(), name: "*".to_owned() }
    }

    /// Whether it is the pattern of this path.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.base) else { return false };
        let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
        let Some((name, folders)) = names.split_last() else { return false };
        self.matches_name(name) && match_folders(&self.folders, folders)
    }

    /// Whether it may be the pattern of a file of this name.
    pub(super) fn matches_name(&self, name: &str) -> bool {
        match_name(&self.name, name)
    }

    /// Adds the directories in which its files can be now.
    pub(super) fn directories(&self, found: &mut BTreeSet<PathBuf>) {
        expand(&self.base, &self.folders, found);
    }
}

fn expand(base: &Path, folders: &[String], found: &mut BTreeSet<PathBuf>) {
    let Some((first, rest)) = folders.split_first() else {
        found.insert(base.to_owned());
        return;
    };
    if first == "**" {
        expand(base, rest, found);
    } else if !first.contains(['*', '?', '[']) {
        return expand(&base.join(first), rest, found);
    }
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        // Not through links: they may lead round in a circle.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        match first.as_str() {
            "**" if !is_hidden(&name.to_string_lossy()) => expand(&entry.path(), folders, found),
            "**" => {}
            first if match_name(first, &name.to_string_lossy()) => expand(&entry.path(), rest, found),
            _ => {}
        }
    }
}

fn match_folders<T: AsRef<str>>(patterns: &[String], names: &[T]) -> bool {
    match (patterns.split_first(), names.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), None) => first == "**" && match_folders(rest, names),
        (Some((first, rest)), Some((name, others))) if first == "**" => {
            match_folders(rest, names) || (!is_hidden(name.as_ref()) && match_folders(patterns, others))
        }
        (Some((first, rest)), Some((name, others))) => {
            match_name(first, name.as_ref()) && match_folders(rest, others)
        }
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// As in a shell: a name that begins with a dot wants a pattern that does.
fn match_name(pattern: &str, name: &str) -> bool {
    if is_hidden(name) && !is_hidden(pattern) {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last star was, and what it was last tried with: one star to go back to is enough.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some('[') => {
                if let Some((fits, next)) = match_class(&pattern[at..], name[seen]) {
                    if fits {
                        (at, seen) = (at + next, seen + 1);
                        continue;
                    }
                } else if name[seen] == '[' {
                    (at, seen) = (at + 1, seen + 1);
                    continue;
                }
            }
            Some(other) if *other == '?' || *other == name[seen] => {
                (at, seen) = (at + 1, seen + 1);
                continue;
            }
            _ => {}
        }
        let Some((place, tried)) = star else { return false };
        star = Some((place, tried + 1));
        (at, seen) = (place + 1, tried + 1);
    }
    pattern[at..].iter().all(|left| *left == '*')
}

/// Whether a character is in the class at the beginning of `pattern`, and the length of that; `None`: it has no end,
/// and so is none.
fn match_class(pattern: &[char], character: char) -> Option<(bool, usize)> {
    let is_negated = matches!(pattern.get(1), Some('!' | '^'));
    let start = if is_negated { 2 } else { 1 };
    // One that comes first is a member.
    let end = (start + 1..pattern.len()).find(|at| pattern[*at] == ']')?;
    let members = &pattern[start..end];
    let mut at = 0;
    let mut is_member = false;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            is_member |= (members[at]..=members[at + 2]).contains(&character);
            at += 3;
        } else {
            is_member |= members[at] == character;
            at += 1;
        }
    }
    Some((is_member != is_negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.html", "a.html", true),
            ("*.html", ".html", false),
            ("*.html", "a.htm", false),
            ("*.html", "a.html~", false),
            (".*", ".env", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?.py", "é.py", true),
            ("?.py", "ab.py", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[!a-c]1", "d1", true),
            ("[]x]", "]", true),
            ("[x", "[x", true),
            ("*", "", true),
            ("**", "anything", true),
        ] {
            assert_eq!(match_name(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn paths_match_name_by_name() {
        for (pattern, path, fits) in [
            ("/t/*.html", "/t/a.html", true),
            ("/t/*.html", "/t/b/a.html", false),
            ("/t/*/a.html", "/t/b/a.html", true),
            ("/t/**/*.html", "/t/a.html", true),
            ("/t/**/*.html", "/t/b/c/a.html", true),
            ("/t/**/*.html", "/t/.git/a.html", false),
            ("/t/**/x/*.html", "/t/b/x/a.html", true),
            ("/t/**/x/*.html", "/t/b/a.html", false),
            ("/t/**", "/t/b/a.txt", true),
            ("/t/**", "/u/a.txt", false),
            ("/t/[ab]/*", "/t/c/x", false),
        ] {
            let is_match = Pattern::new(Path::new(pattern)).unwrap().matches(Path::new(path));
            assert_eq!(is_match, fits, "{pattern} {path}");
        }
        assert_eq!(Pattern::new(Path::new("/t/a.html")), None);
    }

    #[test]
    fn the_directories_of_a_pattern_are_those_that_are_there() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        for name in ["a/x/deep", "b/x", "b/.hidden", "c"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(top.path(), at("a/loop")).unwrap();
        for (pattern, expected) in [
            ("*.html", vec![""]),
            ("*/x/*.html", vec!["a/x", "b/x", "c/x"]),
            ("a/**/*.html", vec!["a", "a/x", "a/x/deep"]),
            ("**", vec!["", "a", "a/x", "a/x/deep", "b", "b/x", "c"]),
            ("missing/*/*", vec![]),
        ] {
            let mut found = BTreeSet::new();
            Pattern::new(&at(pattern)).unwrap().directories(&mut found);
            assert_eq!(found, expected.into_iter().map(at).collect(), "{pattern}");
        }
    }
}
