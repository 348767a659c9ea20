//! Which deaths by SIGKILL the kernel's out-of-memory kills explain.
//!
//! The kernel counts its kills for each cgroup, and names no process. So only a kill that was counted shortly before a
//! death explains it, and each kill explains one death. The time of a kill is the interval between two readings of the
//! counter. The supervisor reads it whenever it is awake, and at once after a notice of the kernel.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::process::getpid;

use crate::clock;
use crate::host::memory_watch::Watch;
use crate::host::out_of_memory::{Counter, Hierarchies};
use crate::host::processes;
use crate::policy::{Moment, OutOfMemory};

/// The longest time from a kill to the end of its process: the kernel frees the memory first.
const RECENT: Duration = Duration::from_secs(2);

/// How long a kill without a death is kept.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The shortest interval between two readings while no worker dies.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The delay of the second reading after a notice: the kill may not be counted at the first.
const AFTER_NOTICE: Duration = Duration::from_secs(1);

/// The longest time from a kill to its notice.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// The kills of all cgroups that workers are in.
#[derive(Debug)]
pub(super) struct Kills {
    hierarchies: Hierarchies,
    ledgers: BTreeMap<Counter, Ledger>,
    own: Option<Counter>,
    watch: Option<Watch>,
    noticed: Option<Moment>,
    read_at: Moment,
    turn: usize,
    read_again_at: Option<Moment>,
    /// The number of processes that died in this round of a SIGKILL that the supervisor did not send.
    deaths: u64,
}

impl Kills {
    pub(super) fn new() -> Self {
        let now = clock::now();
        let mut kills = Self {
            hierarchies: Hierarchies::new(),
            ledgers: BTreeMap::new(),
            own: None,
            watch: None,
            noticed: None,
            read_at: now,
            turn: 0,
            read_again_at: None,
            deaths: 0,
        };
        kills.find_own();
        kills
    }

    /// Finds the counter of the supervisor's own cgroup, and watches it.
    fn find_own(&mut self) {
        self.own = self.counter_of(getpid().as_raw_nonzero().get());
        self.watch = self.own.as_ref().and_then(Watch::new);
    }

    /// The counter of the supervisor's own cgroup, in which workers begin.
    pub(super) fn own(&self) -> Option<Counter> {
        self.own.clone()
    }

    /// The counter of a process's cgroup. It is read from now on.
    pub(super) fn counter_of(&mut self, pid: i32) -> Option<Counter> {
        let counter = self.hierarchies.counter_of(pid)?;
        // For an ending process cgroup v1 shows the root of the hierarchy.
        if processes::is_ending(pid) {
            return None;
        }
        if !self.ledgers.contains_key(&counter) {
            self.ledgers.insert(counter.clone(), Ledger::new(counter.kills()?, clock::now()));
        }
        Some(counter)
    }

    /// The descriptor to poll for notices. After a notice it pauses, since notices may come many times a second.
    pub(super) fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.watch.as_ref().filter(|_| self.read_again_at.is_none()).map(Watch::source)
    }

    /// The time of the next reading without an event.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.read_again_at
    }

    /// Reads the counters if due. Returns a running number then: it selects the worker whose cgroup is looked up next.
    pub(super) fn on_wake(&mut self, now: Moment) -> Option<usize> {
        let has_notice = self.read_again_at.is_none() && self.take_notice();
        if has_notice {
            self.noticed = Some(now);
        }
        let is_due = has_notice
            || self.read_again_at.is_some_and(|at| at <= now)
            || now.saturating_sub(self.read_at) >= READ_EVERY;
        if is_due {
            self.read_counters(now);
            // Once more after the last notice.
            self.read_again_at = has_notice.then_some(now + AFTER_NOTICE);
        }
        is_due.then(|| {
            self.turn = self.turn.wrapping_add(1);
            self.turn
        })
    }

    fn take_notice(&mut self) -> bool {
        match self.watch.as_ref().map(Watch::take) {
            None => false,
            Some(Ok(is_new)) => is_new,
            // The supervisor was moved to another cgroup, and the watched one was removed.
            Some(Err(_)) => {
                self.find_own();
                false
            }
        }
    }

    fn read_counters(&mut self, now: Moment) {
        let noticed = self.noticed.filter(|noticed| now.saturating_sub(*noticed) <= RECENT);
        let not_before = noticed.map(|noticed| noticed.saturating_sub(NOTICED_WITHIN));
        self.ledgers.retain(|counter, ledger| {
            let count = counter.kills();
            if let Some(count) = count {
                ledger.note_count(count, not_before, now);
            }
            count.is_some()
        });
        self.read_at = now;
    }

    /// Notes how many reaped processes died of a SIGKILL that the supervisor did not send.
    pub(super) fn deaths(&mut self, deaths: u64) {
        self.deaths = deaths;
        if deaths > 0 {
            self.read_counters(clock::now());
        }
    }

    /// The explanation of one of these deaths.
    pub(super) fn explain(&mut self, counter: Option<&Counter>, born: Moment) -> OutOfMemory {
        let ledger = counter.and_then(|counter| self.ledgers.get_mut(counter));
        ledger
            .map_or(OutOfMemory::NotCounted, |ledger| ledger.explain(self.deaths.max(1), born, clock::now()))
    }

    /// Closes the handles in a forked child.
    pub(super) fn close_in_child(&mut self) {
        self.watch = None;
        self.ledgers.clear();
    }
}

/// The kills of one cgroup.
#[derive(Debug)]
struct Ledger {
    first: Moment,
    read_at: Moment,
    count: u64,
    kills: Vec<Counted>,
}

