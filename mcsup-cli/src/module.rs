//! The wheel's extension module: `mcsup._mcsup.main(argv)` is the command.

use std::ffi::OsString;

use pyo3::prelude::*;

/// The `mcsup` command as a Python extension.
#[pymodule(name = "_mcsup")]
mod extension {
    use super::*;

    /// Runs the command and returns its exit code.
    #[pyfunction]
    fn main(py: Python<'_>, argv: Vec<OsString>) -> u8 {
        // Detached: the supervisor runs no Python, and a worker attaches for each request.
        py.detach(move || crate::run(&argv).code())
    }
}
