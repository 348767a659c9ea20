//! How the interpreter was started, and what had happened to it by then. The interpreter that supervises is another one
//! where that matters, and learns it from the first one.

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

/// Names the origin to an interpreter that was started without `site`. `/proc/PID/environ` of the supervisor and its
/// workers shows it for good: that is the memory of the exec, which removing a variable does not change.
pub(super) const VARIABLE: &str = "MCSUP_ORIGIN";

/// The start of an interpreter.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    /// All words before those of the command.
    pub(super) words: Vec<OsString>,
    /// `sys.argv[0]`.
    name: OsString,
    /// The file of `__main__`.
    file: OsString,
    /// The module that `python -m` has found for `__main__`.
    module: Option<String>,
    /// Whether `__main__` is the command, and no program that calls it.
    is_command: bool,
    /// The line with which a distribution's script adds to `sys.path`.
    preparation: Option<String>,
    /// The first entry of `sys.path`, where Python has put it there for the script.
    folder: Option<OsString>,
    /// The rest of `sys.path`.
    path: Vec<OsString>,
    prefixes: (OsString, OsString),
    /// Whether the operator wants `site`.
    has_site: bool,
    /// What has run before this command, if anything has.
    customisation: Option<Vec<String>>,
}

impl Origin {
    /// The start of this interpreter; `own` are the words of the command, `package` is the folder of mcsup.
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

    /// The origin in `text`, which this interpreter was started with. It leaves `site` to the workers.
    pub(super) fn given(py: Python<'_>, text: &str, own: &[OsString]) -> PyResult<Self> {
        let origin: Self =
            serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
        if origin.has_site {
            site::defer(origin.deferred(own));
        }
        // What was started here is a script of ours.
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

    /// Whether a supervisor is to run in another interpreter than this one. Not where another program has called the
    /// command: what that has done in this process is meant for the workers.
    pub(super) fn is_customised(&self) -> bool {
        self.is_command && self.customisation.is_some()
    }

    /// Gives the process the name that the kernel gives one whose file is the script, so that `pgrep mcsup` finds it. An
    /// exec of the interpreter, for want of customisation or for an upgrade, has called it `python`.
    pub(super) fn name_process(&self) {
        if !self.is_command || self.module.is_some() {
            return;
        }
        if let Some(name) = Path::new(&self.file).file_name() {
            // The kernel keeps 15 bytes. Where there is no /proc the name stays.
            let _ = std::fs::write("/proc/self/comm", name.as_bytes());
        }
    }

    /// Advice to an operator whose program has called the command in a process that cannot fork.
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

    /// The interpreter's own options, and no `site`.
    pub(super) fn options(&self) -> impl Iterator<Item = OsString> {
        words::options(&self.words).into_iter().chain(["-S".into()])
    }

    /// As [`Origin::given`] reads it.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
