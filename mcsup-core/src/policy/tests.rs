//! Whole lives of a pool as scripts of events, with a hand-turned clock. Random ones are in `random`.

mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::policy::event::{Generation, Slot};

/// A pool whose world does what the test says.
struct Life {
    machine: Machine,
    now: Moment,
    /// Living workers: generation and slot.
    living: BTreeMap<WorkerId, (Generation, Slot)>,
    /// Workers whose fork failed.
    unborn: BTreeSet<WorkerId>,
    drained: BTreeSet<WorkerId>,
    killed: BTreeSet<WorkerId>,
    quit: BTreeSet<WorkerId>,
    notices: Vec<Notice>,
    pool_ready: usize,
    outcome: Option<Outcome>,
    spawns: usize,
    fork_fails: bool,
    /// Living molds.
    molds: BTreeMap<WorkerId, Generation>,
    promoted: BTreeSet<WorkerId>,
    lame_ducks: BTreeSet<WorkerId>,
    answers: BTreeMap<Ticket, Answer>,
    /// What reading the settings anew comes to.
    settings: Settings,
    /// Effects that are only counted: what, how often.
    committed: Vec<Generation>,
    discarded: Vec<Generation>,
    execs: usize,
    measures: usize,
}

/// What the settings are found to be at the next reload.
#[derive(Clone)]
enum Settings {
    Same,
    New(Policy),
    Broken,
}

const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn policy(workers: usize) -> Policy {
    Policy { workers, timeout: Some(seconds(30)), ..Policy::default() }
}

/// A whole second pool at a reload.
fn blue_green(workers: usize) -> Policy {
    Policy { plan: Plan { surge: Surge::All, ..Plan::default() }, ..policy(workers) }
}

impl Life {
    fn start(policy: Policy) -> Self {
        let mut life = Self {
            machine: Machine::new(policy),
            now: seconds(1000),
            living: BTreeMap::new(),
            unborn: BTreeSet::new(),
            drained: BTreeSet::new(),
            killed: BTreeSet::new(),
            quit: BTreeSet::new(),
            notices: Vec::new(),
            pool_ready: 0,
            outcome: None,
            spawns: 0,
            fork_fails: false,
            molds: BTreeMap::new(),
            promoted: BTreeSet::new(),
            lame_ducks: BTreeSet::new(),
            answers: BTreeMap::new(),
            settings: Settings::Same,
            committed: Vec::new(),
            discarded: Vec::new(),
            execs: 0,
            measures: 0,
        };
        let effects = life.machine.start(life.now);
        life.act(effects);
        life
    }

    /// A pool of `workers` that all became ready.
    fn serving(workers: usize) -> Self {
        Self::serving_by(policy(workers))
    }

    fn serving_by(policy: Policy) -> Self {
        let mut life = Self::start(policy);
        life.mold_ready();
        life.all_ready();
        assert_eq!(life.phase(), "serving");
        life
    }

