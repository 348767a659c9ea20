//! The descendants of a server, seen from outside: its workers and molds, and processes of the application.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mcsup_core::LIFELINE_THREAD;
use mcsup_core::host::handle::Handle;
use mcsup_core::host::processes;
use mcsup_core::host::relatives::{self, Relative};
use mcsup_core::host::survivors::{self, SETTLE};

/// Interval of the scans while the server ends and may still start processes.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// Poll interval for a process without a handle.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The descendants of a server, collected from the first scan on.
pub(super) struct Descendants {
    server: i32,
    seen: BTreeMap<i32, Seen>,
    /// This process and its ancestors: the application may have started it.
    own: BTreeSet<i32>,
}

struct Seen {
    process: Relative,
    /// `None`: no descriptor is free for a handle.
    handle: Option<Handle>,
    /// Whether it is a worker or mold, which the server itself ends.
    is_of_pool: bool,
    name: String,
}

impl Seen {
    fn has_ended(&self) -> bool {
        self.handle.as_ref().map_or_else(|| !self.runs(), Handle::has_ended)
    }

    fn runs(&self) -> bool {
        Relative::find(self.process.pid).is_some_and(|now| now.is_same(&self.process) && !now.is_zombie)
    }

    /// Waits for its end; `false` at `deadline`.
    fn wait(&self, deadline: Instant) -> bool {
        if let Some(handle) = &self.handle {
            return handle.wait(Some(deadline));
        }
        while self.runs() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
        true
    }
}

impl Descendants {
    pub(super) fn new(server: i32) -> Self {
        let mut descendants = Self { server, seen: BTreeMap::new(), own: own_and_ancestors() };
        descendants.scan();
        descendants
    }

    fn scan(&mut self) {
        for process in relatives::below(self.server, &[]).into_iter().filter(|process| !process.is_zombie) {
            if self.seen.get(&process.pid).is_some_and(|seen| seen.process.is_same(&process)) {
                continue;
            }
            let handle = process.hold();
            if handle.is_some() || process.exists() {
                let is_of_pool = process.parent == self.server
                    && (process.has_thread(LIFELINE_THREAD) || process.has_scoreboard());
                let name = process.describe();
                self.seen.insert(process.pid, Seen { process, handle, is_of_pool, name });
            }
        }
    }

    /// Waits for the end of the server; `false` at `deadline`.
    pub(super) fn wait(&mut self, server: &Handle, deadline: Option<Instant>) -> bool {
        loop {
            let next = Instant::now() + SCAN_INTERVAL;
            if server.wait(Some(deadline.map_or(next, |deadline| deadline.min(next)))) {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            self.scan();
        }
    }

    /// Descriptions of workers and molds that still run at `deadline`.
    pub(super) fn pool_left(&self, deadline: Instant) -> Vec<String> {
        let pool = self.seen.values().filter(|seen| seen.is_of_pool && !seen.wait(deadline));
        pool.map(|seen| processes::describe(seen.process.pid)).collect()
    }

    /// A sentence that names the other processes that outlive the server.
    pub(super) fn sentence(&self) -> Option<String> {
        // It includes processes that were siblings of the server: they look like the application's.
        let left = self.others_left(Instant::now() + SETTLE);
        survivors::sentence(
            "outside of the pool",
            left.iter().map(|seen| with_ports(seen.process.pid, &seen.name)),
        )
    }

    fn others_left(&self, deadline: Instant) -> Vec<&Seen> {
        let others =
            self.seen.values().filter(|seen| !seen.is_of_pool && !self.own.contains(&seen.process.pid));
        others.filter(|seen| !seen.wait(deadline)).collect()
    }

    /// The pids of all descendants that still run.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.seen.values().filter(|seen| !seen.has_ended()).map(|seen| seen.process.pid)
    }
}

fn own_and_ancestors() -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next = Some(processes::own_pid());
    while let Some(pid) = next.filter(|pid| *pid > 0 && found.insert(*pid)) {
        next = Relative::find(pid).map(|process| process.parent);
    }
    found
}

fn with_ports(pid: i32, name: &str) -> String {
    let ports: Vec<String> =
        processes::listening_addresses(pid).iter().map(std::string::ToString::to_string).collect();
    if ports.is_empty() {
        name.to_owned()
    } else {
        format!("{name}, which listens at {}", ports.join(" and "))
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_process_that_stops_a_server_is_no_leftover_of_it() {
        let us = Relative::find(processes::own_pid()).unwrap();
        let below = Descendants::new(us.parent);
        assert!(below.seen.contains_key(&us.pid));
        assert!(below.others_left(Instant::now()).iter().all(|seen| seen.process.pid != us.pid));
    }

    #[test]
    fn a_process_without_a_handle_is_named_too() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut below = Descendants::new(processes::own_pid());
        let seen = below.seen.get_mut(&pid).unwrap();
        seen.handle = None;
        let deadline = || Instant::now() + Duration::from_millis(30);
        let names = |below: &Descendants| {
            below.others_left(deadline()).iter().map(|it| it.process.pid).collect::<Vec<_>>()
        };
        let before = (names(&below).contains(&pid), below.pids().any(|other| other == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(before, (true, true));
        assert_eq!((names(&below).contains(&pid), below.pids().any(|other| other == pid)), (false, false));
    }
}
