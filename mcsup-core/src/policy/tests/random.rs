//! Random lives of a pool. Each is made from one number, which is named where one fails, with all that happened in it:
//! `MCSUP_SEED=7` lives that life alone, `MCSUP_LIVES=1000000` more of them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::life::{Exec, Life, SECOND, Settings, seconds};
use crate::error::ErrorKind;
use crate::policy::event::Slot;
use crate::policy::jitter::Jitter;
use crate::policy::*;

const LIVES: u64 = 10_000;

/// As the environment says.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_life_keeps_its_promises_gets_well_when_left_alone_and_ends_when_asked() {
    if let Some(seed) = number("MCSUP_SEED") {
        return drop(World::new(seed, false).live());
    }
    let lives = number("MCSUP_LIVES").unwrap_or(LIVES);
    let (next, failed, told) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= lives {
                        break;
                    }
                    match catch_unwind(|| World::new(seed, false).live()) {
                        // More of the same tell nothing new.
                        Ok(notices) if seed < LIVES / 10 => {
                            told.lock().expect("no panic here").extend(notices.iter().map(name));
                        }
                        Ok(_) => {}
                        Err(_) => failed.store(seed, Ordering::Relaxed),
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        u64::MAX => assert_covers(&told.into_inner().expect("no panic here"), lives),
        seed => tell(seed),
    }
}

/// Fails with all that happened in a life.
fn tell(seed: u64) {
    let mut world = World::new(seed, true);
    let again = catch_unwind(AssertUnwindSafe(|| drop(world.live())));
    let script = world.life.script.take().unwrap_or_default().join("\n");
    panic!("{script}\nMCSUP_SEED={seed} fails, and again: {}", again.is_err());
}

/// Each notice was given in some life: none is beyond the lives that are tried.
fn assert_covers(told: &BTreeSet<String>, lives: u64) {
    const ALL: &str = "Worker(Booting Worker(Ready Worker(BootFailed Worker(BootTimeout Worker(SpawnFailed Worker(Died \
        Worker(Silent Worker(Overdue Worker(Retired Worker(Unkillable Worker(Leaving Mold(Booting Mold(Ready \
        Mold(BootFailed Mold(BootTimeout Mold(Died Mold(Failed Mold(Unkillable Recycle(Begun Recycle(Postponed Recycle(Done Recycle(Failed \
        Reload(Wanted Reload(NewWorkerFailed Reload(RollingBack Reload(RolledBack Reload(RollbackFailed \
        Reload(Begun Reload(Postponed Reload(Done Reload(Failed Reload(Superseded Scale(Failed Scale(Begun \
        Upgrade(Postponed Upgrade(Begun Upgrade(Failed Upgrade(Done Pool(LameDuck Pool(Stopping \
        Pool(Escalated Pool(Woke Pool(Ended";
    let missing: Vec<&str> = ALL.split_whitespace().filter(|name| !told.contains(*name)).collect();
    assert!(lives < LIVES || missing.is_empty(), "never told: {missing:?}");
}

/// Which notice it is.
fn name(notice: &Notice) -> String {
    format!("{notice:?}").chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '(').collect()
}

/// A life, and what is left to chance in it.
struct World {
    life: Life,
    chance: Jitter,
    /// Whether those that are asked to do something do it.
    obeys: bool,
}

impl World {
    fn new(seed: u64, is_written: bool) -> Self {
        let mut chance = Jitter::new(seed);
        let policy = any_policy(&mut chance);
        let script = is_written.then(|| vec![format!("{policy:?}")]);
        let mut life = Life::new(policy);
        life.script = script;
        life.keeps_effects = false;
        life.fork_fails = one_in(&mut chance, 30);
        life.forks_later = one_in(&mut chance, 2);
        if one_in(&mut chance, 3) {
            life.serves_while_booting();
        }
        Self { life, chance, obeys: true }
    }

