//! A pool whose world does what a test says, with a hand-turned clock. What holds in every life (`laws`) is checked at each
//! step of it, by [`Life::step`]; what a whole life owes, at its end.

mod boots;
mod laws;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use boots::HowItEnds;

use crate::error::ErrorKind;
use crate::policy::event::{Generation, Slot};
use crate::policy::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn policy(workers: usize) -> Policy {
    Policy { workers, timeout: Some(seconds(30)), plan: plan(), ..Policy::default() }
}

/// The default without a soak, which most scripts do not wait for.
pub(super) fn plan() -> Plan {
    Plan { soak: Duration::ZERO, ..Plan::default() }
}

/// A whole second pool at a reload.
pub(super) fn blue_green(workers: usize) -> Policy {
    Policy { plan: Plan { surge: Surge::All, ..plan() }, ..policy(workers) }
}

/// A pool whose workers are forked by a mold.
pub(super) fn preloading(workers: usize) -> Policy {
    Policy { preload: true, ..policy(workers) }
}

/// What the settings are found to be at the next reload.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub(super) enum Settings {
    Same,
    New(Policy),
    Broken,
}

/// What comes of letting another image take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exec {
    /// It cannot be executed.
    Fails,
    /// It goes on in this one's place.
    Succeeds,
    /// It does not reach its loop, and this one goes on from the same record.
    FallsBack,
}

/// A pool and its world.
pub(super) struct Life {
    pub(super) machine: Machine,
    pub(super) now: Moment,
    /// Living workers, and those whose exit has not been seen yet: generation and slot.
    pub(super) living: BTreeMap<WorkerId, (Generation, Slot)>,
    /// The same of molds.
    pub(super) molds: BTreeMap<WorkerId, Generation>,
    /// Those of both that are dead, and not reaped.
    pub(super) dead: BTreeSet<WorkerId>,
    /// Molds answer for a fork only when `answer_forks` says so,
    pub(super) forks_later: bool,
    /// and this is what they were asked for.
    pub(super) unforked: BTreeMap<WorkerId, (Generation, Slot, WorkerId)>,
    pub(super) fork_fails: bool,
    /// Those whose fork failed.
    unborn: BTreeSet<WorkerId>,
    pub(super) drained: BTreeMap<WorkerId, Drain>,
    pub(super) killed: BTreeSet<WorkerId>,
    pub(super) quit: BTreeSet<WorkerId>,
    pub(super) aborted: BTreeSet<WorkerId>,
    begun: BTreeSet<WorkerId>,
    pub(super) lame_ducks: BTreeSet<WorkerId>,
    pub(super) broken: BTreeSet<WorkerId>,
    pub(super) reopened: BTreeSet<WorkerId>,
    pub(super) notices: Vec<Notice>,
    pub(super) asked: BTreeSet<Ticket>,
    pub(super) answers: BTreeMap<Ticket, Answer>,
    pub(super) outcome: Option<Outcome>,
    pub(super) settings: Settings,
    pub(super) closes_listeners: bool,
    pub(super) exec: Exec,
    /// The policy waits to hear whether an image can take over.
    pub(super) checks_image: bool,
    serves_while_booting: bool,
    /// The generations that there are settings and listeners for.
    pub(super) open_generations: BTreeSet<Generation>,
    /// How many slots there are listeners for.
    pub(super) slots: usize,
    pub(super) committed: Vec<Generation>,
    pub(super) discarded: Vec<Generation>,
    pub(super) pool_ready: usize,
    pub(super) spawns: usize,
    pub(super) execs: usize,
    pub(super) measures: usize,
    /// The most and the fewest that served or were about to, in between two looks.
    pub(super) most: usize,
    pub(super) fewest_ready: usize,
    /// What happened and what was done, where a test wants to read it.
    pub(super) script: Option<Vec<String>>,
    /// All effects, in their order; none where no test looks at them.
    pub(super) effects: Vec<Effect>,
    pub(super) keeps_effects: bool,
    /// How many there were.
    pub(super) done: usize,
    boots: boots::Boots,
    /// Slots whose time an operator does not want to wait for.
    hurried: BTreeSet<Slot>,
}

