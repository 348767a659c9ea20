//! The standard library, as far as an application will import it, loaded by the process that forks the workers: they
//! share it, in memory and in the time that it takes to load. gunicorn's workers have the same of their arbiter by chance.
//!
//! No code of the application runs here, and none of its dependencies': their files are only looked through for what
//! they import at their top level. What is not found that way is imported by each worker, as ever. Where a file of the
//! application has the name of a module of the standard library nothing is shared, as then it may be meant.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::logging::Loggers;
use super::site::{self, Deferred};
use super::{directories, interpreter};

/// How many files are looked through: those of a web framework, and not of all that computes behind it.
const MOST_FILES: usize = 400;

/// Bytes; larger ones are data.
const LARGEST_FILE: u64 = 1 << 20;

/// Not for a process without a terminal or a display.
const NEVER: [&str; 11] = [
    "__main__",
    "antigravity",
    "this",
    "idlelib",
    "readline",
    "rlcompleter",
    // A worker's, where the interpreter was started without it.
    "site",
    "test",
    "tkinter",
    "turtle",
    "turtledemo",
];

/// They change the standard library, and want to be there before it.
const PATCHES: [&str; 2] = ["gevent", "eventlet"];

/// The modules that were imported here and not by Python itself.
static SHARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Loads what `module` will import of the standard library, if an interpreter runs.
///
/// `python_path` as for `loading::load`. An error is left to the workers, which report it.
pub fn share(module: &str, python_path: &[String]) {
    // SAFETY: may be called at any time.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        return;
    }
    Python::attach(|py| match load(py, module, python_path) {
        Ok(count) => log::debug!("{count} modules of the standard library are shared by all workers"),
        Err(error) => log::debug!("the standard library is not shared: {error}"),
    });
}

fn load(py: Python<'_>, module: &str, python_path: &[String]) -> PyResult<usize> {
    let deferred = site::deferred();
    let patch =
        deferred.iter().flat_map(|deferred| &deferred.modules).find(|name| PATCHES.contains(&name.as_str()));
    if let Some(name) = patch {
        log::debug!("{name} comes before the application: the standard library is not shared");
        return Ok(0);
    }
    let places = Places::of(py, python_path)?;
    if let Some(name) = places.shadowed().next() {
        log::debug!("{name} is a module of the application's: the standard library is not shared");
        return Ok(0);
    }
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let before = names_in(&modules);
    let prefixes = deferred.and_then(|deferred| deferred.prefixes);
    with_prefixes(py, prefixes, || {
        let mut search = Search::new(&places);
        // Each worker needs it for gunicorn's loggers.
        search.note("logging");
        let wanted = search.all_that_is_wanted_by(module);
        for name in &wanted {
            // Not there on this system, or not a module: the application knows what to do then.
            let _ = py.import(name.as_str());
        }
        if !wanted.is_empty() {
            // A worker reports the error.
            let _ = Loggers::import(py);
        }
    })?;
    let loaded: Vec<String> = names_in(&modules).difference(&before).cloned().collect();
    let count = loaded.len();
    if count > 0 {
        // A worker's collector would write into each of them, and have a copy of the page.
        py.import("gc")?.call_method0("freeze")?;
        SHARED.lock().unwrap_or_else(PoisonError::into_inner).extend(loaded);
    }
    Ok(count)
}

/// Does `act` while the interpreter has `prefixes`, which some modules remember. `site` finds what was there before.
fn with_prefixes(py: Python<'_>, prefixes: Option<(OsString, OsString)>, act: impl FnOnce()) -> PyResult<()> {
    let Some((prefix, exec_prefix)) = prefixes else {
        act();
        return Ok(());
    };
    let sys = py.import("sys")?;
    let before = (sys.getattr("prefix")?, sys.getattr("exec_prefix")?);
    sys.setattr("prefix", prefix)?;
    sys.setattr("exec_prefix", exec_prefix)?;
    act();
    sys.setattr("prefix", before.0)?;
    sys.setattr("exec_prefix", before.1)
}

