//! The interpreter: started here in the binary, there already in the wheel.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::site;

/// The Python that this crate was built against, as `major.minor`.
pub(crate) const VERSION: &str = env!("MCSUP_PYTHON_VERSION");

/// Makes sure that an interpreter runs in this process.
///
/// In the binary it is started: without signal handlers, as the Python of the virtual environment `venv` if one is
/// given, otherwise as the Python that the binary was built against. [`site::run`] completes the start.
///
/// # Errors
/// One line: an environment of another Python, or the interpreter's own reason.
pub(crate) fn ensure(venv: Option<&Path>) -> Result<(), String> {
    // SAFETY: may be called at any time.
    if unsafe { ffi::Py_IsInitialized() } != 0 {
        return Ok(());
    }
    let program = match venv {
        Some(venv) => program_of(venv)?,
        None => PathBuf::from(env!("MCSUP_PYTHON")),
    };
    start(&program)
}

/// The variable of the environment by which applications detect gunicorn, and its value under the version that this
/// server follows.
const SOFTWARE: (&str, &str) = ("SERVER_SOFTWARE", "gunicorn/27.0.1");

/// Makes the server visible to the application and to configurations: the command line as `sys.argv`, and, as with
/// gunicorn, `SERVER_SOFTWARE` in `os.environ`. The first word is the script's path where Python has one; the binary's
/// interpreter has none.
pub(crate) fn set_server(py: Python<'_>, arguments: &[String]) -> PyResult<()> {
    let sys = py.import("sys")?;
    let script = sys.getattr("argv")?.get_item(0).and_then(|script| script.extract::<OsString>());
    let script = script.ok().filter(|script| !script.is_empty());
    let (first, rest) = arguments.split_at(arguments.len().min(1));
    let first = script.or_else(|| first.first().map(OsString::from));
    let argv: Vec<OsString> = first.into_iter().chain(rest.iter().map(OsString::from)).collect();
    sys.setattr("argv", PyList::new(py, argv)?)?;
    py.import("os")?.getattr("environ")?.set_item(SOFTWARE.0, SOFTWARE.1)
}

/// `sys.path`. `None` stands for an entry that is no string, which Python's import passes over.
///
/// # Errors
/// It is missing, or cannot be gone through.
pub fn search_path(py: Python<'_>) -> PyResult<Vec<Option<OsString>>> {
    py.import("sys")?.getattr("path")?.try_iter()?.map(|entry| Ok(entry?.extract().ok())).collect()
}

/// Adds variables to `os.environ`, and so to the process's environment.
pub(crate) fn set_environment(py: Python<'_>, variables: &[(String, String)]) -> PyResult<()> {
    let environment = py.import("os")?.getattr("environ")?;
    variables.iter().try_for_each(|(name, value)| environment.set_item(name, value))
}

/// The interpreter of a virtual environment, if it is of our version.
fn program_of(venv: &Path) -> Result<PathBuf, String> {
    let name = venv.display();
    let settings = fs::read_to_string(venv.join("pyvenv.cfg"))
        .map_err(|error| format!("VIRTUAL_ENV={name} is no virtual environment: pyvenv.cfg: {error}"))?;
    let version = settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        matches!(key.trim(), "version" | "version_info").then(|| value.trim().to_owned())
    });
    match version {
        Some(version) if same_version(&version) => Ok(venv.join("bin").join("python3")),
        Some(version) => Err(format!(
            "VIRTUAL_ENV={name} is of Python {version}, but this mcsup embeds Python {VERSION}: build it against \
             that Python, or install the wheel into the environment"
        )),
        None => Err(format!("VIRTUAL_ENV={name}: pyvenv.cfg names no version")),
    }
}

fn same_version(version: &str) -> bool {
    version.strip_prefix(VERSION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn start(program: &Path) -> Result<(), String> {
    let program = CString::new(program.as_os_str().as_encoded_bytes())
        .map_err(|_| "the path of Python contains a zero byte".to_owned())?;
    let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
    // SAFETY: the order that PEP 587 gives: initialise the configuration, change it, start, clear it. No other thread
    // runs Python yet. After a start this thread holds the interpreter; saving its state releases it, as
    // `Python::attach` expects.
    unsafe {
        let config = config.as_mut_ptr();
        ffi::PyConfig_InitPythonConfig(config);
        (*config).install_signal_handlers = 0;
        (*config).parse_argv = 0;
        (*config).site_import = 0;
        let name = &raw mut (*config).program_name;
        let mut status = ffi::PyConfig_SetBytesString(config, name, program.as_ptr());
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(config);
        }
        ffi::PyConfig_Clear(config);
        if ffi::PyStatus_Exception(status) != 0 {
            return Err(format!("Python does not start: {}", reason(status.err_msg)));
        }
        ffi::PyEval_SaveThread();
    }
    site::defer(site::Deferred::default());
    Ok(())
}

fn reason(message: *const std::ffi::c_char) -> String {
    if message.is_null() {
        return "it gives no reason".to_owned();
    }
    // SAFETY: a status's message is a static C string.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_of_another_python_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(program_of(dir.path()).unwrap_err().contains("no virtual environment"));
        fs::write(dir.path().join("pyvenv.cfg"), "home = /x\nversion = 2.7.1\n").unwrap();
        assert!(program_of(dir.path()).unwrap_err().contains("Python 2.7.1"));
        fs::write(dir.path().join("pyvenv.cfg"), format!("version = {VERSION}.9\n")).unwrap();
        assert!(program_of(dir.path()).unwrap().ends_with("bin/python3"));
    }
}
