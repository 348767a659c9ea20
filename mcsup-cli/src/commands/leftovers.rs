//! Processes below a server, and outside of its pool, that outlive it, as far as they can be seen from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mcsup_core::LIFELINE_THREAD;
use mcsup_core::host::handle::Handle;
use mcsup_core::host::processes;
use mcsup_core::host::relatives::{self, Relative};
use mcsup_core::host::survivors::{self, SETTLE};

/// How often they are looked for while the server ends: it may start some until then.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The processes below a server, from the first look on.
pub(super) struct Below {
    server: i32,
    seen: BTreeMap<i32, (Relative, Handle, String)>,
}

impl Below {
    pub(super) fn new(server: i32) -> Self {
        let mut below = Self { server, seen: BTreeMap::new() };
        below.look();
        below
    }

    /// Workers, which the server ends itself.
    pub(super) fn workers(&self) -> Vec<Handle> {
        let of_pool =
            |process: &&Relative| process.parent == self.server && process.has_thread(LIFELINE_THREAD);
        let workers = self.seen.values().map(|(process, _, _)| process).filter(of_pool);
        workers.filter_map(Relative::hold).collect()
    }

    fn look(&mut self) {
        for process in relatives::below(self.server, &[]).into_iter().filter(|process| !process.is_zombie) {
            if self.seen.get(&process.pid).is_some_and(|(seen, _, _)| seen.is_same(&process)) {
                continue;
            }
            if let Some(handle) = process.hold() {
                self.seen.insert(process.pid, (process, handle, process.describe()));
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

    /// A sentence about those that outlive the server. `ours`: those that another sentence names.
    pub(super) fn sentence(&self, ours: &[Handle]) -> Option<String> {
        let deadline = Instant::now() + SETTLE;
        let others =
            self.seen.values().filter(|(process, _, _)| !ours.iter().any(|it| it.pid() == process.pid));
        let left: Vec<(i32, &String)> = others
            .filter(|(_, handle, _)| !handle.wait(Some(deadline)))
            .map(|(process, _, name)| (process.pid, name))
            .collect();
        // What ran beside the server before it looks like what its application has started.
        survivors::sentence("outside of the pool", left.iter().map(|(pid, name)| with_ports(*pid, name)))
    }

    /// Those that have not ended.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        let living = self.seen.values().filter(|(_, handle, _)| !handle.has_ended());
        living.map(|(process, _, _)| process.pid)
    }
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