fn names_in(modules: &Bound<'_, PyDict>) -> BTreeSet<String> {
    modules.keys().iter().filter_map(|name| name.extract().ok()).collect()
}

/// In a worker, before it imports the application: forgets whatever a file that has come to be since would be mistaken
/// for.
pub(super) fn forget_what_is_shadowed(py: Python<'_>, python_path: &[String]) -> PyResult<()> {
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.is_empty() {
        return Ok(());
    }
    let shadowed: HashSet<String> =
        Places::of(py, python_path)?.shadowed().filter(|name| shared.contains(name)).collect();
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    for name in shared.iter().filter(|name| shadowed.contains(top_of(name))) {
        modules.del_item(name)?;
    }
    Ok(())
}

/// Where modules are looked for.
struct Places {
    /// The application's own directories and whatever else comes before the standard library,
    first: Vec<PathBuf>,
    /// and what comes after it.
    last: Vec<PathBuf>,
    /// The names of the standard library's modules.
    standard: HashSet<String>,
}

impl Places {
    fn of(py: Python<'_>, python_path: &[String]) -> PyResult<Self> {
        let sys = py.import("sys")?;
        let standard = sys.getattr("stdlib_module_names")?.try_iter()?;
        let standard = standard.map(|name| name?.extract()).collect::<PyResult<_>>()?;
        let os: PathBuf = py.import("os")?.getattr("__file__")?.extract()?;
        let path: Vec<PathBuf> = match site::deferred() {
            Some(Deferred { script: Some(script), path, .. }) => {
                script.folder.into_iter().map(PathBuf::from).chain(path).collect()
            }
            _ => interpreter::search_path(py)?.into_iter().flatten().map(PathBuf::from).collect(),
        };
        let library = os
            .parent()
            .map_or(path.len(), |own| path.iter().position(|entry| entry == own).unwrap_or(path.len()));
        let (before, after) = path.split_at(library);
        let (mut first, start) = directories::first(python_path);
        first.extend(start);
        first.extend_from_slice(before);
        Ok(Self { first, last: after.to_vec(), standard })
    }

    /// Modules of the standard library whose names would load something else.
    fn shadowed(&self) -> impl Iterator<Item = String> + '_ {
        let entries = self.first.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
        entries.filter_map(|entry| module_of(&entry)).filter(|name| self.standard.contains(name))
    }
}

/// The module that a directory entry would be imported as.
fn module_of(entry: &fs::DirEntry) -> Option<String> {
    let name = entry.file_name().into_string().ok()?;
    match name.split_once('.') {
        Some((module, "py" | "pyc")) => Some(module.to_owned()),
        Some((module, rest)) if rest.ends_with("so") => Some(module.to_owned()),
        Some(_) => None,
        None => entry.path().join("__init__.py").is_file().then_some(name),
    }
}

/// From file to file along what they import.
struct Search<'a> {
    places: &'a Places,
    seen: HashSet<String>,
    /// Where the modules of each package are.
    packages: HashMap<String, PathBuf>,
    pending: VecDeque<String>,
    /// Of the standard library, in an order that is the same each time.
    wanted: BTreeSet<String>,
}

impl<'a> Search<'a> {
    fn new(places: &'a Places) -> Self {
        let (seen, packages, pending) = (HashSet::new(), HashMap::new(), VecDeque::new());
        Self { places, seen, packages, pending, wanted: BTreeSet::new() }
    }

    fn all_that_is_wanted_by(mut self, module: &str) -> BTreeSet<String> {
        self.note(module);
        let mut files = 0;
        while let Some(module) = self.pending.pop_front() {
            let Some(code) = self.read(&module) else { continue };
            let is_package = self.packages.contains_key(&module);
            let package = if is_package { module.as_str() } else { parent_of(&module) };
            for name in patches(&code) {
                self.note(name);
            }
            for (name, is_certain) in imports(&code, package) {
                // Perhaps a module, perhaps what a module defines.
                if is_certain || !self.is_standard(&name) {
                    self.note(&name);
                }
            }
            files += 1;
            if files == MOST_FILES {
                break;
            }
        }
        // One that is not there patches nothing: many libraries look for it.
        if PATCHES.iter().any(|name| self.seen.contains(*name) && self.read(name).is_some()) {
            self.wanted.clear();
        }
        self.wanted
    }

