//! The targets of the logs on the network: opened once at the start, for the supervisor and all workers.

use std::sync::Arc;

use mcsup_core::PoolEvent;
use mcsup_py::access::Backlog;
use mcsup_py::targets::{Statsd, Syslog};

use crate::failure::Failure;
use crate::logging::Targets;
use crate::settings::Settings;

/// The open targets.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// Those of the error log.
    pub(crate) errors: Arc<Targets>,
    /// Gets the access log.
    pub(crate) access: Option<Arc<Syslog>>,
    /// Gets the metrics.
    pub(crate) statsd: Option<Arc<Statsd>>,
    /// The workers that send the length of the listen queue.
    pub(crate) backlog: Backlog,
    /// Errors that do not prevent the start, for the log.
    pub(crate) warnings: Vec<String>,
}

impl Default for Remote {
    fn default() -> Self {
        let (errors, access, statsd) = (Arc::default(), None, None);
        Self { errors, access, statsd, backlog: Backlog::Off, warnings: Vec::new() }
    }
}

impl Remote {
    /// Opens the targets of the settings. Looks up names, which may take seconds.
    ///
    /// As with gunicorn a server without its syslog does not start, and one without its statsd does. `takes_over`: this
    /// image replaces another one, and goes on without either.
    pub(crate) fn open(settings: &Settings, name: &str, takes_over: bool) -> Result<Self, Failure> {
        let mut remote = Self::default();
        let mut targets = Targets::default();
        let (syslog, statsd) = (&settings.logging.syslog, &settings.logging.statsd);
        if syslog.is_on {
            let prefix = syslog.prefix.clone().unwrap_or_else(|| name.replace(':', "."));
            let tag = |log: &str| format!("gunicorn.{prefix}.{log}");
            match Syslog::open(syslog.address.clone(), syslog.facility, tag("error")) {
                Ok(errors) => {
                    remote.access = syslog.has_access.then(|| Arc::new(errors.beside(tag("access"))));
                    targets.syslog = Some(errors);
                }
                Err(error) if takes_over => {
                    remote.warnings.push(format!("going on without syslog: {error}"));
                }
                Err(error) => return Err(Failure::refused(format!("cannot log to syslog: {error}"))),
            }
        }
        if let Some(address) = &statsd.address {
            match Statsd::open(address.clone(), &statsd.prefix, &statsd.tags) {
                Ok(client) => remote.statsd = Some(Arc::new(client)),
                Err(error) => remote.warnings.push(format!("no metrics are sent to statsd: {error}")),
            }
            remote.backlog = match (statsd.has_backlog, settings.reuse_port.value) {
                (false, _) => Backlog::Off,
                (true, false) => Backlog::First,
                (true, true) => Backlog::Each,
            };
        }
        targets.statsd.clone_from(&remote.statsd);
        remote.errors = Arc::new(targets);
        Ok(remote)
    }
}

/// The number of workers, for gunicorn's gauge.
#[derive(Debug, Default)]
pub(super) struct WorkerCount(u64);

impl WorkerCount {
    /// Counts an event; the number, if it has changed.
    pub(super) fn note(&mut self, event: &PoolEvent) -> Option<u64> {
        let now = match event {
            PoolEvent::Born { process } if process.slot.is_some() => self.0 + 1,
            PoolEvent::Retired { process } | PoolEvent::Died { process, .. } if process.slot.is_some() => {
                self.0.saturating_sub(1)
            }
            PoolEvent::UpgradeDone { workers } => u64::try_from(*workers).unwrap_or(u64::MAX),
            _ => return None,
        };
        (std::mem::replace(&mut self.0, now) != now).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Invocation, parse};

    #[test]
    fn an_upgrade_goes_on_without_each_target_whose_host_has_no_address_and_names_both() {
        let words = ["--log-syslog", "--log-syslog-to=tcp://logs.invalid", "--statsd-host=stats.invalid"];
        let words = ["mcsup", "app"].iter().chain(&words).map(OsString::from);
        let Ok(Invocation::Run(args)) = parse(words) else { panic!("not to be run") };
        let settings = Settings::resolve(args, &|_| None, &|_| unreachable!("no file is named")).unwrap();
        let remote = Remote::open(&settings, "app", true).unwrap();
        assert!(remote.errors.syslog.is_none() && remote.access.is_none() && remote.statsd.is_none());
        let warnings = remote.warnings.join("\n");
        assert!(warnings.contains("going on without syslog: no address of logs.invalid"), "{warnings}");
        assert!(
            warnings.contains("no metrics are sent to statsd: no address of stats.invalid"),
            "{warnings}"
        );
        let refused = Remote::open(&settings, "app", false).unwrap_err().to_string();
        assert!(refused.contains("cannot log to syslog: no address of logs.invalid"), "{refused}");
    }
}
