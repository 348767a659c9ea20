//! The start of the interpreter: its command line, its paths, and the customisation that it has loaded.
//!
//! A second interpreter, without `site`, gets this description from the first one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mcsup_py::python::customisation;
use mcsup_py::python::interpreter;
use mcsup_py::python::site::{self, Deferred, Script};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::words;

/// Variable with the origin, for an interpreter without `site`.
///
/// `/proc/PID/environ` shows it permanently: it is a copy from the exec, which removing a variable does not change.
pub(super) const VARIABLE: &str = "MCSUP_ORIGIN";

/// The description of an interpreter's start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The words before the command's own arguments.
    pub(super) words: Vec<OsString>,
    /// `sys.argv[0]`.
    name: OsString,
    /// The file of `__main__`.
    file: OsString,
    /// The module of `__main__`, with `python -m`.
    module: Option<String>,
    /// Whether `__main__` is the command and no program that calls it.
    is_command: bool,
    /// The line of a distribution's script that extends `sys.path`.
    preparation: Option<String>,
    /// The first entry of `sys.path`, if Python added it for the script.
    folder: Option<OsString>,
    /// The rest of `sys.path`.
    path: Vec<OsString>,
    prefixes: (OsString, OsString),
    /// Whether the interpreter was started with `site`.
    has_site: bool,
    /// Modules that customisation loaded before this command; `None`: no customisation ran.
    customisation: Option<Vec<String>>,
}

impl Origin {
    /// Describes this interpreter. `own` is the number of the command's arguments, `package` the folder of mcsup.
    pub(super) fn of_this_process(py: Python<'_>, own: usize, package: &Path) -> PyResult<Self> {
        let Entry { file, module, is_command, preparation } = Entry::of_this_process(py, package)?;
        let sys = py.import("sys")?;
        let mut words: Vec<OsString> = sys.getattr("orig_argv")?.extract()?;
        words.truncate(words.len().saturating_sub(own));
        let flags = sys.getattr("flags")?;
        let flag = |name: &str| flags.getattr_opt(name)?.map_or(Ok(false), |value| value.is_truthy());
        let mut path = interpreter::search_path(py)?.into_iter();
        // Python 3.10 has no `safe_path`.
        let is_first = !flag("isolated")? && !flag("safe_path")?;
        let folder = if is_first { path.next().flatten() } else { None };
        let first = sys.getattr("argv")?.get_item(0);
        let name = first.and_then(|name| name.extract::<OsString>()).unwrap_or_default();
        Ok(Self {
            words,
            file: file.unwrap_or_else(|| name.clone()),
            name,
            module,
            is_command,
            preparation,
            folder,
            path: path.flatten().collect(),
            prefixes: (sys.getattr("prefix")?.extract()?, sys.getattr("exec_prefix")?.extract()?),
            has_site: !flag("no_site")?,
            customisation: customisation::found(py)?,
        })
    }

    /// Parses the origin that this interpreter was started with, and leaves `site` to the workers.
    pub(super) fn given(py: Python<'_>, text: &str, own: &[OsString]) -> PyResult<Self> {
        let origin: Self =
            serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
        if origin.has_site {
            site::defer(origin.deferred(own));
        }
        // The script that runs here is mcsup's own.
        py.import("sys")?.getattr("argv")?.set_item(0, &origin.name)?;
        Ok(origin)
    }

    fn deferred(&self, own: &[OsString]) -> Deferred {
        let script = Script {
            words: self.words.iter().chain(own).cloned().collect(),
            name: self.name.clone(),
            file: self.file.clone(),
            module: self.module.clone(),
            folder: self.folder.clone(),
            preparation: self.preparation.clone(),
        };
        Deferred {
            script: Some(script),
            path: self.path.iter().map(PathBuf::from).collect(),
            prefixes: Some(self.prefixes.clone()),
            modules: self.customisation.clone().unwrap_or_default(),
        }
    }

    /// Whether the supervisor needs another interpreter than this one.
    ///
    /// Not if a program has called the command: the workers inherit the changes of that program.
    pub(super) fn is_customised(&self) -> bool {
        self.is_command && self.customisation.is_some()
    }

    /// Names the process after its script, so that `pgrep mcsup` finds it.
    ///
    /// After an exec of the interpreter the name is `python`.
    pub(super) fn name_process(&self) {
        if !self.is_command || self.module.is_some() {
            return;
        }
        if let Some(name) = Path::new(&self.file).file_name() {
            // The kernel keeps 15 bytes. Where there is no /proc the name stays.
            let _ = std::fs::write("/proc/self/comm", name.as_bytes());
        }
    }

    /// Advice for a program that called the command in a process with other threads.
    pub(super) fn advice(&self, py: Python<'_>) -> Option<String> {
        let found = self
            .customisation
            .as_ref()
            .filter(|_| !self.is_command && customisation::has_other_threads(py))?;
        let found = match found.as_slice() {
            [] => String::new(),
            names => format!(" ({} loaded before mcsup)", names.join(", ")),
        };
        Some(format!(
            "threads run in the program that called mcsup{found}: start it as `mcsup` or `python -m mcsup`, and they are \
             started in each worker"
        ))
    }

    /// The interpreter's options, with `-S`.
    pub(super) fn options(&self) -> impl Iterator<Item = OsString> {
        words::options(&self.words).into_iter().chain(["-S".into()])
    }

    /// The text that [`Origin::given`] parses.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
