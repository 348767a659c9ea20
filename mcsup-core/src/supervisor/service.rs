//! The messages to the service manager: the state of the pool after each step of the policy.
//!
//! systemd documents them in sd_notify(3), and `Type=notify-reload` in systemd.service(5).

use std::ffi::OsString;
use std::time::Duration;

use crate::clock;
use crate::host::service_manager::{Notifier, ServiceManager};
use crate::listener::open::OpenSet;
use crate::listener::stored;
use crate::policy::{Ask, Effect, Event, Machine, Moment, Notice, PoolPhase, ReloadNotice, UpgradeNotice};

/// The service manager's view of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// Reports the state of the pool to the service manager.
#[derive(Debug)]
pub(crate) struct Service {
    manager: ServiceManager,
    notifier: Option<Notifier>,
    /// The state that was reported last.
    state: State,
    status: String,
    /// The failure of the last reload or upgrade.
    failure: Option<String>,
    next_beat: Moment,
    /// The names of the stored sockets.
    stored: Vec<String>,
    /// The time from which on a socket that could not be sent is sent again.
    store_again: Moment,
}

/// The time after which a socket that could not be stored is sent again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

impl Service {
    /// The reports of a new pool, or of one that another image has begun.
    pub(super) fn new(manager: ServiceManager, is_new: bool) -> Self {
        let open = |address: &OsString| match Notifier::new(address) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                log::warn!("Cannot notify the service manager at {}: {error}", address.to_string_lossy());
                None
            }
        };
        // Those of an earlier supervisor. The variables of a new image may be out of date: it stores all again.
        let stored: Vec<_> = manager.stored().iter().map(|socket| socket.name.clone()).collect();
        let stored = if is_new { stored } else { Vec::new() };
        Self {
            notifier: manager.notify_socket().and_then(open),
            manager,
            // The other image has reported its upgrade.
            state: if is_new { State::Starting } else { State::Reloading },
            status: String::new(),
            failure: None,
            next_beat: Duration::ZERO,
            stored,
            store_again: Duration::ZERO,
        }
    }

    /// The service manager.
    pub(super) fn manager(&self) -> &ServiceManager {
        &self.manager
    }

    /// Reports a requested reload before it begins: it may fail in the same step.
    ///
    /// systemd awaits this message after its SIGHUP, with a later time than that of the signal.
    pub(super) fn note_event(&mut self, event: &Event) {
        let Event::Ask(Ask::Reload, _) = event else { return };
        if matches!(self.state, State::Ready | State::Reloading) {
            self.report_reload();
        }
    }

    /// Reports the state after a step of the policy, whose effects are not applied yet.
    pub(super) fn update(&mut self, machine: &Machine, effects: &[Effect], now: Moment) {
        if self.notifier.is_none() {
            return;
        }
        for effect in effects {
            if let Effect::Log(notice) = effect {
                self.note(notice);
            }
        }
        self.set_state(state_of(machine));
        if self.state == State::Stopping {
            // Before the listeners refuse new clients.
            self.remove_unless(|_| false);
        }
        self.set_status(machine);
        self.beat(now);
    }

    /// Stores the sockets of `listeners` for the next supervisor, should this one crash, and no others.
    ///
    /// A pool that ends has none in the store: its listeners refuse new clients, and would go on to do so.
    /// A socket that cannot be sent now is sent again later.
    pub(super) fn store(&mut self, listeners: &OpenSet, now: Moment) {
        let most = self.manager.store();
        if self.notifier.is_none() || (most == 0 && self.stored.is_empty()) {
            return;
        }
        let is_ending = self.state == State::Stopping;
        let most = if is_ending { 0 } else { most };
        let wanted: Vec<_> = stored::storable(listeners).into_iter().take(most).collect();
        self.remove_unless(|stored| wanted.iter().any(|(name, _)| name == stored));
        for (name, socket) in wanted {
            // A socket of an earlier supervisor is in the store already: a further copy of it is dropped there.
            if self.stored.contains(&name) || self.store_again > now {
                continue;
            }
            let Some(notifier) = &mut self.notifier else { return };
            if notifier.send_descriptor(&format!("FDSTORE=1\nFDNAME={name}"), socket) {
                self.stored.push(name);
            } else {
                self.store_again = now.saturating_add(STORE_AGAIN);
            }
        }
    }

    /// Removes stored sockets by their names.
    pub(super) fn remove(&mut self, names: &[String]) {
        self.remove_unless(|stored| !names.contains(stored));
    }

    fn remove_unless(&mut self, is_wanted: impl Fn(&String) -> bool) {
        let (kept, removed) = std::mem::take(&mut self.stored).into_iter().partition(is_wanted);
        self.stored = kept;
        let removed: Vec<String> = removed;
        for name in removed {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
        }
    }

    /// The time of the next message that is due by itself.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        let notifier = self.notifier.as_ref()?;
        let beat = self.manager.watchdog().map(|_| self.next_beat);
        let store = (self.store_again > now).then_some(self.store_again);
        let again = notifier.pause().map(|pause| now.saturating_add(pause));
        [beat, store, again].into_iter().flatten().min()
    }

    /// Sends the last messages, and waits for room for them for a short time.
    pub(super) fn finish(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.finish();
        }
    }

    /// Closes the socket in a forked child.
    pub(super) fn close_in_child(&mut self) {
        self.notifier = None;
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Reload(ReloadNotice::Failed { reason, .. }) => {
                self.failure = Some(format!("the last reload failed: {reason}"));
            }
            Notice::Upgrade(UpgradeNotice::Failed { reason }) => {
                self.failure = Some(format!("the last upgrade failed: {reason}"));
            }
            Notice::Reload(ReloadNotice::Done { .. }) | Notice::Upgrade(UpgradeNotice::Done { .. }) => {
                self.failure = None;
            }
            _ => {}
        }
    }

    fn set_state(&mut self, state: State) {
        if self.state == state {
            return;
        }
        match state {
            State::Starting => {}
            // The pid of a daemon differs from that of the process that the service manager has started.
            State::Ready => self.send(&format!("READY=1\nMAINPID={}", std::process::id())),
            State::Reloading => self.report_reload(),
            State::Stopping => self.send("STOPPING=1"),
        }
        self.state = state;
    }

    fn report_reload(&mut self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now().as_micros()));
        self.state = State::Reloading;
    }

    fn set_status(&mut self, machine: &Machine) {
        let ready = machine.table().iter().filter(|entry| entry.state.is_ready()).count();
        let (phase, target, generation) = (machine.phase().name(), machine.target(), machine.current());
        let ready = ready.min(target);
        let failure = self.failure.as_ref().map(|failure| format!("; {failure}")).unwrap_or_default();
        let status = format!("{phase}: {ready} of {target} workers ready, generation {generation}{failure}");
        // A line ends the value.
        let status: String =
            status.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
        if status != self.status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    fn beat(&mut self, now: Moment) {
        if let Some(limit) = self.manager.watchdog().filter(|_| self.next_beat <= now) {
            self.send("WATCHDOG=1");
            self.next_beat = now.saturating_add(limit / 2);
        }
        if let Some(notifier) = &mut self.notifier {
            notifier.flush();
        }
    }

    fn send(&mut self, text: &str) {
        if let Some(notifier) = &mut self.notifier {
            notifier.send(text);
        }
    }
}

