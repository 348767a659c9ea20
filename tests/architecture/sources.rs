//! Finds and reads the files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const CRATES: [&str; 3] = ["mcsup-core", "mcsup-py", "mcsup-cli"];

/// The folder of the workspace.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below `folder` with one of these extensions, sorted.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|own| extensions.iter().any(|other| own == *other)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All Rust files below `folder`.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

/// The lines of code of a file, without comments and without the tests at its end.
pub(crate) fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}
