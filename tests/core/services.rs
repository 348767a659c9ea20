//! Pools of a program that has a service manager.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::{Config, Prefork};
use rustix::process::Signal;

use crate::pool::Pool;
use crate::roles::Answering;

/// Plays the role of a program that says so.
pub fn notified(address: &str) -> ExitCode {
    let mut config = Config::default();
    config.addresses.push(address.parse().unwrap());
    config.service_manager = ServiceManager::from_environment().unwrap();
    Prefork::with_config(|| Answering, config).run().into()
}

/// The test's part of a service manager.
pub struct Manager {
    socket: UnixDatagram,
    pub path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Manager {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { socket, path, _directory: directory }
    }

    /// All messages that have arrived.
    pub fn received(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 2048];
        let received = std::iter::from_fn(|| {
            self.socket
                .recv(&mut buffer)
                .ok()
                .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        });
        received.collect()
    }

    /// Waits for a message that begins with `start`, and returns it.
    fn wait(&self, start: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let mut buffer = [0; 2048];
            let length =
                self.socket.recv(&mut buffer).unwrap_or_else(|_| panic!("no {start:?} after {seen:?}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(start) {
                return message;
            }
            seen.push(message);
        }
    }
}

pub fn a_pool_of_a_program_reports_its_state_to_the_service_manager() {
    let manager = Manager::new();
    let mut pool = Pool::start_with("notified", &[("NOTIFY_SOCKET", &manager.path)]);
    assert_eq!(manager.wait("READY=1"), format!("READY=1\nMAINPID={}", pool.pid()));
    assert_eq!(manager.wait("STATUS="), "STATUS=serving: 1 of 1 workers ready, generation 1");
    pool.signal(Signal::HUP);
    assert!(manager.wait("RELOADING=1\nMONOTONIC_USEC=").ends_with(|end: char| end.is_ascii_digit()));
    manager.wait("READY=1");
    assert_eq!(manager.wait("STATUS="), "STATUS=serving: 1 of 1 workers ready, generation 2");
    pool.signal(Signal::TERM);
    manager.wait("STOPPING=1");
    assert_eq!(pool.wait().code(), Some(0));
}
