//! The Python modules behind the objects of hooks: `log`, `cfg`, `server`, `worker`, `req`, `resp`.

use std::ffi::CString;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule, PyTuple};

/// Each module uses none of the others.
pub(super) enum Own {
    Log,
    Cfg,
    Hooks,
    Worker,
    Request,
    Master,
}

impl Own {
    /// The module, which is executed once in a process.
    pub(super) fn module<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyModule>> {
        let (code, file, name) = match self {
            Own::Log => (include_str!("log.py"), c"mcsup/conf/log.py", c"_mcsup_conf_log"),
            Own::Cfg => (include_str!("cfg.py"), c"mcsup/conf/cfg.py", c"_mcsup_conf_cfg"),
            Own::Hooks => (include_str!("hooks.py"), c"mcsup/conf/hooks.py", c"_mcsup_conf_hooks"),
            Own::Worker => (include_str!("worker.py"), c"mcsup/conf/worker.py", c"_mcsup_conf_worker"),
            Own::Request => (include_str!("request.py"), c"mcsup/conf/request.py", c"_mcsup_conf_request"),
            Own::Master => (include_str!("master.py"), c"mcsup/conf/master.py", c"_mcsup_conf_master"),
        };
        let known = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.get_item(name)?;
        match known.map(|module| module.cast_into::<PyModule>()) {
            Some(Ok(module)) => Ok(module),
            _ => PyModule::from_code(py, &CString::new(code)?, file, name),
        }
    }
}

/// `cfg`: the settings by gunicorn's names, a JSON object, before the variables of the configuration.
pub(super) fn cfg<'py>(
    py: Python<'py>,
    settings: &str,
    namespace: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let values = py.import("json")?.call_method1("loads", (settings,))?;
    Own::Cfg.module(py)?.getattr("Cfg")?.call1((values, namespace))
}

/// `log`, in front of gunicorn's loggers, which have their handlers.
pub(super) fn logger<'py>(py: Python<'py>, cfg: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    Own::Log.module(py)?.getattr("Logger")?.call1((cfg,))
}

/// A function without arguments.
pub(super) fn act<'py>(
    py: Python<'py>,
    name: &'static std::ffi::CStr,
    act: impl Fn() + Send + Sync + 'static,
) -> PyResult<Bound<'py, PyCFunction>> {
    PyCFunction::new_closure(py, Some(name), None, move |_: &Bound<'_, PyTuple>, _| act())
}