    /// Random deeds, then peace, or an end in the midst of it. Returns the notices.
    fn live(&mut self) -> Vec<Notice> {
        self.life.begin();
        if !one_in(&mut self.chance, 4) {
            // Most lives begin well.
            self.life.fork_fails = false;
            self.quiesce();
        }
        let deeds = self.chance.up_to(70);
        for _ in 0..deeds {
            if self.life.outcome.is_some() {
                break;
            }
            self.deed();
            self.life.check();
        }
        self.life.note(|_| "-- left alone".to_owned());
        self.life.fork_fails = false;
        if self.life.outcome.is_none() && one_in(&mut self.chance, 2) {
            self.get_well();
        }
        self.end();
        std::mem::take(&mut self.life.notices)
    }

    // Deeds.

    fn deed(&mut self) {
        match self.chance.up_to(99) {
            0..=17 => self.a_worker_is_ready(),
            18..=20 => self.a_boot_fails(),
            21..=25 => self.a_process_dies(),
            26 => self.a_worker_leaves(),
            27..=29 => self.a_worker_has_served_enough(),
            30..=32 => self.memory_is_measured(),
            33 => self.life.step(Event::Tick),
            34..=43 => self.a_process_obeys(),
            44..=51 => self.a_fork_is_answered(),
            52..=61 => self.time_passes(),
            62..=67 => self.all_live(),
            68..=69 => self.life.fork_fails = !self.life.fork_fails && one_in(&mut self.chance, 3),
            70 => self.supervisor_sleeps(),
            71..=73 => self.settings_change(),
            74..=76 => self.image_is_checked(),
            77 => self.life.step(Event::Changed { reason: "server.py".to_owned() }),
            78 => self.something_stale_comes(),
            79..=86 => self.quiesce_a_little(),
            _ => self.an_operator_asks(),
        }
    }

    fn pick(&mut self, from: &[WorkerId]) -> Option<WorkerId> {
        let last = from.len().checked_sub(1)?;
        Some(from[usize::try_from(self.chance.up_to(last as u64)).expect("few workers")])
    }

    /// Those of `from` that have not ended.
    fn alive(&self, mut from: Vec<WorkerId>) -> Vec<WorkerId> {
        from.retain(|worker| !self.life.dead.contains(worker));
        from
    }

    fn booting(&self) -> Vec<WorkerId> {
        let mut booting = self.life.booting();
        booting.extend(self.life.booting_molds());
        self.alive(booting)
    }

    fn a_worker_is_ready(&mut self) {
        let booting = self.booting();
        if let Some(worker) = self.pick(&booting) {
            self.life.worker_ready(worker);
        }
    }

    fn a_boot_fails(&mut self) {
        let booting = self.booting();
        if let Some(worker) = self.pick(&booting) {
            self.life.boot_fails(worker, ErrorKind::Application);
            if one_in(&mut self.chance, 2) && self.life.exists(worker) {
                self.life.exit(worker, ExitStatus::Code(4));
            }
        }
    }

    /// Its exit is seen at once, or later.
    fn a_process_dies(&mut self) {
        let processes = self.alive(self.life.processes().collect());
        if let Some(worker) = self.pick(&processes) {
            self.life.note(|_| format!("{worker:?} dies"));
            self.life.dead.insert(worker);
            if !one_in(&mut self.chance, 3) {
                self.life.dies(worker);
            }
        }
    }

    fn a_worker_leaves(&mut self) {
        let ready = self.alive(self.life.ready());
        if let Some(worker) = self.pick(&ready) {
            self.life.step(Event::Leaving { worker, reason: "tired".to_owned() });
        }
    }

    fn a_worker_has_served_enough(&mut self) {
        let ready = self.alive(self.life.ready());
        if let Some(worker) = self.pick(&ready) {
            let entry = self.life.machine.table().get(worker);
            if let Some(enough) = entry.and_then(|entry| entry.allowance.requests) {
                self.life.step(Event::Enough { worker, requests: enough });
            }
        }
    }

