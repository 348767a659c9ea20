//! Paths with wildcards: `*`, `?`, `[a-z]`, `[!a-z]` in a name, and `**` for directories of any depth.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

/// The rules of a shell: a wildcard matches no `/`, and no dot at the beginning of a name.
const AS_IN_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// An absolute path with wildcards in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    whole: glob::Pattern,
    /// The directory before the first name with wildcards.
    base: PathBuf,
    /// The names of directories below it.
    folders: Vec<Folder>,
    /// The name of the file.
    name: glob::Pattern,
}

/// One name between the base and the file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Folder {
    Plain(String),
    Wild(glob::Pattern),
    /// `**`
    AnyDepth,
}

impl Pattern {
    /// `None`: the path has no wildcards.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let mut names: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let first = names.iter().position(|name| is_wild(name))?;
        let wild = names.split_off(first);
        Self::below(names.iter().collect(), &wild)
    }

    /// Every visible file in `folder`.
    pub(super) fn all_in(folder: &Path) -> Option<Self> {
        // `/srv/.` and `/srv//` are `/srv`: patterns are compared as text.
        Self::below(folder.components().collect(), &["*".to_owned()])
    }

    fn below(base: PathBuf, names: &[String]) -> Option<Self> {
        let mut names: Vec<String> = names.iter().map(|name| well_formed(name)).collect();
        // `templates/**`: all files below.
        if names.last().is_some_and(|last| last == "**") {
            names.push("*".to_owned());
        }
        let escaped = glob::Pattern::escape(&base.to_string_lossy());
        let whole =
            glob::Pattern::new(&format!("{}/{}", escaped.trim_end_matches('/'), names.join("/"))).ok()?;
        let name = glob::Pattern::new(&names.pop()?).ok()?;
        let folder = |name: String| match name.as_str() {
            "**" => Some(Folder::AnyDepth),
            wild if is_wild(wild) => glob::Pattern::new(wild).ok().map(Folder::Wild),
            _ => Some(Folder::Plain(name)),
        };
        let folders = names.into_iter().map(folder).collect::<Option<_>>()?;
        Some(Self { whole, base, folders, name })
    }

    /// Whether the pattern matches this path.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.matches_name(&name) && self.whole.matches_with(&path.to_string_lossy(), AS_IN_A_SHELL)
    }

    /// Whether the pattern can match a file of this name.
    pub(super) fn matches_name(&self, name: &str) -> bool {
        matches(&self.name, name)
    }

    /// Adds the existing directories that can contain its files.
    pub(super) fn directories(&self, found: &mut BTreeSet<PathBuf>) {
        expand(&self.base, &self.folders, found);
    }
}

fn is_wild(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether a pattern without `/` matches a name. A leading dot must be in the pattern, also where `*` matches nothing.
fn matches(pattern: &glob::Pattern, name: &str) -> bool {
    let is_shown = !name.starts_with('.') || pattern.as_str().starts_with('.');
    is_shown && pattern.matches_with(name, AS_IN_A_SHELL)
}

/// A name that `glob` accepts: brackets of which one has no end are characters, and `a**` is `a*`.
fn well_formed(name: &str) -> String {
    if name == "**" {
        return name.to_owned();
    }
    let mut name = name.to_owned();
    while name.contains("**") {
        name = name.replace("**", "*");
    }
    let as_in_glob = name.replace("[^", "[!");
    if glob::Pattern::new(&as_in_glob).is_ok() { as_in_glob } else { name.replace('[', "[[]") }
}

fn expand(base: &Path, folders: &[Folder], found: &mut BTreeSet<PathBuf>) {
    let Some((first, rest)) = folders.split_first() else {
        found.insert(base.to_owned());
        return;
    };
    match first {
        Folder::Plain(name) => return expand(&base.join(name), rest, found),
        Folder::AnyDepth => expand(base, rest, found),
        Folder::Wild(_) => {}
    }
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        // Not through links, which may form a circle.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match first {
            Folder::AnyDepth if !name.starts_with('.') => expand(&entry.path(), folders, found),
            Folder::Wild(pattern) if matches(pattern, &name) => {
                expand(&entry.path(), rest, found);
            }
            _ => {}
        }
    }
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
            ("[^a]", "b", true),
            ("a[^b*", "a[^bc", true),
            ("a[^b*", "a[!bc", false),
            ("a**c", "abc", true),
            ("*", "", true),
            ("**", "anything", true),
        ] {
            let whole = Pattern::new(&Path::new("/t").join(pattern)).unwrap();
            assert_eq!(whole.matches_name(name), fits, "{pattern} {name}");
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
            ("/t/**", "/t/.git/a.txt", false),
            ("/t/**/b/**/*.txt", "/t/a/b/c/d.txt", true),
            ("/t [1/*", "/t [1/a", true),
        ] {
            let is_match = Pattern::new(Path::new(pattern)).unwrap().matches(Path::new(path));
            assert_eq!(is_match, fits, "{pattern} {path}");
        }
        assert_eq!(Pattern::new(Path::new("/t/a.html")), None);
    }

    #[test]
    fn all_files_of_a_folder_match_however_it_is_written() {
        for folder in ["/t", "/t/", "/t/.", "/t//", "/./t"] {
            assert!(Pattern::all_in(Path::new(folder)).unwrap().matches(Path::new("/t/a.toml")), "{folder}");
        }
        assert!(Pattern::all_in(Path::new("/")).unwrap().matches(Path::new("/a.toml")));
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
