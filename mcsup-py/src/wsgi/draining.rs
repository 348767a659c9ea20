//! `mcsup.draining`: whether this worker will end soon, for applications that tell a load balancer. It is asked live, so
//! one object serves all requests.

use std::sync::Arc;

use pyo3::prelude::*;

/// Whether the worker will end soon.
pub(crate) type IsDraining = Arc<dyn Fn() -> bool + Send + Sync>;

/// True, and true when called, from the lame duck on.
#[pyclass(frozen, module = "mcsup", name = "Draining")]
pub(super) struct Draining {
    is_draining: IsDraining,
}

impl Draining {
    pub(super) fn new(is_draining: IsDraining) -> Self {
        Self { is_draining }
    }
}

#[pymethods]
impl Draining {
    fn __bool__(&self) -> bool {
        (self.is_draining)()
    }

    fn __call__(&self) -> bool {
        (self.is_draining)()
    }

    fn __repr__(&self) -> &'static str {
        if (self.is_draining)() { "<mcsup.Draining: true>" } else { "<mcsup.Draining: false>" }
    }
}
