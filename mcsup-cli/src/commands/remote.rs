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
    /// An error that does not prevent the start, for the log.
    pub(crate) warning: Option<String>,
}

impl Default for Remote {
    fn default() -> Self {
        let (errors, access, statsd) = (Arc::default(), None, None);
        Self { errors, access, statsd, backlog: Backlog::Off, warning: None }
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
            let open = |log: &str| {
                let tag = format!("gunicorn.{prefix}.{log}");
                Syslog::open(syslog.address.clone(), syslog.facility, tag)
            };
            let access = if syslog.has_access { open("access").map(Some) } else { Ok(None) };
            match open("error").and_then(|errors| Ok((errors, access?))) {
                Ok((errors, access)) => {
                    targets.syslog = Some(errors);
                    remote.access = access.map(Arc::new);
                }
                Err(error) if takes_over => {
                    remote.warning = Some(format!("going on without syslog: {error}"));
                }
                Err(error) => return Err(Failure::refused(format!("cannot log to syslog: {error}"))),
            }
        }
        if let Some(address) = &statsd.address {
            match Statsd::open(address.clone(), &statsd.prefix, &statsd.tags) {
                Ok(client) => remote.statsd = Some(Arc::new(client)),
                Err(error) => remote.warning = Some(format!("no metrics are sent to statsd: {error}")),
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
