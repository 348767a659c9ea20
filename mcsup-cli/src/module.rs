//! The wheel's extension module: `mcsup._mcsup.main(argv)` is the command.
//!
//! The interpreter may already have run code of the user: `.pth` files, `sitecustomize`, agents that start there. That
//! code belongs to the workers. Where there was any, this process executes the same interpreter again without `site`,
//! and each worker runs it.

mod entry;
mod origin;
mod streams;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::upgrade::{Image, Reexec, Resumption, VARIABLE, detour};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::Start;
use crate::args;
use crate::exit::Exit;
use origin::Origin;

/// The `mcsup` command as a Python extension.
#[pymodule(name = "_mcsup", gil_used = true)]
mod extension {
    use super::*;

    /// Runs the command and returns its exit code. `origin` describes the start of the interpreter with `site`.
    #[pyfunction(pass_module, signature = (argv, origin = None))]
    fn main(module: &Bound<'_, PyModule>, argv: Vec<OsString>, origin: Option<String>) -> PyResult<u8> {
        streams::fill_closed();
        let py = module.py();
        let own = argv.get(1..).unwrap_or_default();
        let origin = match origin.or(take_variable(py)?) {
            Some(text) => Origin::given(py, &text, own)?,
            None => {
                let file: PathBuf = module.getattr("__file__")?.extract()?;
                Origin::of_this_process(py, own.len(), file.parent().unwrap_or(&file))?
            }
        };
        if origin.is_customised() && !is_deferred(py)? && is_for_a_supervisor(&argv) {
            return execute_without_site(module, &origin, own);
        }
        let start = Start {
            image: image(module, &origin, own).ok(),
            resumption: Resumption::from_environment(),
            service_manager: ServiceManager::from_environment(),
        };
        // Python copied the environment at its start.
        let environ = py.import("os")?.getattr("environ")?;
        for name in ServiceManager::VARIABLES.into_iter().chain([VARIABLE]) {
            environ.call_method1("pop", (name, py.None()))?;
        }
        // Detached: the supervisor runs no Python, and a worker attaches for each request.
        let is_run = is_for_a_supervisor(&argv);
        if is_run {
            origin.name_process();
            leave_interrupt_to_kernel(py)?;
        }
        let exit = py.detach(move || crate::run(&argv, start));
        if let Some(advice) = origin.advice(py).filter(|_| is_run && exit == Exit::Refused) {
            let _ = writeln!(std::io::stderr(), "mcsup: {advice}");
        }
        Ok(exit.code())
    }
}

/// Lets SIGINT end this process until the supervisor handles signals. Python's handler only notes it for code that this
/// process does not run.
fn leave_interrupt_to_kernel(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?;
    let number = signal.getattr("SIGINT")?;
    // A shell that starts a program in the background has it ignored.
    if signal.call_method1("getsignal", (&number,))?.is(signal.getattr("default_int_handler")?) {
        signal.call_method1("signal", (&number, signal.getattr("SIG_DFL")?))?;
    }
    Ok(())
}

/// Whether this interpreter runs without `site`.
fn is_deferred(py: Python<'_>) -> PyResult<bool> {
    py.import("sys")?.getattr("flags")?.getattr("no_site")?.is_truthy()
}

/// Takes the origin from the environment of an interpreter without `site`.
fn take_variable(py: Python<'_>) -> PyResult<Option<String>> {
    let environ = py.import("os")?.getattr("environ")?;
    let value: Option<String> = environ.call_method1("pop", (origin::VARIABLE, py.None()))?.extract()?;
    Ok(if is_deferred(py)? { value } else { None })
}

/// Whether the command starts a supervisor. Other commands need no second interpreter.
fn is_for_a_supervisor(argv: &[OsString]) -> bool {
    args::parse(argv.iter().cloned()).is_ok_and(|invocation| invocation.is_for_a_supervisor())
}

/// Executes the interpreter again, without `site` and with its original environment. Returns only after an error.
fn execute_without_site(module: &Bound<'_, PyModule>, origin: &Origin, own: &[OsString]) -> PyResult<u8> {
    let program: PathBuf = module.py().import("sys")?.getattr("executable")?.extract()?;
    let file: PathBuf = module.getattr("__file__")?.extract()?;
    let text = origin.text().map_err(|error| PyValueError::new_err(error.to_string()))?;
    let name = program.clone().into_os_string();
    let script = file.with_file_name("supervisor.py").into_os_string();
    let words = [name].into_iter().chain(origin.options()).chain([script]);
    let words: Vec<OsString> = words.chain(own.iter().cloned()).collect();
    let error = detour::execute(&program, &words, &(origin::VARIABLE.into(), text.into()));
    let reason = format!("cannot execute {} without site: {error}", program.display());
    if let Ok(Some(resumption)) = Resumption::from_environment() {
        resumption.give_up(&reason);
    }
    let _ = writeln!(std::io::stderr(), "mcsup: {reason}");
    Ok(Exit::Refused.code())
}

/// The image that an upgrade executes: the interpreter by its original command line.
///
/// The upgrade then finds a new interpreter or a new package.
fn image(module: &Bound<'_, PyModule>, origin: &Origin, own: &[OsString]) -> PyResult<Image> {
    let program: PathBuf = module.py().import("sys")?.getattr("executable")?.extract()?;
    let file: PathBuf = module.getattr("__file__")?.extract()?;
    Ok(Image {
        reexec: reexec(&program, origin, own, &file),
        program,
        arguments: origin.words.iter().chain(own).cloned().collect(),
        directory: std::env::current_dir()?,
    })
}

/// The image to return to if an upgrade fails: this module from an open file, since its name may be replaced.
///
/// `None` without /proc, or if this process was started so itself.
fn reexec(program: &Path, origin: &Origin, own: &[OsString], file: &Path) -> Option<Reexec> {
    if file.starts_with("/proc") || !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let file = OwnedFd::from(std::fs::File::open(file).ok()?);
    // A JSON string is a Python string.
    let origin_text = serde_json::to_string(&origin.text().ok()?).ok()?;
    let code = AGAIN.replace("FD", &file.as_raw_fd().to_string()).replace("ORIGIN", &origin_text);
    let words = [program.into()].into_iter().chain(origin.options()).chain(["-c".into(), code.into()]);
    Some(Reexec { arguments: words.chain(own.iter().cloned()).collect(), file: Arc::new(file) })
}

/// Python code that loads this module from an open file and runs it.
const AGAIN: &str = "\
import sys
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import ExtensionFileLoader
if not (sys.flags.isolated or getattr(sys.flags, 'safe_path', False)):
    del sys.path[0]
loader = ExtensionFileLoader('mcsup._mcsup', '/proc/self/fd/FD')
spec = ModuleSpec('mcsup._mcsup', loader, origin=loader.path)
module = sys.modules[spec.name] = module_from_spec(spec)
loader.exec_module(module)
sys.exit(module.main(['mcsup', *sys.argv[1:]], ORIGIN))
";