    /// The code of a module.
    fn read(&mut self, module: &str) -> Option<String> {
        let Some((package, name)) = module.rsplit_once('.') else {
            let places = self.places.first.iter().chain(&self.places.last);
            return places.into_iter().find_map(|place| self.read_in(place, module, module));
        };
        let folder = self.packages.get(package)?.clone();
        self.read_in(&folder, name, module)
    }

    fn read_in(&mut self, folder: &Path, name: &str, module: &str) -> Option<String> {
        let package = folder.join(name);
        if let Some(code) = code_of(&package.join("__init__.py")) {
            self.packages.insert(module.to_owned(), package);
            return Some(code);
        }
        code_of(&package.with_extension("py"))
    }

    /// A module is to be imported, and with it the packages that it is in.
    fn note(&mut self, module: &str) {
        let ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
        for name in ends.map(|end| &module[..end]) {
            if !self.seen.insert(name.to_owned()) {
                continue;
            }
            if !self.is_standard(name) {
                self.pending.push_back(name.to_owned());
            } else if !NEVER.contains(&top_of(name)) {
                self.wanted.insert(name.to_owned());
            }
        }
    }

    fn is_standard(&self, module: &str) -> bool {
        self.places.standard.contains(top_of(module))
    }
}

/// The text of a regular file, unless it is too large for source code.
fn code_of(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > LARGEST_FILE {
        return None;
    }
    fs::read_to_string(path).ok()
}

fn top_of(module: &str) -> &str {
    module.split('.').next().unwrap_or(module)
}

fn parent_of(module: &str) -> &str {
    module.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Which of [`PATCHES`] a module's code imports, wherever in it: a server's first function may do so as well.
fn patches(code: &str) -> impl Iterator<Item = &'static str> {
    PATCHES.into_iter().filter(|patch| {
        let lines = code.lines().filter(|line| line.contains(patch));
        lines
            .flat_map(|line| line.split([':', ';']))
            .any(|statement| imports_of(statement.trim_start(), patch))
    })
}

/// Whether a statement imports `wanted` or something in it.
fn imports_of(statement: &str, wanted: &str) -> bool {
    if let Some(modules) = statement.strip_prefix("import ") {
        return names(modules).any(|name| top_of(name) == wanted);
    }
    let from = statement.strip_prefix("from ").and_then(|rest| rest.split_whitespace().next());
    from.is_some_and(|name| top_of(name) == wanted)
}

/// The names that the code of a module in `package` imports at its top level, and whether each is certainly a module.
///
/// A line of a text that looks like an import counts too: then a module is loaded without need.
fn imports(code: &str, package: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for line in code.lines() {
        if let Some(modules) = line.strip_prefix("import ") {
            found.extend(names(modules).map(|name| (name.to_owned(), true)));
        } else if let Some((from, what)) =
            line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "))
        {
            let Some(base) = absolute(from.trim(), package) else { continue };
            found.extend(names(what.trim_start_matches('(')).map(|name| (format!("{base}.{name}"), false)));
            found.push((base, true));
        }
    }
    found
}

/// The names of `a, b.c as d  # why`.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let list = list.split(['#', ';', ')']).next().unwrap_or_default();
    let is_name = |name: &&str| name.chars().all(|one| one.is_alphanumeric() || one == '_' || one == '.');
    list.split(',').filter_map(|part| part.split_whitespace().next()).filter(is_name)
}

