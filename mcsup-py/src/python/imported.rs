//! The files of imported modules, which a reload loads again.
//!
//! Without those of the standard library, which are not edited, and of mcsup, which the supervisor has loaded.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

/// Where packages are installed, below the standard library's directory.
const INSTALLED: [&str; 2] = ["site-packages", "dist-packages"];

/// `sys.modules`, looked at again and again.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// How many modules there were.
    count: usize,
    standard: Option<PathBuf>,
}

impl Imported {
    /// The files of all modules that are imported now; nothing where there are as many as the last time.
    ///
    /// No code of a module runs: neither a lazy one is loaded by it, nor one asked that has a mind of its own.
    ///
    /// # Errors
    /// `sys.modules` is not what it should be.
    pub(crate) fn look(&mut self, py: Python<'_>) -> PyResult<Vec<PathBuf>> {
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        if modules.len() == self.count {
            return Ok(Vec::new());
        }
        self.count = modules.len();
        if self.standard.is_none() {
            // Pure, and loaded from where the standard library is, in a virtual environment as well.
            self.standard = file_of(py.import("os")?.as_any()).and_then(|os| Some(os.parent()?.to_owned()));
        }
        // A copy: another thread may import something meanwhile.
        let files = modules.copy()?.iter().filter(|(name, _)| !is_ours(name));
        let files = files.filter_map(|(_, module)| file_of(&module));
        Ok(files.filter(|file| !self.is_standard(file)).collect())
    }

    fn is_standard(&self, file: &Path) -> bool {
        let below = self.standard.as_ref().and_then(|standard| file.strip_prefix(standard).ok());
        below.is_some_and(|below| !INSTALLED.iter().any(|name| below.starts_with(name)))
    }
}

/// The script that started us, and our own package.
fn is_ours(name: &Bound<'_, PyAny>) -> bool {
    let name = name.extract::<String>().unwrap_or_default();
    name == "__main__" || name == "mcsup" || name.starts_with("mcsup.")
}

fn file_of(module: &Bound<'_, PyAny>) -> Option<PathBuf> {
    let module = module.cast::<PyModule>().ok()?;
    module.dict().get_item("__file__").ok()??.extract().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_not_of_the_standard_library_although_they_are_below_it() {
        let imported = Imported { count: 0, standard: Some(PathBuf::from("/usr/lib/python3.12")) };
        for (file, expected) in [
            ("/usr/lib/python3.12/json/__init__.py", true),
            ("/usr/lib/python3.12/lib-dynload/_json.so", true),
            ("/usr/lib/python3.12/site-packages/flask/app.py", false),
            ("/usr/lib/python3.12/dist-packages/six.py", false),
            ("/usr/lib/python3/dist-packages/six.py", false),
            ("/srv/venv/lib/python3.12/site-packages/flask/app.py", false),
            ("/srv/app.py", false),
        ] {
            assert_eq!(imported.is_standard(Path::new(file)), expected, "{file}");
        }
    }
}
