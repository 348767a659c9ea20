//! `mcsup check` and `--check-config`: the application is loaded once, in a child process.
//!
//! A worker would load it in a process of its own too: an application that ends its process or hangs is refused here as
//! there.

use std::ffi::OsString;
use std::sync::Arc;

use mcsup_core::Config;
use mcsup_core::host::trial;

use super::application::{Application, Wsgi};
use super::remote::Remote;
use super::wiring;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog};
use crate::settings::Settings;

/// Loads the application as the workers' user, within the boot timeout; returns a text for standard output.
pub(super) fn run(
    settings: &Settings,
    config: &Config,
    argv: &[OsString],
) -> Result<(Exit, String), Failure> {
    let log = ErrorLog::install(
        &Destination::Standard,
        settings.logging.level.value,
        (settings.logging.form.value, &Arc::default()),
    )?;
    settings.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let worker = wiring::worker_settings(settings, argv, (&log, &Remote::default()))?;
    let app = settings.target()?;
    let limit = settings.pool.boot.value;
    trial::run(limit, config.run_as.as_ref(), Wsgi::around_fork, || {
        log.use_in_worker();
        mcsup_py::check(&worker)
    })
    .map_err(|error| {
        let failure = Failure::from(&error);
        // The error of the application names it; any other one does not.
        if failure.exit == Exit::NotLoaded {
            return failure;
        }
        Failure::new(failure.exit, format!("cannot load {app}: {failure}"))
    })?;
    Ok((Exit::Done, format!("{app} can be served\n")))
}