/// A module by its whole name: each dot in front but the first goes one package up.
fn absolute(name: &str, package: &str) -> Option<String> {
    let rest = name.trim_start_matches('.');
    let dots = name.len() - rest.len();
    if dots == 0 {
        return Some(rest.to_owned());
    }
    let base = (1..dots).fold(package, |package, _| parent_of(package));
    match (base.is_empty(), rest.is_empty()) {
        (true, _) => None,
        (false, true) => Some(base.to_owned()),
        (false, false) => Some(format!("{base}.{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str, package: &str) -> Vec<String> {
        imports(code, package)
            .into_iter()
            .map(|(name, is_certain)| name + if is_certain { "" } else { "?" })
            .collect()
    }

    #[test]
    fn imports_of_the_top_level_are_found_in_the_text() {
        for (code, expected) in [
            ("import os", vec!["os"]),
            ("import os.path as path, sys  # both", vec!["os.path", "sys"]),
            ("from email import utils", vec!["email.utils?", "email"]),
            ("from a.b import (c, d)", vec!["a.b.c?", "a.b.d?", "a.b"]),
            ("from a import (\n    b,\n)", vec!["a"]),
            ("    import lazily\nif True:\n    import perhaps", vec![]),
            ("from . import near", vec!["top.sub.near?", "top.sub"]),
            ("from ..other import x", vec!["top.other.x?", "top.other"]),
            ("from .... import too_far", vec![]),
            ("from a import *", vec!["a"]),
            ("imports = 1\nfromage = 2", vec![]),
        ] {
            assert_eq!(found(code, "top.sub"), expected, "{code}");
        }
    }

    fn places(files: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        for (name, code) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, code).unwrap();
        }
        let standard = ["os", "json", "email", "calendar", "this", "ssl"].map(str::to_owned).into();
        let places = Places { first: vec![dir.path().to_owned()], last: Vec::new(), standard };
        (dir, places)
    }

    fn wanted(files: &[(&str, &str)]) -> Vec<String> {
        let (_dir, places) = places(files);
        Search::new(&places).all_that_is_wanted_by("server").into_iter().collect()
    }

    #[test]
    fn what_is_imported_is_followed_to_the_standard_library_and_no_further() {
        let files = [
            ("server.py", "import web\nimport this\nimport not_there"),
            ("web/__init__.py", "from .inner import thing\nfrom . import other"),
            ("web/inner.py", "import json\nfrom email.utils import formatdate\nimport web"),
            ("web/other.py", "import os"),
            ("web/unused.py", "import ssl"),
        ];
        assert_eq!(wanted(&files), ["email", "email.utils", "json", "os"]);
    }

    #[test]
    fn nothing_is_wanted_beside_what_patches_it_wherever_that_is_imported() {
        for code in [
            "from gevent import monkey\nimport ssl",
            "import ssl\ndef main():\n    import os, gevent.monkey as monkey\n    monkey.patch_all()",
            "import ssl\nif ssl:\n\tfrom eventlet.green import socket",
            "import ssl\ntry: import eventlet; eventlet.monkey_patch()\nexcept ImportError: pass",
        ] {
            let patches = [("gevent/__init__.py", ""), ("eventlet.py", "")];
            assert_eq!(wanted(&[&[("server.py", code)][..], &patches].concat()), [""; 0], "{code}");
            assert_eq!(wanted(&[("server.py", code)]), ["ssl"], "not installed: {code}");
        }
        let other =
            "import ssl\n# gevent is not for us\ndef f():\n    from geventhttp import x\nimported = 'gevent'";
        assert_eq!(wanted(&[("server.py", other), ("gevent.py", "")]), ["ssl"]);
    }

    #[test]
    fn a_file_with_the_name_of_a_standard_module_is_noticed() {
        for (file, expected) in [
            ("calendar.py", Some("calendar")),
            ("json/__init__.py", Some("json")),
            ("json/data.txt", None),
            ("ssl.cpython-311-x86_64-linux-gnu.so", Some("ssl")),
            ("os.txt", None),
            ("server.py", None),
        ] {
            let (_dir, places) = places(&[(file, "")]);
            assert_eq!(places.shadowed().next().as_deref(), expected, "{file}");
        }
    }
}