    fn memory_is_measured(&mut self) {
        let used =
            self.life.ready().into_iter().map(|worker| (worker, self.chance.up_to(300) << 20)).collect();
        self.life.step(Event::Memory(used));
    }

    /// A process that was asked to end does, or a dead one is reaped.
    fn a_process_obeys(&mut self) {
        let life = &self.life;
        let ends = |worker: &WorkerId| {
            life.killed.contains(worker)
                || life.drained.contains_key(worker)
                || life.quit.contains(worker)
                || life.aborted.contains(worker)
                || life.dead.contains(worker)
        };
        let ending: Vec<WorkerId> = life.processes().filter(ends).collect();
        if let Some(worker) = self.pick(&ending) {
            let is_well = !self.life.killed.contains(&worker) && !self.life.dead.contains(&worker);
            self.life.exit(worker, if is_well { ExitStatus::Code(0) } else { ExitStatus::Signal(9) });
        }
    }

    fn a_fork_is_answered(&mut self) {
        let asked: Vec<WorkerId> = self.life.unforked.keys().copied().collect();
        let Some(worker) = self.pick(&asked) else { return };
        match one_in(&mut self.chance, 8) {
            true => {
                self.life.unforked.remove(&worker);
                self.life.step(Event::SpawnFailed { worker, reason: "no memory".to_owned() });
            }
            // A mold that has ended answers nothing more.
            false if self.life.dead.contains(&self.life.unforked[&worker].2) => {}
            false => self.life.answer_fork(worker),
        }
    }

    fn time_passes(&mut self) {
        let next = self.life.machine.next_deadline().filter(|_| one_in(&mut self.chance, 2));
        match next {
            Some(deadline) => self.life.pass(deadline - self.life.now),
            None => {
                let most = if one_in(&mut self.chance, 3) { 60_000 } else { 2000 };
                self.life.pass(Duration::from_millis(1 + self.chance.up_to(most)));
            }
        }
    }

    fn all_live(&mut self) {
        let time = Duration::from_millis(self.chance.up_to(10_000));
        self.life.live(time);
    }

    fn supervisor_sleeps(&mut self) {
        let by = seconds(1 + self.chance.up_to(3600));
        self.life.now += by + SECOND;
        self.life.step(Event::Late { by });
        self.life.live(Duration::ZERO);
    }

    fn settings_change(&mut self) {
        self.life.settings = match self.chance.up_to(5) {
            0 => Settings::Broken,
            1..=2 => Settings::Same,
            _ => Settings::New(any_policy(&mut self.chance)),
        };
        self.life.closes_listeners = one_in(&mut self.chance, 4);
    }

    fn image_is_checked(&mut self) {
        if std::mem::take(&mut self.life.checks_image) {
            self.life.exec = [Exec::Fails, Exec::Succeeds, Exec::FallsBack, Exec::Succeeds]
                [usize::try_from(self.chance.up_to(3)).expect("one of four")];
            match one_in(&mut self.chance, 3) {
                true => self.life.step(Event::UpgradeFailed { reason: "it does not start".to_owned() }),
                false => self.life.step(Event::ImageChecked),
            }
        }
    }

    /// What was meant for something that is over.
    fn something_stale_comes(&mut self) {
        let gone = WorkerId(self.chance.up_to(3));
        if self.life.exists(gone) || self.life.unforked.contains_key(&gone) {
            return;
        }
        let current = self.life.machine.current();
        match self.chance.up_to(4) {
            0 => self.life.step(Event::Ready { worker: gone }),
            1 => self.life.step(Event::Enough { worker: gone, requests: 1000 }),
            2 => self.life.step(Event::Leaving { worker: gone, reason: "tired".to_owned() }),
            3 => {
                let prepared = Event::Prepared { generation: current, policy: None, closes_listeners: true };
                self.life.step(prepared);
            }
            _ => {
                let reason = "line 3".to_owned();
                self.life.step(Event::NotPrepared { generation: current, reason, detail: None });
            }
        }
    }

