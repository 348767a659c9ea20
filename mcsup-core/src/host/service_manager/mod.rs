//! The service manager that has started this process: its sockets, and the messages to it.
//!
//! systemd documents the variables in sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3). Other service
//! managers and container runtimes use the same ones.
//!
//! - `environment`: reads the variables, and passes them to the next image.
//! - `notifier`: sends the messages.

mod environment;
mod notifier;

pub(crate) use environment::for_next_image;
pub(crate) use notifier::Notifier;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::time::Duration;

/// The beginning of the name of a socket that a supervisor has stored.
pub(crate) const STORED: &str = "mcsup,";

/// The sockets and variables that the service manager has passed; empty by default.
///
/// ```no_run
/// use mcsup_core::Config;
/// use mcsup_core::host::service_manager::ServiceManager;
///
/// # fn main() -> mcsup_core::Result<()> {
/// let mut config = Config::default();
/// config.service_manager = ServiceManager::from_environment()?;
/// config.addresses.push("fd://*".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceManager {
    notify_socket: Option<OsString>,
    watchdog: Option<Duration>,
    store: usize,
    sockets: Vec<PassedSocket>,
    stored: Vec<PassedSocket>,
}

/// A socket that the service manager has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedSocket {
    /// Its descriptor in this process.
    pub fd: RawFd,
    /// Its name, `FileDescriptorName=` of systemd.socket(5); `unknown` without one.
    pub name: String,
}

impl ServiceManager {
    /// A service manager with a socket for messages and a store.
    #[cfg(test)]
    pub(crate) fn at(notify_socket: &std::path::Path, store: usize) -> Self {
        Self { notify_socket: Some(notify_socket.into()), store, ..Self::default() }
    }

    /// The sockets that a service manager has passed, in its order.
    pub fn sockets(&self) -> &[PassedSocket] {
        &self.sockets
    }

    /// Takes the sockets of `name` from a service manager that passes none by itself (launchd).
    ///
    /// # Errors
    /// Those of launch_activate_socket(3).
    #[cfg(target_vendor = "apple")]
    pub(crate) fn activate(&mut self, name: &str) -> std::io::Result<()> {
        let passed = crate::sys::launchd::activate(name)?
            .into_iter()
            .map(|fd| PassedSocket { fd, name: name.to_owned() });
        self.sockets.extend(passed);
        environment::keep_sockets(&self.sockets);
        Ok(())
    }

    /// The sockets that an earlier supervisor has stored in the service manager.
    pub(crate) fn stored(&self) -> &[PassedSocket] {
        &self.stored
    }

    /// The number of sockets that the service manager stores for the next supervisor.
    pub(crate) fn store(&self) -> usize {
        self.store
    }

    /// The address of the socket for messages.
    pub(crate) fn notify_socket(&self) -> Option<&OsString> {
        self.notify_socket.as_ref()
    }

    /// The time without a message after which the service manager ends this process; `None`: it does not.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends a message of lines `NAME=VALUE` to the service manager (sd_notify(3)), if it receives any.
    ///
    /// A pool sends its messages itself. The program of a [spawned](crate::Prefork::spawn) pool does it, as the process
    /// that the service manager has started. Waits half a second at most, while the service manager has no room. An
    /// error is logged.
    pub fn notify(&self, message: &str) {
        match self.notify_socket.as_deref().map(Notifier::new) {
            Some(Ok(mut notifier)) => {
                notifier.send(message);
                notifier.finish();
            }
            Some(Err(error)) => log::warn!("Cannot notify the service manager: {error}"),
            None => {}
        }
    }

    /// The same without messages, for a process that the service manager has not started.
    pub(crate) fn without_messages(self) -> Self {
        Self { notify_socket: None, watchdog: None, store: 0, ..self }
    }

    /// Whether the service manager receives messages.
    pub fn is_notified(&self) -> bool {
        self.notify_socket.is_some()
    }
}
