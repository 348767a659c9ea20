//! Finds and reads the files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const CRATES: [&str; 3] = ["mcsup-core", "mcsup-py", "mcsup-cli"];

/// The folder of the workspace.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below `folder` with one of these extensions, sorted. A link's files are listed at their own place.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files(&path, extensions));
        } else if kind.is_file()
            && path.extension().is_some_and(|own| extensions.iter().any(|other| own == *other))
        {
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

/// A folder of sources.
pub(crate) fn src(crate_name: &str) -> PathBuf {
    top().join(crate_name).join("src")
}

/// The modules from the root of the crate to this file.
pub(crate) fn modules(src: &Path, path: &Path) -> Vec<String> {
    let below = path.strip_prefix(src).unwrap().with_extension("");
    let names = below.iter().map(|name| name.to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// Whether a file has tests and nothing else.
pub(crate) fn is_of_tests(modules: &[String]) -> bool {
    modules.iter().any(|name| name == "tests" || name.ends_with("_tests"))
}

/// The code blocks of a section of docs/ARCHITECTURE.md.
pub(crate) fn blocks(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(top().join("docs/ARCHITECTURE.md")).unwrap();
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    section.split("```").skip(1).step_by(2).map(str::to_owned).collect()
}