    fn phase(&self) -> &'static str {
        self.machine.phase().name()
    }

    /// As the supervisor does it: all effects first, then whatever came of them at once.
    fn act(&mut self, effects: Vec<Effect>) {
        let mut events = Vec::new();
        for effect in effects {
            events.extend(self.apply(effect));
        }
        for event in events {
            self.step(event);
        }
    }

    fn apply(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn { worker, slot, generation, mold, .. } => {
                assert!(
                    mold.is_none_or(|mold| self.molds.contains_key(&mold)),
                    "forked by a mold that is gone"
                );
                return Some(self.fork(worker, slot, generation));
            }
            Effect::SpawnMold { mold, generation } => return Some(self.fork_mold(mold, generation)),
            Effect::Prepare { generation } => return Some(self.prepare(generation)),
            Effect::Promote { worker } => {
                let (generation, _) = self.living.remove(&worker).unwrap();
                self.molds.insert(worker, generation);
                self.promoted.insert(worker);
            }
            Effect::Drain { worker, .. } => assert!(self.drained.insert(worker), "drained twice"),
            Effect::Quit { worker } => {
                self.quit.insert(worker);
            }
            Effect::Kill { worker } | Effect::Abort { worker } => {
                let is_there = self.unborn.contains(&worker) || self.living.contains_key(&worker);
                assert!(is_there || self.molds.contains_key(&worker), "a signal to a process that is gone");
                if matches!(effect, Effect::Kill { .. }) {
                    self.killed.insert(worker);
                }
            }
            Effect::LameDuck { worker } => {
                self.lame_ducks.insert(worker);
            }
            Effect::Answer { ticket, answer } => {
                assert!(self.answers.insert(ticket, answer).is_none(), "answered twice");
            }
            Effect::Tell(notice) => self.notices.push(notice),
            Effect::PoolReady => self.pool_ready += 1,
            Effect::End(outcome) => {
                assert!(self.outcome.is_none(), "ended twice");
                self.outcome = Some(outcome);
            }
            Effect::Commit { generation } => self.committed.push(generation),
            Effect::Discard { generation } => self.discarded.push(generation),
            Effect::Exec => self.execs += 1,
            Effect::Measure => self.measures += 1,
            Effect::ReopenLogs { .. }
            | Effect::CloseListeners
            | Effect::Resize { .. }
            | Effect::CheckImage
            | Effect::Broken { .. } => {}
        }
        None
    }

    fn prepare(&mut self, generation: Generation) -> Event {
        let policy = match &self.settings {
            Settings::Same => None,
            Settings::New(policy) => Some(Box::new(policy.clone())),
            Settings::Broken => return Event::NotPrepared { generation, reason: "line 3".to_owned() },
        };
        Event::Prepared { generation, policy, closes_listeners: false }
    }

    fn fork_mold(&mut self, mold: WorkerId, generation: Generation) -> Event {
        if self.fork_fails {
            self.unborn.insert(mold);
            return Event::SpawnFailed { worker: mold, reason: "no memory".to_owned() };
        }
        self.molds.insert(mold, generation);
        Event::Spawned { worker: mold, pid: i32::try_from(mold.0).unwrap() }
    }

    /// Every mold that boots is ready.
    fn mold_ready(&mut self) {
        let booting =
            |(id, mold): (WorkerId, &mold::Mold)| matches!(mold.state, State::Booting { .. }).then_some(id);
        for worker in self.machine.molds().iter().filter_map(booting).collect::<Vec<_>>() {
            self.step(Event::Ready { worker });
        }
    }

    fn mold_dies(&mut self, mold: WorkerId) {
        self.molds.remove(&mold).unwrap();
        let exit = Exit { status: ExitStatus::Signal(9), evidence: Evidence::default() };
        self.step(Event::Exited { worker: mold, exit });
    }

    fn fork(&mut self, worker: WorkerId, slot: Slot, generation: Generation) -> Event {
        self.spawns += 1;
        if self.fork_fails {
            self.unborn.insert(worker);
            return Event::SpawnFailed { worker, reason: "no memory".to_owned() };
        }
        assert!(self.living.insert(worker, (generation, slot)).is_none());
        Event::Spawned { worker, pid: i32::try_from(worker.0).unwrap() }
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(event, self.now);
        self.act(effects);
    }

    fn ask(&mut self, ask: Ask) {
        self.step(Event::Ask(ask, None));
    }

    /// Asks, and waits for the answer.
    fn ask_for_answer(&mut self, ask: Ask) -> Ticket {
        let ticket = Ticket(1000 + self.notices.len() as u64);
        self.step(Event::Ask(ask, Some(ticket)));
        ticket
    }

    fn reload(&mut self) {
        self.ask(Ask::Reload);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(Event::Tick);
    }

    /// Time passes, and everybody moves.
    fn live(&mut self, time: Duration) {
        self.now += time;
        let beats = self.living.keys().map(|worker| (*worker, self.now)).collect();
        self.step(Event::Beats(beats));
    }

    fn exit(&mut self, worker: WorkerId, status: ExitStatus) {
        self.living.remove(&worker).unwrap();
        let exit = Exit { status, evidence: Evidence::default() };
        self.step(Event::Exited { worker, exit });
    }

    /// Whoever was killed is reaped; whoever drains ends.
    fn obey(&mut self) {
        let ends = |life: &Self, mold: &WorkerId| life.killed.contains(mold) || life.quit.contains(mold);
        while let Some(&mold) = self.molds.keys().find(|mold| ends(self, mold)) {
            self.molds.remove(&mold);
            let exit = Exit { status: ExitStatus::Code(0), evidence: Evidence::default() };
            self.step(Event::Exited { worker: mold, exit });
        }
        while let Some(&worker) = self.living.keys().find(|worker| self.killed.contains(worker)) {
            self.exit(worker, ExitStatus::Signal(9));
        }
        while let Some(&worker) = self.living.keys().find(|worker| self.drained.contains(worker)) {
            self.exit(worker, ExitStatus::Code(0));
        }
    }

    fn workers(&self, wanted: impl Fn(&State) -> bool) -> Vec<WorkerId> {
        self.machine.table().select(|entry| wanted(&entry.state))
    }

    fn booting(&self) -> Vec<WorkerId> {
        self.workers(|state| matches!(state, State::Booting { .. }))
    }

    fn ready(&self) -> Vec<WorkerId> {
        self.workers(State::is_ready)
    }

    /// How many of the current generation serve.
    fn serving_now(&self) -> usize {
        let current = self.machine.current();
        self.machine.table().select(|entry| entry.generation == current && entry.state.is_ready()).len()
    }

    fn all_ready(&mut self) {
        for worker in self.booting() {
            self.step(Event::Ready { worker });
        }
    }

    fn boot_fails(&mut self, worker: WorkerId, kind: ErrorKind) {
        let failure = BootFailure { kind, summary: "broken".to_owned(), detail: None };
        self.step(Event::BootFailed { worker, failure });
    }

    fn told(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| wanted(notice)).count()
    }
}

