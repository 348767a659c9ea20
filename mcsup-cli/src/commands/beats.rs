//! Signs of life to the service manager while the supervisor waits and its loop does not run.

use std::time::Instant;

use mcsup_core::host::service_manager::ServiceManager;

/// Sends `WATCHDOG=1` (sd_notify(3)) at half of the watchdog's time, if the service manager has one.
#[derive(Debug)]
pub(crate) struct Beats {
    manager: ServiceManager,
    /// `None`: at once.
    next: Option<Instant>,
}

impl Beats {
    /// The beats for this service manager.
    pub(crate) fn new(manager: ServiceManager) -> Self {
        Self { manager, next: None }
    }

    /// Sends one if it is time. Call it at least once a second.
    pub(crate) fn beat(&mut self) {
        let now = Instant::now();
        let Some(limit) = self.manager.watchdog() else { return };
        if self.next.is_none_or(|next| next <= now) {
            self.manager.notify("WATCHDOG=1");
            self.next = now.checked_add(limit / 2);
        }
    }
}