    fn an_operator_asks(&mut self) {
        let slot: Slot = usize::try_from(self.chance.up_to(4)).expect("a slot");
        let ask = match self.chance.up_to(60) {
            0..=19 => Ask::Reload,
            20..=27 => Ask::Upgrade,
            28..=35 => Ask::Recycle(slot),
            36..=43 => Ask::Scale(slot),
            44..=49 => Ask::ScaleUp,
            50..=55 => Ask::ScaleDown,
            56..=58 => Ask::ReopenLogs,
            // Stops are rarer, so that lives are long.
            59 => Ask::Stop(StopMode::Graceful),
            _ => Ask::Stop(StopMode::Quick),
        };
        match one_in(&mut self.chance, 5) {
            true => self.life.ask(ask),
            false => drop(self.life.ask_for_answer(ask)),
        }
    }

    // Peace.

    fn quiesce_a_little(&mut self) {
        for _ in 0..1 + self.chance.up_to(3) {
            self.everything_goes_well();
        }
    }

    /// Nothing fails, every process does as asked: until nothing is left to be done now.
    fn quiesce(&mut self) {
        for _ in 0..1000 {
            if !self.everything_goes_well() {
                return self.life.check();
            }
        }
        panic!("it is never at rest");
    }

    fn everything_goes_well(&mut self) -> bool {
        let life = &mut self.life;
        let before = life.done;
        while let Some(&worker) = life.dead.first() {
            life.dies(worker);
        }
        for worker in life.unforked.keys().copied().collect::<Vec<_>>() {
            if life.unforked.contains_key(&worker) {
                life.answer_fork(worker);
            }
        }
        life.obey();
        // Boots that failed end by themselves.
        for worker in life.processes().collect::<Vec<_>>() {
            let state = life.machine.table().get(worker).map(|entry| entry.state);
            let mold = life.machine.molds().iter().find(|(id, _)| *id == worker).map(|(_, mold)| mold.state);
            if matches!(state.or(mold), Some(State::Failed { .. })) {
                life.exit(worker, ExitStatus::Code(4));
            }
        }
        life.molds_ready();
        life.all_ready();
        if std::mem::take(&mut life.checks_image) {
            life.exec = Exec::Succeeds;
            life.step(Event::ImageChecked);
            life.step(Event::Tick);
        }
        self.life.done != before
    }

    /// So long that every deadline has passed, and every back-off.
    fn time_goes_well(&mut self) {
        for _ in 0..12 {
            self.quiesce();
            if self.life.outcome.is_some() {
                return;
            }
            self.life.live(seconds(10));
        }
        self.quiesce();
    }

    /// A pool that is left alone is whole again, of one generation after one good reload.
    fn get_well(&mut self) {
        self.time_goes_well();
        if self.life.outcome.is_some() {
            return;
        }
        self.is_well();
        let fails = |notice: &Notice| matches!(notice, Notice::Reload(ReloadNotice::RollbackFailed { .. }));
        let current = self.life.machine.current();
        let is_mixed = self.life.generations().iter().any(|generation| *generation != current);
        assert!(!is_mixed || self.life.told(fails) > 0, "mixed, and without a notice");
        self.life.settings = Settings::Same;
        let ticket = self.life.reload();
        self.time_goes_well();
        assert!(self.life.is_done(ticket), "a good reload: {:?}", self.life.answers.get(&ticket));
        self.is_well();
        let newest = self.life.machine.current();
        assert!(self.life.generations().iter().all(|generation| *generation == newest), "one generation");
        assert_eq!(self.life.open_generations.iter().copied().collect::<Vec<_>>(), [newest]);
    }

