//! Processes below a server that may outlive it, as far as they can be seen from outside: its pool's, and others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mcsup_core::LIFELINE_THREAD;
use mcsup_core::host::handle::Handle;
use mcsup_core::host::processes;
use mcsup_core::host::relatives::{self, Relative};
use mcsup_core::host::survivors::{self, SETTLE};

/// How often they are looked for while the server ends: it may start some until then.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often one is looked for that is not held.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The processes below a server, from the first look on.
pub(super) struct Below {
    server: i32,
    seen: BTreeMap<i32, Seen>,
    /// This process and those above it: the application may have started it.
    own: BTreeSet<i32>,
}

struct Seen {
    process: Relative,
    /// `None`: no descriptor is free for one.
    handle: Option<Handle>,
    /// A worker or a mold, which the server ends itself.
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

    /// Waits until it has ended; `false`: it had not by `deadline`.
    fn wait(&self, deadline: Instant) -> bool {
        if let Some(handle) = &self.handle {
            return handle.wait(Some(deadline));
        }
        while self.runs() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_AGAIN));
        }
        true
    }
}

impl Below {
    pub(super) fn new(server: i32) -> Self {
        let mut below = Self { server, seen: BTreeMap::new(), own: us_and_above() };
        below.look();
        below
    }

    fn look(&mut self) {
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

    /// Waits until the server has ended; `false`: it had not by `deadline`.
    pub(super) fn wait(&mut self, server: &Handle, deadline: Option<Instant>) -> bool {
        loop {
            let next = Instant::now() + LOOK_EVERY;
            if server.wait(Some(deadline.map_or(next, |deadline| deadline.min(next)))) {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            self.look();
        }
    }

    /// Those of the pool that have not ended by `deadline`, in words.
    pub(super) fn pool_left(&self, deadline: Instant) -> Vec<String> {
        let pool = self.seen.values().filter(|seen| seen.is_of_pool && !seen.wait(deadline));
        pool.map(|seen| processes::describe(seen.process.pid)).collect()
    }

    /// A sentence about the others that outlive the server.
    pub(super) fn sentence(&self) -> Option<String> {
        // What ran beside the server before it looks like what its application has started.
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

    /// Those that have not ended.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.seen.values().filter(|seen| !seen.has_ended()).map(|seen| seen.process.pid)
    }
}

fn us_and_above() -> BTreeSet<i32> {
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
        let below = Below::new(us.parent);
        assert!(below.seen.contains_key(&us.pid));
        assert!(below.others_left(Instant::now()).iter().all(|seen| seen.process.pid != us.pid));
    }

    #[test]
    fn one_for_which_no_descriptor_is_free_is_named_all_the_same() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut below = Below::new(processes::own_pid());
        let seen = below.seen.get_mut(&pid).unwrap();
        seen.handle = None;
        let deadline = || Instant::now() + Duration::from_millis(30);
        let names =
            |below: &Below| below.others_left(deadline()).iter().map(|it| it.process.pid).collect::<Vec<_>>();
        let before = (names(&below).contains(&pid), below.pids().any(|other| other == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(before, (true, true));
        assert_eq!((names(&below).contains(&pid), below.pids().any(|other| other == pid)), (false, false));
    }
}