#[test]
fn a_pool_is_ready_when_its_last_worker_is() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    life.step(Event::Ready { worker: booting[0] });
    assert_eq!((life.pool_ready, life.phase()), (0, "starting"));
    life.step(Event::Ready { worker: booting[1] });
    assert_eq!((life.pool_ready, life.phase()), (1, "serving"));
}

#[test]
fn a_first_boot_that_fails_ends_everything_with_one_reason_whatever_the_number_of_workers() {
    for workers in [1, 2, 4] {
        let mut life = Life::start(policy(workers));
        for worker in life.booting() {
            life.boot_fails(worker, ErrorKind::Application);
        }
        life.obey();
        for worker in life.living.clone().into_keys() {
            life.exit(worker, ExitStatus::Code(4));
        }
        assert_eq!(life.outcome, Some(Outcome::BootFailed(ErrorKind::Application)));
        assert_eq!(life.told(|notice| matches!(notice, Notice::BootFailed { .. })), 1);
        assert_eq!(life.spawns, workers);
    }
}

#[test]
fn a_worker_that_never_becomes_ready_ends_the_start() {
    let mut life = Life::start(policy(2));
    life.pass(seconds(59));
    assert!(life.killed.is_empty());
    life.pass(seconds(1));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::BootFailed(ErrorKind::Boot)));
}

#[test]
fn a_worker_that_dies_is_replaced_at_once_and_one_that_keeps_dying_ever_later() {
    let mut life = Life::serving(1);
    life.live(seconds(60));
    let worker = life.ready()[0];
    life.exit(worker, ExitStatus::Signal(9));
    assert_eq!(life.booting().len(), 1);
    let mut spawned = life.spawns;
    for _ in 0..600 {
        life.all_ready();
        for worker in life.ready() {
            life.exit(worker, ExitStatus::Code(1));
        }
        life.live(Duration::from_millis(100));
    }
    spawned = life.spawns - spawned;
    assert!((4..=10).contains(&spawned), "{spawned} respawns in a minute");
}

#[test]
fn a_replacement_that_cannot_boot_does_not_end_a_pool_that_once_served() {
    let mut life = Life::serving(2);
    let worker = life.ready()[0];
    life.exit(worker, ExitStatus::Signal(9));
    let replacement = life.booting()[0];
    life.boot_fails(replacement, ErrorKind::Application);
    life.exit(replacement, ExitStatus::Code(4));
    assert_eq!((life.outcome, life.ready().len(), life.booting().len()), (None, 1, 0));
    life.live(seconds(31));
    assert_eq!(life.booting().len(), 1);
}