impl Life {
    pub(super) fn start(policy: Policy) -> Self {
        let mut life = Self::new(policy);
        life.begin();
        life
    }

    /// One that has not begun.
    pub(super) fn new(policy: Policy) -> Self {
        let slots = policy.workers;
        Self {
            machine: Machine::new(policy),
            now: seconds(1000),
            living: BTreeMap::new(),
            molds: BTreeMap::new(),
            dead: BTreeSet::new(),
            forks_later: false,
            unforked: BTreeMap::new(),
            fork_fails: false,
            unborn: BTreeSet::new(),
            drained: BTreeMap::new(),
            killed: BTreeSet::new(),
            quit: BTreeSet::new(),
            aborted: BTreeSet::new(),
            begun: BTreeSet::new(),
            lame_ducks: BTreeSet::new(),
            broken: BTreeSet::new(),
            reopened: BTreeSet::new(),
            notices: Vec::new(),
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            outcome: None,
            settings: Settings::Same,
            closes_listeners: false,
            exec: Exec::Fails,
            checks_image: false,
            serves_while_booting: false,
            open_generations: BTreeSet::from([1]),
            slots,
            committed: Vec::new(),
            discarded: Vec::new(),
            pool_ready: 0,
            spawns: 0,
            execs: 0,
            measures: 0,
            most: 0,
            fewest_ready: usize::MAX,
            script: None,
            effects: Vec::new(),
            keeps_effects: true,
            done: 0,
            boots: boots::Boots::default(),
            hurried: BTreeSet::new(),
        }
    }

    /// Workers may have clients while they boot.
    pub(super) fn serves_while_booting(&mut self) {
        self.serves_while_booting = true;
        self.machine.expect_service_while_booting(true);
    }

    pub(super) fn begin(&mut self) {
        let effects = self.machine.start(self.now);
        self.act(effects);
    }

    /// A pool of `workers` that all became ready.
    pub(super) fn serving(workers: usize) -> Self {
        Self::serving_by(policy(workers))
    }

    pub(super) fn serving_by(policy: Policy) -> Self {
        let mut life = Self::start(policy);
        life.molds_ready();
        life.all_ready();
        assert_eq!(life.phase(), "serving");
        life
    }

