//! Which files count, and what is said of them. Pure, but for the directories of patterns and the kind of a path.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::pattern::Pattern;

/// Which files count. It only ever grows.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// The directory that relative paths begin at.
    here: PathBuf,
    /// Files that were named, or the application was loaded from.
    files: BTreeSet<PathBuf>,
    /// Directories of which every Python file counts.
    folders: BTreeSet<PathBuf>,
    patterns: Vec<Pattern>,
    /// The names of `files`, also of those to which they are links.
    names: HashSet<OsString>,
    /// Where those are.
    elsewhere: BTreeSet<PathBuf>,
}

impl Filter {
    /// Nothing counts yet.
    pub(super) fn new(here: &Path) -> Self {
        Self {
            here: here.to_owned(),
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            patterns: Vec::new(),
            names: HashSet::new(),
            elsewhere: BTreeSet::new(),
        }
    }

    /// A file, a directory (its files), or a pattern.
    pub(super) fn add_extra(&mut self, path: &Path) {
        let path = self.here.join(path);
        if path.is_dir() {
            self.patterns.extend(Pattern::all_in(&path));
        } else if let Some(pattern) = Pattern::new(&path).filter(|_| !path.exists()) {
            self.patterns.push(pattern);
        } else {
            self.name(&path, path.canonicalize().ok().as_deref());
        }
    }

    fn name(&mut self, path: &Path, real: Option<&Path>) {
        for path in [Some(path), real].into_iter().flatten() {
            self.names.extend(path.file_name().map(ToOwned::to_owned));
            self.elsewhere.extend(path.parent().map(Path::to_owned));
        }
        self.files.insert(path.to_owned());
    }

    /// Whether a file that was loaded is not known yet.
    pub(super) fn is_new(&self, file: &Path) -> bool {
        !self.files.contains(&self.here.join(file))
    }

    /// A file that was loaded; `real`: where it is when links are followed.
    pub(super) fn add_file(&mut self, file: &Path, real: Option<&Path>) {
        let file = self.here.join(file);
        self.folders.extend(file.parent().map(Path::to_owned));
        self.name(&file, real);
    }

    /// A directory of Python files.
    pub(super) fn add_folder(&mut self, folder: &Path) {
        self.folders.insert(self.here.join(folder));
    }

    /// Whether this file counts.
    pub(super) fn wants(&self, path: &Path) -> bool {
        self.misses(path)
            || (is_python(path) && path.parent().is_some_and(|parent| self.folders.contains(parent)))
    }

    /// Whether the removal of a file counts. That of a Python file which is not loaded does not.
    pub(super) fn misses(&self, path: &Path) -> bool {
        self.files.contains(path) || self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether a file of this name can count, wherever it is: the system may know its directory by another name.
    pub(super) fn may_want(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return false };
        is_python(path)
            || self.names.contains(name)
            || self.patterns.iter().any(|pattern| pattern.matches_name(&name.to_string_lossy()))
    }

    /// The files that count wherever they are.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The directories in which further files may count.
    pub(super) fn listed(&self) -> BTreeSet<PathBuf> {
        let mut found = self.folders.clone();
        for pattern in &self.patterns {
            pattern.directories(&mut found);
        }
        found
    }

    /// The directories in which something may happen that matters.
    pub(super) fn directories(&self) -> BTreeSet<PathBuf> {
        let mut found = self.listed();
        found.extend(self.elsewhere.iter().cloned());
        found
    }

    /// Describes a change in one line.
    pub(super) fn in_words(&self, changed: &BTreeSet<PathBuf>) -> String {
        let Some(first) = changed.first() else { return "nothing has changed".to_owned() };
        let name = first.strip_prefix(&self.here).unwrap_or(first).display().to_string();
        // A name may have anything in it.
        let name: String = name.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
        match changed.len() - 1 {
            0 => format!("{name} has changed"),
            more => format!("{name} has changed and {more} more"),
        }
    }
}

/// Whether Python can import a file, unlike an editor's temporary one.
fn is_python(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".py") && !name.starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        let mut filter = Filter::new(Path::new("/srv"));
        for extra in ["settings.toml", "templates/**/*.html", "/etc/app.ini"] {
            filter.add_extra(Path::new(extra));
        }
        filter.add_file(Path::new("/srv/app.py"), None);
        filter.add_file(Path::new("lib/fast.so"), Some(Path::new("/real/fast-1.so")));
        filter
    }

    #[test]
    fn loaded_files_and_python_files_beside_them_count_and_so_does_what_was_named() {
        let filter = filter();
        for (path, wants, misses) in [
            ("/srv/app.py", true, true),
            ("/srv/new.py", true, false),
            ("/srv/lib/fast.so", true, true),
            ("/srv/lib/new.py", true, false),
            ("/srv/lib/other.so", false, false),
            ("/srv/other/new.py", false, false),
            ("/srv/__pycache__/app.cpython-312.pyc", false, false),
            ("/srv/.#app.py", false, false),
            ("/srv/#app.py#", false, false),
            ("/srv/app.py~", false, false),
            ("/srv/.app.py.swp", false, false),
            ("/srv/app.log", false, false),
            ("/srv/settings.toml", true, true),
            ("/srv/templates/a.html", true, true),
            ("/srv/templates/deep/er/a.html", true, true),
            ("/srv/templates/a.txt", false, false),
            ("/etc/app.ini", true, true),
            ("/etc/other.ini", false, false),
        ] {
            let path = Path::new(path);
            assert_eq!((filter.wants(path), filter.misses(path)), (wants, misses), "{}", path.display());
            assert!(!wants || filter.may_want(path), "{}", path.display());
        }
    }

    #[test]
    fn a_hint_needs_the_right_name_only() {
        let filter = filter();
        for (path, may) in [
            ("/private/srv/app.py", true),
            ("/real/fast-1.so", true),
            ("/elsewhere/a.html", true),
            ("/srv/log", false),
            ("/srv/.app.py.swp", false),
            ("/", false),
        ] {
            assert_eq!(filter.may_want(Path::new(path)), may, "{path}");
        }
    }

    #[test]
    fn the_directories_are_those_of_the_files_also_behind_links() {
        let directories = filter().directories();
        let expected = ["/etc", "/real", "/srv", "/srv/lib"].map(PathBuf::from);
        // That of the templates is not there.
        let found: Vec<_> = directories.into_iter().filter(|path| !path.ends_with("templates")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_change_is_described_in_one_line() {
        let filter = filter();
        let words = |paths: &[&str]| filter.in_words(&paths.iter().map(PathBuf::from).collect());
        assert_eq!(words(&["/srv/lib/a.py"]), "lib/a.py has changed");
        assert_eq!(
            words(&["/srv/b.py", "/srv/app.py", "/etc/app.ini"]),
            "/etc/app.ini has changed and 2 more"
        );
        assert_eq!(words(&["/srv/a\nb.py"]), "a?b.py has changed");
    }
}