#[test]
fn a_fork_that_fails_is_tried_again() {
    let mut life = Life::serving(2);
    life.fork_fails = true;
    let worker = life.ready()[0];
    life.exit(worker, ExitStatus::Signal(9));
    assert_eq!((life.outcome, life.ready().len()), (None, 1));
    life.fork_fails = false;
    life.live(seconds(31));
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_silent_worker_is_aborted_then_killed_and_replaced_and_one_that_beats_is_not() {
    let mut life = Life::serving(2);
    let [silent, busy] = life.ready()[..] else { panic!() };
    life.now += seconds(30);
    life.step(Event::Beats(vec![(silent, life.now - seconds(30)), (busy, life.now - SECOND)]));
    assert!(matches!(life.machine.table().get(silent).unwrap().state, State::Aborting { .. }));
    assert!(life.machine.table().get(busy).unwrap().state.is_ready());
    life.pass(SECOND);
    assert_eq!(life.killed, BTreeSet::from([silent]));
    life.obey();
    assert_eq!(life.booting().len(), 1);
}

#[test]
fn a_worker_that_wants_to_leave_is_replaced_at_once_and_has_its_time_to_finish() {
    let mut life = Life::serving(2);
    life.live(seconds(20));
    let leaving = life.ready()[0];
    life.step(Event::Leaving { worker: leaving, reason: "tired".to_owned() });
    assert_eq!((life.drained.len(), life.booting().len(), life.killed.len()), (1, 1, 0));
    life.all_ready();
    assert_eq!(life.serving_now(), 2);
    life.live(seconds(31));
    assert_eq!(life.killed, BTreeSet::from([leaving]));
    life.obey();
    assert_eq!((life.living.len(), life.spawns), (2, 3));
}

#[test]
fn a_worker_that_soon_wants_to_leave_again_is_replaced_ever_later() {
    let mut life = Life::serving(1);
    for expected in [1, 0, 0] {
        let worker = life.ready()[0];
        life.step(Event::Leaving { worker, reason: "tired".to_owned() });
        assert_eq!(life.booting().len(), expected);
        life.pass(seconds(5));
        life.all_ready();
    }
}

#[test]
fn a_supervisor_that_was_suspended_blames_nobody() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    life.step(Event::Ready { worker: booting[0] });
    life.now += seconds(3600);
    life.step(Event::Late { by: seconds(3540) });
    life.step(Event::Beats(vec![(booting[0], seconds(1000))]));
    life.step(Event::Tick);
    assert!(life.killed.is_empty() && life.workers(State::is_leaving).is_empty());
}

#[test]
fn a_reload_retires_the_old_generation_when_the_new_one_is_whole() {
    let mut life = Life::serving_by(blue_green(2));
    let old = life.ready();
    life.reload();
    let new = life.booting();
    assert_eq!(new.len(), 2);
    life.step(Event::Ready { worker: new[0] });
    assert!(life.drained.is_empty());
    life.step(Event::Ready { worker: new[1] });
    assert_eq!(life.drained, old.iter().copied().collect());
    life.obey();
    assert_eq!((life.ready(), life.machine.current()), (new, 2));
}

#[test]
fn a_reload_that_fails_in_any_way_leaves_the_old_generation_serving() {
    type Blow = fn(&mut Life, WorkerId);
    let blows: [Blow; 4] = [
        |life, worker| life.boot_fails(worker, ErrorKind::Application),
        |life, worker| life.exit(worker, ExitStatus::Signal(11)),
        |life, _| life.pass(seconds(60)),
        |life, worker| {
            life.step(Event::Ready { worker });
            life.exit(worker, ExitStatus::Code(1));
        },
    ];
    for blow in blows {
        // Beats go on in real life; here only the boot counts.
        let mut life = Life::start(Policy { timeout: None, ..blue_green(2) });
        life.all_ready();
        let old = life.ready();
        life.reload();
        let first = life.booting()[0];
        blow(&mut life, first);
        life.obey();
        for worker in life.living.clone().into_keys().filter(|worker| !old.contains(worker)) {
            life.exit(worker, ExitStatus::Code(4));
        }
        assert_eq!((life.ready(), life.phase()), (old, "serving"));
        assert_eq!(life.told(|notice| matches!(notice, Notice::ReloadFailed { .. })), 1);
        life.reload();
        life.all_ready();
        assert_eq!(life.phase(), "serving");
        assert_eq!(life.told(|notice| matches!(notice, Notice::ReloadDone { .. })), 1);
    }
}

