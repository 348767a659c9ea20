//! Python's `site` module, which runs the user's customisation: `.pth` files, `sitecustomize`, `usercustomize`.
//!
//! The customisation belongs to the processes that run the application. An interpreter that was started without `site`
//! runs it in each worker, or in the mold, before the application is loaded. A fresh interpreter does the same at its
//! start, so an agent sees no difference.

use std::ffi::{CString, OsString};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The rest of a start without `site`, and the attributes of the interpreter with it.
#[derive(Debug, Clone, Default)]
pub struct Deferred {
    /// The script of the process, where there is one.
    pub script: Option<Script>,
    /// `sys.path`, without the entry of the script. The supervisor only looks for files there.
    pub path: Vec<PathBuf>,
    /// `sys.prefix` and `sys.exec_prefix`: those of the virtual environment.
    pub prefixes: Option<(OsString, OsString)>,
    /// The modules that the customisation loads.
    pub modules: Vec<String>,
}

/// A script, as Python describes it to the program.
#[derive(Debug, Clone)]
pub struct Script {
    /// `sys.orig_argv`.
    pub words: Vec<OsString>,
    /// `sys.argv[0]`, once `__main__` runs.
    pub name: OsString,
    /// The file of `__main__`.
    pub file: OsString,
    /// The module that `python -m` has found for `__main__`.
    pub module: Option<String>,
    /// The entry that Python puts in front of `sys.path`.
    pub folder: Option<OsString>,
    /// A line of the script that adds to `sys.path`, as some distributions' scripts have.
    pub preparation: Option<String>,
}

/// Taken by the first call of [`run`] in a process; its children inherit that it was.
static DEFERRED: Mutex<Option<Deferred>> = Mutex::new(None);

/// The interpreter of this process was started without `site`: the worker runs it later.
pub fn defer(deferred: Deferred) {
    *DEFERRED.lock().unwrap_or_else(PoisonError::into_inner) = Some(deferred);
}

/// The arguments for [`run`] in this process.
pub(super) fn deferred() -> Option<Deferred> {
    DEFERRED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Imports `site`, where that was deferred, in a process that looks as at the start of its interpreter.
///
/// # Errors
/// An exception that ends a fresh interpreter too. `site` itself reports most errors, and goes on.
pub(crate) fn run(py: Python<'_>, arguments: &[String]) -> PyResult<()> {
    let deferred = DEFERRED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Deferred { script, modules, .. }) = deferred else { return Ok(()) };
    let which = if modules.is_empty() { String::new() } else { format!(", with {}", modules.join(", ")) };
    log::debug!("Python's site runs in this process{which}");
    let sys = py.import("sys")?;
    let mut argv: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    if let Some(script) = &script {
        sys.setattr("orig_argv", PyList::new(py, &script.words)?)?;
        if let Some(name) = argv.first_mut() {
            *name = if script.module.is_some() { "-m".into() } else { script.file.clone() };
        }
    }
    sys.setattr("argv", PyList::new(py, argv)?)?;
    allow_site(&sys)?;
    if script.is_some() {
        clear_main(py)?;
    }
    // The module may be loaded, for another module of the standard library. It has done nothing, and knows the wrong
    // prefix.
    sys.getattr("modules")?.call_method1("pop", ("site", py.None()))?;
    py.import("site")?;
    script.map_or(Ok(()), |script| become_main(py, &script))
}

/// Lets `sys.flags.no_site` say what a fresh interpreter's does: programs that the application starts, multiprocessing's
/// for example, get the same flags.
fn allow_site(sys: &Bound<'_, PyModule>) -> PyResult<()> {
    let flags = sys.getattr("flags")?;
    let names: Vec<String> = flags.get_type().getattr("__match_args__")?.extract()?;
    let index = names.iter().position(|name| name == "no_site").map(ffi::Py_ssize_t::try_from);
    let Some(Ok(index)) = index else { return Ok(()) };
    let zero = 0_i32.into_pyobject(sys.py())?.into_any().unbind();
    // SAFETY: `sys.flags` is a struct sequence, and the index is that of one of its fields. The call takes over the
    // reference to the new value. The old value is a small integer; the reference to it is lost, not used after its end.
    // This thread holds the interpreter, so no other reads the field meanwhile.
    unsafe { ffi::PyStructSequence_SetItem(flags.as_ptr(), index, zero.into_ptr()) };
    Ok(())
}

/// Makes `__main__` a fresh interpreter's: what this interpreter's own script has left there is not the application's.
fn clear_main(py: Python<'_>) -> PyResult<()> {
    let main = py.import("__main__")?.dict();
    let names = ["__name__", "__builtins__"];
    let kept = names.map(|name| (name, main.get_item(name)));
    // The frame of that script goes on with an empty namespace: it has read all that it needs.
    main.clear();
    for (name, value) in kept {
        main.set_item(name, value?)?;
    }
    for name in ["__doc__", "__package__", "__spec__"] {
        main.set_item(name, py.None())?;
    }
    main.set_item("__loader__", py.import("_frozen_importlib")?.getattr("BuiltinImporter")?)?;
    // Python 3.14 makes it when it is asked for.
    if py.version_info() < (3, 14) {
        main.set_item("__annotations__", PyDict::new(py))?;
    }
    Ok(())
}

/// Makes `__main__`, `sys.argv` and `sys.path` look as the script's.
fn become_main(py: Python<'_>, script: &Script) -> PyResult<()> {
    let sys = py.import("sys")?;
    sys.getattr("argv")?.set_item(0, &script.name)?;
    if let Some(folder) = &script.folder {
        sys.getattr("path")?.call_method1("insert", (0, folder))?;
    }
    let main = py.import("__main__")?;
    main.setattr("__file__", &script.file)?;
    match &script.module {
        Some(name) => {
            let spec = py.import("importlib.util")?.call_method1("find_spec", (name,))?;
            if !spec.is_none() {
                for (name, of_spec) in
                    [("__loader__", "loader"), ("__cached__", "cached"), ("__package__", "parent")]
                {
                    main.setattr(name, spec.getattr(of_spec)?)?;
                }
            }
            main.setattr("__spec__", spec)?;
        }
        None => {
            let loader = py.import("_frozen_importlib_external")?.getattr("SourceFileLoader")?;
            main.setattr("__loader__", loader.call1(("__main__", &script.file))?)?;
            main.setattr("__cached__", py.None())?;
        }
    }
    if let Some(line) = &script.preparation {
        py.run(&CString::new(line.as_str())?, Some(&PyDict::new(py)), None)?;
    }
    Ok(())
}