/// Kills that one reading of the counter has found.
#[derive(Debug)]
struct Counted {
    /// The earliest time at which they can have happened.
    since: Moment,
    kills: u64,
    /// The number of them that explain no death yet.
    left: u64,
}

impl Ledger {
    fn new(count: u64, now: Moment) -> Self {
        Self { first: now, read_at: now, count, kills: Vec::new() }
    }

    /// Notes a reading of the counter. `not_before`: no new kill is older, by a notice.
    fn note_count(&mut self, count: u64, not_before: Option<Moment>, now: Moment) {
        self.kills.retain(|counted| now.saturating_sub(counted.since) <= REMEMBERED);
        if count > self.count {
            let since = not_before.map_or(self.read_at, |noticed| noticed.max(self.read_at));
            let kills = count - self.count;
            self.kills.push(Counted { since, kills, left: kills });
        }
        self.count = count;
        self.read_at = now;
    }

    /// Explains one of `deaths` deaths.
    fn explain(&mut self, deaths: u64, born: Moment, now: Moment) -> OutOfMemory {
        let is_recent = |counted: &Counted| now.saturating_sub(counted.since) <= RECENT;
        let recent: u64 =
            self.kills.iter().filter(|counted| is_recent(counted)).map(|counted| counted.kills).sum();
        if let Some(counted) = self.kills.iter_mut().find(|counted| is_recent(counted) && counted.left > 0) {
            counted.left -= 1;
            return match deaths <= recent {
                true => OutOfMemory::Kill,
                false => OutOfMemory::Perhaps { kills: recent, deaths },
            };
        }
        // Recent kills are attributed to other deaths, perhaps wrongly.
        let others = self.kills.iter().filter(|counted| is_recent(counted) || counted.left > 0);
        let (kills, since) =
            others.fold((0, now), |(sum, first), other| (sum + other.kills, first.min(other.since)));
        match kills {
            0 if born < self.first => OutOfMemory::NotCounted,
            0 => OutOfMemory::None,
            kills => OutOfMemory::Earlier { kills, within: now.saturating_sub(since) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Duration::from_secs(100) + Duration::from_millis(ms)
    }

    fn ledger() -> Ledger {
        Ledger::new(7, at(0))
    }

    #[test]
    fn kills_that_were_counted_before_the_workers_last_seconds_explain_nothing() {
        let mut ledger = ledger();
        ledger.note_count(9, None, at(1000));
        ledger.note_count(9, None, at(30_000));
        let earlier = OutOfMemory::Earlier { kills: 2, within: at(30_000) - at(0) };
        assert_eq!(ledger.explain(1, at(500), at(30_000)), earlier);
        ledger.note_count(9, None, at(90_000));
        assert_eq!(ledger.explain(1, at(500), at(90_000)), OutOfMemory::None);
    }

    #[test]
    fn each_kill_explains_one_death() {
        let mut ledger = ledger();
        ledger.note_count(9, None, at(1000));
        let explained = [(); 3].map(|()| ledger.explain(2, at(0), at(1100)));
        let others = OutOfMemory::Earlier { kills: 2, within: at(1100) - at(0) };
        assert_eq!(explained, [OutOfMemory::Kill, OutOfMemory::Kill, others]);
    }

    #[test]
    fn more_deaths_than_kills_are_not_certain() {
        let mut ledger = ledger();
        ledger.note_count(9, None, at(1000));
        let perhaps = OutOfMemory::Perhaps { kills: 2, deaths: 3 };
        let explained = [(); 3].map(|()| ledger.explain(3, at(0), at(1100)));
        let others = OutOfMemory::Earlier { kills: 2, within: at(1100) - at(0) };
        assert_eq!(explained, [perhaps.clone(), perhaps, others]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn a_cgroup_that_was_removed_makes_no_news_for_ever() {
        use crate::host::memory_watch::tests::{Inhabited, wait_on};
        let groups = Inhabited::all();
        if groups.is_empty() {
            println!("SKIPPED: no cgroup can be made here");
        }
        for mut cgroup in groups {
            let mut kills = Kills::new();
            kills.watch = Some(Watch::new(&cgroup.counter()).unwrap());
            cgroup.remove();
            wait_on(kills.watch.as_ref().unwrap());
            kills.on_wake(clock::now());
            assert_eq!((kills.noticed, kills.read_again_at), (None, None));
            // Our own cgroup may have none to wait on.
            assert!(kills.watch.as_ref().is_none_or(|watch| watch.take().is_ok()));
        }
    }

    #[test]
    fn after_a_long_sleep_only_a_notice_tells_that_a_kill_is_recent() {
        let (mut without, mut with) = (ledger(), ledger());
        without.note_count(8, None, at(20_000));
        let earlier = OutOfMemory::Earlier { kills: 1, within: Duration::from_secs(20) };
        assert_eq!(without.explain(1, at(0), at(20_000)), earlier);
        with.note_count(8, Some(at(19_900)), at(20_000));
        assert_eq!(with.explain(1, at(0), at(20_000)), OutOfMemory::Kill);
    }

    #[test]
    fn of_a_worker_that_is_older_than_the_first_look_a_missing_kill_says_nothing() {
        let mut ledger = ledger();
        let born = at(0) - Duration::from_secs(1);
        assert_eq!(ledger.explain(1, born, at(10)), OutOfMemory::NotCounted);
        assert_eq!(ledger.explain(1, at(5), at(10)), OutOfMemory::None);
    }
}