    /// As many workers as there should be, each ready in a slot of its own; and nothing else.
    fn is_well(&self) {
        let (life, machine) = (&self.life, &self.life.machine);
        let target = machine.target();
        assert_eq!(life.phase(), "serving");
        assert_eq!((life.ready().len(), life.living.len()), (target, target), "ready, living, target");
        assert!(machine.table().is_full(target), "each slot has a worker");
        assert_eq!(life.slots, target, "each slot has its listeners, and no other");
        let molds = machine.molds().ready(machine.current()).into_iter().count();
        assert_eq!((life.molds.len(), molds), (molds, usize::from(machine.policy().preload)), "molds");
        let open: Vec<_> = life.asked.iter().filter(|ticket| !life.answers.contains_key(ticket)).collect();
        assert!(open.is_empty(), "not answered: {open:?}");
    }

    // The end.

    /// Asked to stop, it ends within the sum of its deadlines, even if none obeys but the kernel.
    fn end(&mut self) {
        self.obeys = one_in(&mut self.chance, 2);
        self.life.note(|_| "-- the end".to_owned());
        if self.life.outcome.is_none() {
            self.life.ask_for_answer(if one_in(&mut self.chance, 3) {
                Ask::Stop(StopMode::Quick)
            } else {
                Ask::Stop(StopMode::Graceful)
            });
        }
        let policy = self.life.machine.policy();
        let begun = self.life.now;
        let longest = policy.drain_delay + policy.boot_timeout + policy.graceful_timeout * 2 + seconds(60);
        for _ in 0..1000 {
            match self.obeys {
                true => self.life.obey(),
                false => self.life.reap_killed(),
            }
            if self.life.outcome.is_some() {
                break;
            }
            match self.life.machine.next_deadline() {
                Some(deadline) => {
                    self.life.now = deadline;
                    let beats = self.life.living.keys().map(|worker| (*worker, deadline)).collect();
                    self.life.step(Event::Beats(beats));
                }
                // Only killed processes are waited for.
                None => {
                    while let Some(&worker) = self.life.dead.first() {
                        self.life.dies(worker);
                    }
                }
            }
        }
        assert!(self.life.outcome.is_some(), "it never ended: {:?}", self.life.machine);
        assert!(self.life.now <= begun + longest, "it took {:?} to end", self.life.now - begun);
        assert_eq!(self.life.machine.next_deadline(), None);
        self.life.check();
        let late = self.life.ask_for_answer(Ask::Stop(StopMode::Graceful));
        assert!(self.life.is_done(late));
        for ticket in &self.life.asked {
            assert!(self.life.answers.contains_key(ticket), "{ticket:?} is not answered");
        }
    }
}

fn one_in(chance: &mut Jitter, n: u64) -> bool {
    chance.up_to(n - 1) == 0
}

fn any_policy(chance: &mut Jitter) -> Policy {
    let size = |chance: &mut Jitter, most| usize::try_from(chance.up_to(most)).expect("a small number");
    let maybe = |chance: &mut Jitter, n: u64| one_in(chance, n);
    let workers = 1 + size(chance, 3);
    let surge = match size(chance, 3) {
        0 => Surge::All,
        extra => Surge::Extra(extra - 1),
    };
    let soak = if maybe(chance, 2) { Duration::ZERO } else { Duration::from_millis(chance.up_to(5000)) };
    let preload = maybe(chance, 2);
    let recycling = Recycling {
        requests: maybe(chance, 2).then_some(Limit { base: 1000, jitter: 100 }),
        lifetime: maybe(chance, 4).then_some(Limit { base: seconds(100), jitter: seconds(50) }),
        rss: maybe(chance, 3).then_some(Limit { base: 200 << 20, jitter: 10 << 20 }),
    };
    Policy {
        workers,
        max_workers: 6,
        timeout: maybe(chance, 2).then(|| seconds(30)),
        drain_delay: if maybe(chance, 3) { seconds(5) } else { Duration::ZERO },
        plan: Plan { surge, soak, retries: size(chance, 2) },
        recycling,
        preload,
        development: maybe(chance, 3),
        seed: chance.up_to(u64::MAX),
        ..Policy::default()
    }
}
