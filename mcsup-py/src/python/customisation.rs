//! Whether the user's customisation has run in an interpreter that was started with `site`.

use std::collections::HashSet;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Files of a virtual environment's or a distribution's own tools, by module. They start no thread and change nothing
/// that a worker cannot inherit: setuptools' and virtualenv's look after `distutils`, Ubuntu's reports exceptions.
const HARMLESS: [&str; 3] = ["_distutils_hack", "_virtualenv", "apport_python_hook"];

/// Modules that find packages which are installed as editable, by how their names begin: setuptools', and the two of
/// hatchling. They hold a table of paths, which a worker inherits.
const FINDERS: [&str; 3] = ["__editable___", "_editable_impl_", "editables"];

/// Our own.
const OURS: [&str; 2] = ["__main__", "mcsup"];

/// The modules of this process that belong to neither Python nor mcsup. `None`: no customisation ran, and there is one
/// thread.
pub fn found(py: Python<'_>) -> PyResult<Option<Vec<String>>> {
    let sys = py.import("sys")?;
    let standard = sys.getattr("stdlib_module_names")?;
    let library = file_of(py.import("os")?.as_any()).and_then(|os| Some(os.parent()?.to_owned()));
    let mut found = HashSet::new();
    for (name, module) in sys.getattr("modules")?.cast_into::<PyDict>()?.copy()? {
        let Ok(name) = name.extract::<String>() else { continue };
        let top = name.split('.').next().unwrap_or_default();
        let is_known = OURS.contains(&top) || is_harmless(top);
        if is_known || found.contains(top) || standard.contains(top)? {
            continue;
        }
        // A distribution's `sitecustomize` is beside its standard library.
        if library.is_none()
            || file_of(&module).and_then(|file| Some(file.parent()? == library.as_ref()?)) != Some(true)
        {
            found.insert(top.to_owned());
        }
    }
    if found.is_empty() && !has_other_threads(py) {
        return Ok(None);
    }
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort_unstable();
    Ok(Some(found))
}

fn is_harmless(module: &str) -> bool {
    HARMLESS.contains(&module) || FINDERS.iter().any(|start| module.starts_with(start))
}

fn file_of(module: &Bound<'_, PyAny>) -> Option<PathBuf> {
    let module = module.cast::<PyModule>().ok()?;
    module.dict().get_item("__file__").ok()??.extract().ok()
}

/// Whether Python or the kernel knows of another thread. The kernel's list is there on Linux only.
pub fn has_other_threads(py: Python<'_>) -> bool {
    let count = || py.import("_thread")?.call_method0("_count")?.extract::<usize>();
    count().is_ok_and(|count| count > 0)
        || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1)
}
