//! The wheel's extension module: `mcsup._mcsup.main(argv)` is the command.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use mcsup_core::upgrade::{Again, Image, Succession, VARIABLE};
use pyo3::prelude::*;

use crate::Start;

/// The `mcsup` command as a Python extension.
#[pymodule(name = "_mcsup")]
mod extension {
    use super::*;

    /// Runs the command and returns its exit code.
    #[pyfunction(pass_module)]
    fn main(module: &Bound<'_, PyModule>, argv: Vec<OsString>) -> PyResult<u8> {
        let py = module.py();
        let start = Start { image: image(module).ok(), succession: Succession::from_environment() };
        // Python's own copy was made when it began.
        py.import("os")?.getattr("environ")?.call_method1("pop", (VARIABLE, py.None()))?;
        // Detached: the supervisor runs no Python, and a worker attaches for each request.
        Ok(py.detach(move || crate::run(&argv, start).code()))
    }
}

/// How an upgrade starts this again: the interpreter as it was started, so that a new one, or a new package in its
/// environment, is found.
fn image(module: &Bound<'_, PyModule>) -> PyResult<Image> {
    let sys = module.py().import("sys")?;
    let arguments: Vec<OsString> = sys.getattr("orig_argv")?.extract()?;
    let own: Vec<OsString> = sys.getattr("argv")?.extract()?;
    let file: PathBuf = module.getattr("__file__")?.extract()?;
    Ok(Image {
        program: sys.getattr("executable")?.extract()?,
        again: again(&arguments, own.get(1..).unwrap_or_default(), &file),
        directory: std::env::current_dir()?,
        arguments,
    })
}

/// This module is in a file that an upgrade of the package replaces, so the way back needs it open. `None` where there is
/// no /proc to find it by, or where this is the way back already.
fn again(arguments: &[OsString], own: &[OsString], file: &Path) -> Option<Again> {
    if file.starts_with("/proc") || !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let file = OwnedFd::from(std::fs::File::open(file).ok()?);
    // The interpreter's own words are those before its script.
    let mut interpreter = arguments.get(..arguments.len().checked_sub(own.len())?)?.to_vec();
    interpreter.pop();
    if interpreter.last().is_some_and(|word| word == "-m") {
        interpreter.pop();
    }
    let code = AGAIN.replace("FD", &file.as_raw_fd().to_string());
    let words = interpreter.into_iter().chain(["-c".into(), code.into()]);
    Some(Again { arguments: words.chain(own.iter().cloned()).collect(), file: file.into() })
}

/// Loads this module from an open file, and runs it.
const AGAIN: &str = "\
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = ExtensionFileLoader('mcsup._mcsup', '/proc/self/fd/FD')
module = module_from_spec(spec_from_loader('mcsup._mcsup', loader))
loader.exec_module(module)
sys.exit(module.main(['mcsup', *sys.argv[1:]]))
";