fn state_of(machine: &Machine) -> State {
    match machine.phase() {
        PoolPhase::Starting => State::Starting,
        PoolPhase::Serving if machine.awaits_reload() => State::Reloading,
        PoolPhase::Serving => State::Ready,
        PoolPhase::Reloading(_) | PoolPhase::RollingBack { .. } | PoolPhase::Upgrading { .. } => {
            State::Reloading
        }
        PoolPhase::LameDuck { .. }
        | PoolPhase::Stopping { .. }
        | PoolPhase::Failing { .. }
        | PoolPhase::Ended => State::Stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Options;
    use std::os::unix::net::UnixDatagram;

    /// The messages that have arrived at `manager`.
    fn received(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let texts =
            std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
    }

    #[test]
    fn a_socket_that_could_not_be_stored_is_sent_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listeners = OpenSet::open(&["127.0.0.1:0".parse().unwrap()], &Options::default(), 1).unwrap();
        let mut service = Service::new(ServiceManager::at(&path, 4), true);
        let second = Duration::from_secs(1);
        // The service manager is not there.
        service.store(&listeners, second);
        assert_eq!(service.deadline(second), Some(second + STORE_AGAIN));
        let manager = UnixDatagram::bind(&path).unwrap();
        // It has no room.
        while service.notifier.as_ref().unwrap().pause().is_none() {
            service.send("WATCHDOG=1");
        }
        service.store(&listeners, 2 * second);
        assert!(received(&manager).iter().all(|text| text == "WATCHDOG=1"));
        service.store(&listeners, 2 * second + STORE_AGAIN / 2);
        service.store(&listeners, 3 * second);
        service.store(&listeners, 4 * second);
        assert_eq!(service.deadline(4 * second), None);
        let stored: Vec<String> = received(&manager)
            .into_iter()
            .filter(|text| text.starts_with("FDSTORE=1\nFDNAME=mcsup,127"))
            .collect();
        assert_eq!(stored.len(), 1, "{stored:?}");
    }
}