#[test]
fn an_old_worker_that_dies_during_a_reload_is_replaced_by_one_of_its_own_generation() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    let old = life.ready()[0];
    life.exit(old, ExitStatus::Signal(9));
    let generations: Vec<_> = life.booting().iter().map(|worker| life.living[worker].0).collect();
    assert_eq!(generations, [2, 2, 1]);
    assert!(life.phase() == "reloading");
}

#[test]
fn a_newer_reload_supersedes_one_that_hangs_but_a_storm_of_them_is_bounded() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    for _ in 0..100 {
        life.reload();
    }
    assert_eq!(life.told(|notice| matches!(notice, Notice::Reloading { .. })), 1);
    life.pass(SECOND);
    assert_eq!(life.told(|notice| matches!(notice, Notice::ReloadSuperseded { generation: 2 })), 1);
    life.obey();
    assert_eq!(life.living.len(), 4);
    life.all_ready();
    assert_eq!(life.machine.current(), 3);
}

#[test]
fn reloads_wait_while_too_many_generations_still_drain() {
    let mut life = Life::serving_by(blue_green(1));
    for _ in 0..2 {
        life.reload();
        life.all_ready();
    }
    life.reload();
    assert_eq!((life.phase(), life.living.len()), ("serving", 3));
    life.obey();
    assert!(life.phase() == "reloading");
}

#[test]
fn a_graceful_stop_drains_and_ends() {
    let mut life = Life::serving(2);
    life.ask(Ask::StopGraceful);
    assert_eq!(life.drained.len(), 2);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_worker_that_does_not_finish_is_killed_at_the_deadline_and_admitted() {
    let mut life = Life::serving(2);
    life.ask(Ask::StopGraceful);
    let worker = *life.drained.first().unwrap();
    life.exit(worker, ExitStatus::Code(0));
    life.pass(seconds(30));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Forced { killed: 1 }));
}

#[test]
fn each_further_stop_is_faster() {
    let mut life = Life::serving(2);
    life.ask(Ask::StopGraceful);
    life.ask(Ask::StopGraceful);
    assert_eq!((life.quit.len(), life.killed.len()), (2, 0));
    life.ask(Ask::StopGraceful);
    assert_eq!(life.killed.len(), 2);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_stop_during_the_start_or_a_reload_kills_whoever_boots_and_drains_whoever_serves() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    life.ask(Ask::StopGraceful);
    assert_eq!((life.killed.len(), life.drained.len()), (2, 2));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
    let mut life = Life::start(policy(2));
    life.ask(Ask::StopQuick);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn scaling_survives_a_reload_and_never_goes_below_one() {
    let mut life = Life::serving_by(blue_green(1));
    life.ask(Ask::ScaleUp);
    life.ask(Ask::ScaleUp);
    life.all_ready();
    assert_eq!(life.ready().len(), 3);
    life.reload();
    life.all_ready();
    life.obey();
    assert_eq!(life.ready().len(), 3);
    for _ in 0..5 {
        life.ask(Ask::ScaleDown);
    }
    life.obey();
    assert_eq!((life.ready().len(), life.machine.target()), (1, 1));
}

#[test]
fn scaling_during_a_reload_counts_for_both_generations() {
    let mut life = Life::serving_by(blue_green(1));
    life.reload();
    life.ask(Ask::ScaleUp);
    life.all_ready();
    assert_eq!(life.phase(), "serving");
    life.obey();
    assert_eq!(life.ready().len(), 2);
}