    pub(super) fn phase(&self) -> &'static str {
        self.machine.phase().name()
    }

    // What happens.

    pub(super) fn step(&mut self, event: Event) {
        let (before, target) = (self.covered(), self.machine.target());
        self.note(|life| format!("{:>9.3} {event:?}", life.now.as_secs_f64()));
        let own_end = self.slot_of(&event);
        match &event {
            Event::Ready { worker } => self.note_end(*worker, HowItEnds::Worked),
            Event::BootFailed { worker, .. } | Event::Exited { worker, .. } => {
                self.note_end(*worker, HowItEnds::Failed);
            }
            Event::Spawned { .. } => self.note_fork(true),
            Event::Late { by } => self.forgive_boots(*by + SECOND),
            Event::SpawnFailed { worker, .. } => {
                self.note_fork(false);
                self.forget_boot(*worker);
            }
            _ => {}
        }
        self.hurried.clone_from(self.machine.hurried());
        if let Event::Ask(Ask::Recycle(slot), _) = event {
            self.hurried.insert(slot);
        }
        let effects = self.machine.step(event, self.now);
        self.check_capacity(before, target, own_end);
        self.forget_slots(target.min(self.machine.target()));
        self.note_boots();
        self.check_darkness();
        if let Some(deadline) = self.machine.next_deadline() {
            assert!(deadline > self.now, "a deadline that has passed is still due: the loop would spin");
        }
        self.act(effects);
    }

    /// As the supervisor does it: all effects first, then whatever came of them at once.
    fn act(&mut self, effects: Vec<Effect>) {
        let mut events = Vec::new();
        let count = effects.len();
        for (index, effect) in effects.into_iter().enumerate() {
            self.note(|_| format!("          -> {effect:?}"));
            if effect == Effect::Exec {
                assert!(index + 1 == count && events.is_empty(), "what follows an exec is lost");
            }
            self.done += 1;
            if self.keeps_effects {
                self.effects.push(effect.clone());
            }
            events.extend(self.apply(effect));
        }
        if self.keeps_effects {
            self.most = self.most.max(self.staying());
            self.fewest_ready = self.fewest_ready.min(self.ready().len());
        }
        for event in events {
            self.step(event);
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each effect")]
    fn apply(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn { worker, slot, generation, mold, .. } => {
                self.note_start(worker, slot, generation, self.hurried.contains(&slot));
                return self.fork(worker, (generation, slot), mold);
            }
            Effect::SpawnMold { mold, generation } => {
                self.note_mold(mold, generation);
                return Some(self.fork_mold(mold, generation));
            }
            Effect::Prepare { generation } => return Some(self.prepare(generation)),
            Effect::Exec => return Some(self.exec()),
            Effect::Drain { worker, how } => {
                assert!(self.living.contains_key(&worker) && !self.killed.contains(&worker));
                assert!(self.drained.insert(worker, how).is_none(), "drained twice");
            }
            Effect::Quit { worker } => {
                assert!(self.exists(worker) && !self.killed.contains(&worker));
                self.quit.insert(worker);
            }
            // There is no process yet: it is said again when there is.
            Effect::Kill { worker } if self.unforked.contains_key(&worker) => {}
            Effect::Kill { worker } if self.unborn.contains(&worker) => {}
            Effect::Kill { worker } => {
                assert!(self.exists(worker), "a signal to a process that is gone");
                self.killed.insert(worker);
            }
            Effect::Abort { worker } => {
                assert!(self.exists(worker) && self.aborted.insert(worker));
            }
            Effect::Begin { worker } => {
                let state = self.machine.table().get(worker).map(|entry| entry.state);
                // The same step may ask it to finish already: a reload that is done may leave a slot too many.
                let is_known = |state: State| state.is_ready() || matches!(state, State::Draining { .. });
                assert!(state.is_some_and(is_known), "a worker serves that is not known to be ready");
                assert!(self.begun.insert(worker), "begun twice");
            }
            Effect::LameDuck { worker } => assert!(self.lame_ducks.insert(worker)),
            Effect::Broken { worker, .. } => {
                self.broken.insert(worker);
            }
            Effect::ReopenLogs { worker } => {
                assert!(self.exists(worker));
                self.reopened.insert(worker);
            }
            Effect::Answer { ticket, answer } => {
                assert!(self.asked.contains(&ticket), "answered without being asked");
                assert!(self.answers.insert(ticket, answer).is_none(), "answered twice");
            }
            Effect::Log(notice) => self.notices.push(notice),
            Effect::End(outcome) => assert!(self.outcome.replace(outcome).is_none(), "ended twice"),
            Effect::Commit { generation } => {
                assert!(self.open_generations.contains(&generation));
                self.open_generations.retain(|other| *other >= generation);
                self.forget_boots();
                self.committed.push(generation);
            }
            Effect::Discard { generation } => {
                assert_ne!(generation, self.machine.current(), "the generation that serves is closed");
                self.open_generations.remove(&generation);
                self.discarded.push(generation);
            }
            Effect::Resize { slots } => self.slots = slots,
            Effect::CheckImage => self.checks_image = true,
            Effect::PoolReady { ready, .. } => {
                assert!(ready > 0);
                self.pool_ready += 1;
            }
            Effect::Measure => self.measures += 1,
            Effect::CloseListeners | Effect::RefuseNew => {}
        }
        None
    }

    fn fork(&mut self, worker: WorkerId, place: (Generation, Slot), mold: Option<WorkerId>) -> Option<Event> {
        self.spawns += 1;
        assert!(self.open_generations.contains(&place.0), "forked for a generation that was closed");
        assert!(place.1 < self.slots, "forked for a slot that has no listeners");
        let mold_is_gone = mold.is_some_and(|mold| {
            assert!(self.molds.contains_key(&mold), "forked by a mold that was reaped");
            self.dead.contains(&mold)
        });
        if self.fork_fails || mold_is_gone {
            self.unborn.insert(worker);
            return Some(Event::SpawnFailed { worker, reason: "no memory".to_owned() });
        }
        if let Some(mold) = mold.filter(|_| self.forks_later) {
            self.unforked.insert(worker, (place.0, place.1, mold));
            return None;
        }
        Some(self.born(worker, place))
    }

    fn born(&mut self, worker: WorkerId, place: (Generation, Slot)) -> Event {
        assert!(self.living.insert(worker, place).is_none());
        Event::Spawned { worker, pid: pid(worker) }
    }

    /// A mold answers for a fork: it succeeded.
    pub(super) fn answer_fork(&mut self, worker: WorkerId) {
        let (generation, slot, _) = self.unforked.remove(&worker).expect("a fork that was asked for");
        let event = self.born(worker, (generation, slot));
        self.step(event);
    }

    fn fork_mold(&mut self, mold: WorkerId, generation: Generation) -> Event {
        assert!(self.open_generations.contains(&generation));
        if self.fork_fails {
            self.unborn.insert(mold);
            return Event::SpawnFailed { worker: mold, reason: "no memory".to_owned() };
        }
        self.molds.insert(mold, generation);
        Event::Spawned { worker: mold, pid: pid(mold) }
    }

    fn prepare(&mut self, generation: Generation) -> Event {
        let policy = match &self.settings {
            Settings::Same => None,
            Settings::New(policy) => Some(Box::new(policy.clone())),
            Settings::Broken => {
                return Event::NotPrepared { generation, reason: "line 3".to_owned(), detail: None };
            }
        };
        self.open_generations.insert(generation);
        Event::Prepared { generation, policy, closes_listeners: self.closes_listeners }
    }

    /// Another image takes over, knowing nothing but the record.
    fn exec(&mut self) -> Event {
        self.execs += 1;
        if self.exec == Exec::Fails {
            return Event::UpgradeFailed { reason: "no such file".to_owned() };
        }
        self.hand_over();
        match self.exec {
            Exec::Succeeds => Event::Upgraded { message: "1 to 2".to_owned() },
            _ => Event::UpgradeFailed { reason: "it crashed".to_owned() },
        }
    }

    fn hand_over(&mut self) {
        let record = serde_json::to_string(&self.machine.record()).expect("a record is JSON");
        let record: MachineRecord = serde_json::from_str(&record).expect("a record is read again");
        self.machine = Machine::resume(record, self.machine.policy().clone());
        self.machine.expect_service_while_booting(self.serves_while_booting);
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        self.step(Event::Ask(ask, None));
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask_for_answer(&mut self, ask: Ask) -> Ticket {
        let ticket = Ticket(1 + self.asked.len() as u64);
        self.asked.insert(ticket);
        self.step(Event::Ask(ask, Some(ticket)));
        ticket
    }

    pub(super) fn reload(&mut self) -> Ticket {
        self.ask_for_answer(Ask::Reload)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(Event::Tick);
    }

    /// Time passes, and all workers move.
    pub(super) fn live(&mut self, time: Duration) {
        self.now += time;
        let beats = self.living.keys().map(|worker| (*worker, self.now)).collect();
        self.step(Event::Beats(beats));
    }

    pub(super) fn worker_ready(&mut self, worker: WorkerId) {
        self.step(Event::Ready { worker });
    }

    pub(super) fn all_ready(&mut self) {
        for worker in self.booting() {
            self.step(Event::Ready { worker });
        }
    }

    /// Every mold that boots is ready.
    pub(super) fn molds_ready(&mut self) {
        for worker in self.booting_molds() {
            self.step(Event::Ready { worker });
        }
    }

    pub(super) fn boot_fails(&mut self, worker: WorkerId, kind: ErrorKind) {
        let failure = BootFailure { kind, summary: "broken".to_owned(), detail: Some("line 7".to_owned()) };
        self.step(Event::BootFailed { worker, failure });
    }

    /// It says that its boot failed, and ends.
    pub(super) fn breaks(&mut self, worker: WorkerId) {
        self.boot_fails(worker, ErrorKind::Application);
        if self.exists(worker) {
            self.exit(worker, ExitStatus::Code(4));
        }
    }

    /// A worker or a mold ends, and is reaped.
    pub(super) fn exit(&mut self, worker: WorkerId, status: ExitStatus) {
        self.ends_with(worker, status, Evidence::default());
    }

    /// The same with evidence.
    pub(super) fn ends_with(&mut self, worker: WorkerId, status: ExitStatus, evidence: Evidence) {
        self.dead.insert(worker);
        for orphan in self.unforked_by(worker) {
            self.unforked.remove(&orphan);
            self.unborn.insert(orphan);
            self.step(Event::SpawnFailed { worker: orphan, reason: "its mold is gone".to_owned() });
        }
        self.dead.remove(&worker);
        assert!(self.living.remove(&worker).is_some() || self.molds.remove(&worker).is_some());
        self.step(Event::Exited { worker, exit: Exit { status, evidence } });
    }

    pub(super) fn dies(&mut self, worker: WorkerId) {
        self.exit(worker, ExitStatus::Signal(9));
    }

    fn unforked_by(&self, mold: WorkerId) -> Vec<WorkerId> {
        self.unforked.iter().filter(|(_, asked)| asked.2 == mold).map(|(worker, _)| *worker).collect()
    }

    /// Processes that were killed are reaped.
    pub(super) fn reap_killed(&mut self) {
        let is_killed = |life: &Self| life.processes().find(|worker| life.killed.contains(worker));
        while let Some(worker) = is_killed(self) {
            self.dies(worker);
        }
    }

    /// Processes that were killed are reaped; those that were asked to finish end.
    pub(super) fn obey(&mut self) {
        self.reap_killed();
        let is_asked = |life: &Self| {
            let asked = |worker: &WorkerId| {
                life.drained.contains_key(worker)
                    || life.quit.contains(worker)
                    || life.aborted.contains(worker)
            };
            life.processes().find(asked)
        };
        while let Some(worker) = is_asked(self) {
            self.exit(worker, ExitStatus::Code(0));
        }
    }

    // What there is.

    pub(super) fn processes(&self) -> impl Iterator<Item = WorkerId> {
        self.living.keys().chain(self.molds.keys()).copied()
    }

    pub(super) fn exists(&self, worker: WorkerId) -> bool {
        self.living.contains_key(&worker) || self.molds.contains_key(&worker)
    }

    pub(super) fn workers(&self, wanted: impl Fn(&State) -> bool) -> Vec<WorkerId> {
        self.machine.table().select(|entry| wanted(&entry.state))
    }

    /// Forked workers that are not ready yet.
    pub(super) fn booting(&self) -> Vec<WorkerId> {
        let mut booting = self.workers(|state| matches!(state, State::Booting { .. }));
        booting.retain(|worker| self.living.contains_key(worker));
        booting
    }

    pub(super) fn booting_molds(&self) -> Vec<WorkerId> {
        let molds = self.machine.molds().iter();
        molds.filter(|(_, mold)| matches!(mold.state, State::Booting { .. })).map(|(id, _)| id).collect()
    }

    pub(super) fn ready(&self) -> Vec<WorkerId> {
        self.workers(State::is_ready)
    }

    /// How many there are that are not on their way out.
    pub(super) fn staying(&self) -> usize {
        self.workers(|state| !state.is_leaving()).len()
    }

    /// The generation of each worker that is ready, by slot.
    pub(super) fn generations(&self) -> Vec<Generation> {
        let mut ready: Vec<(Slot, Generation)> =
            self.ready().iter().map(|worker| (self.living[worker].1, self.living[worker].0)).collect();
        ready.sort_unstable();
        ready.into_iter().map(|(_, generation)| generation).collect()
    }

    pub(super) fn told(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| wanted(notice)).count()
    }

    pub(super) fn is_done(&self, ticket: Ticket) -> bool {
        matches!(self.answers.get(&ticket), Some(Answer::Done(_)))
    }

    pub(super) fn is_failed(&self, ticket: Ticket) -> bool {
        matches!(self.answers.get(&ticket), Some(Answer::Failed { .. }))
    }

    pub(super) fn is_superseded(&self, ticket: Ticket) -> bool {
        self.answers.get(&ticket) == Some(&Answer::Superseded)
    }

    pub(super) fn is_refused(&self, ticket: Ticket) -> bool {
        matches!(self.answers.get(&ticket), Some(Answer::Refused(_)))
    }

    pub(super) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.script.is_some() {
            let line = line(self);
            self.script.iter_mut().for_each(|script| script.push(line.clone()));
        }
    }
}

fn pid(worker: WorkerId) -> i32 {
    i32::try_from(worker.0).expect("few workers")
}
