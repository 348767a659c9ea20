//! Random lives of a pool, and what holds in each of them at any time.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::{Life, policy, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

/// What a random world may do.
#[derive(Debug, Clone)]
enum Deed {
    Ready(usize),
    BootFails(usize),
    Dies(usize),
    Leaves(usize),
    Obeys,
    Passes(u64),
    Beats,
    Asks(usize),
    ForksFail(bool),
    Sleeps,
}

const ASKS: [Ask; 6] =
    [Ask::Reload, Ask::Scale(3), Ask::ScaleUp, Ask::ScaleDown, Ask::ReopenLogs, Ask::StopGraceful];

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => any::<usize>().prop_map(Deed::Ready),
        2 => any::<usize>().prop_map(Deed::BootFails),
        3 => any::<usize>().prop_map(Deed::Dies),
        1 => any::<usize>().prop_map(Deed::Leaves),
        4 => Just(Deed::Obeys),
        4 => (1_u64..40_000).prop_map(Deed::Passes),
        4 => Just(Deed::Beats),
        // Stops are rarer, so that lives are long.
        4 => (0_usize..ASKS.len() - 1).prop_map(Deed::Asks),
        1 => Just(Deed::Asks(ASKS.len() - 1)),
        1 => any::<bool>().prop_map(Deed::ForksFail),
        1 => Just(Deed::Sleeps),
    ]
}

impl Life {
    fn pick(&self, from: &[WorkerId], index: usize) -> Option<WorkerId> {
        (!from.is_empty()).then(|| from[index % from.len()])
    }

    fn do_deed(&mut self, deed: &Deed) {
        match *deed {
            Deed::Ready(index) => {
                if let Some(worker) = self.pick(&self.booting(), index) {
                    self.step(Event::Ready { worker });
                }
            }
            Deed::BootFails(index) => {
                if let Some(worker) = self.pick(&self.booting(), index) {
                    self.boot_fails(worker, ErrorKind::Application);
                }
            }
            Deed::Dies(index) => {
                let living: Vec<_> = self.living.keys().copied().collect();
                if let Some(worker) = self.pick(&living, index) {
                    self.exit(worker, ExitStatus::Signal(9));
                }
            }
            Deed::Leaves(index) => {
                if let Some(worker) = self.pick(&self.ready(), index) {
                    self.step(Event::Leaving { worker, reason: "tired".to_owned() });
                }
            }
            Deed::Obeys => self.obey(),
            Deed::Passes(time) => self.pass(Duration::from_millis(time)),
            Deed::Beats => self.live(Duration::ZERO),
            Deed::Asks(index) => self.ask(ASKS[index]),
            Deed::ForksFail(fails) => self.fork_fails = fails,
            Deed::Sleeps => {
                self.now += seconds(3600);
                self.step(Event::Late { by: seconds(3599) });
            }
        }
    }

    /// What holds in every state.
    fn check(&self) {
        let table = self.machine.table();
        let known: BTreeSet<_> = table.iter().map(|entry| entry.id).collect();
        assert!(self.outcome.is_none() || self.living.is_empty(), "ended with workers alive");
        assert!(self.living.keys().all(|worker| known.contains(worker)), "a worker that nobody knows of");
        let current = self.machine.current();
        let newer: BTreeSet<_> = table
            .iter()
            .filter(|entry| entry.generation > current && !entry.state.is_leaving())
            .map(|entry| entry.generation)
            .collect();
        assert!(newer.len() <= 1, "more than one generation boots");
        assert!(
            table.iter().all(|entry| entry.generation >= current || entry.state.is_leaving()),
            "an old generation serves beside the current one"
        );
        for slot in 0..self.machine.target() {
            let holders = table.iter().filter(|entry| {
                entry.slot == slot && entry.generation == current && !entry.state.is_leaving()
            });
            assert!(holders.count() <= 1, "two workers in slot {slot}");
        }
        if let Some(deadline) = self.machine.next_deadline() {
            assert!(deadline >= self.now, "a deadline that has passed is still due: the loop would spin");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_life_keeps_its_promises_and_ends_when_asked(
        workers in 1_usize..5,
        deeds in proptest::collection::vec(deed(), 0..80),
    ) {
        let mut life = Life::start(policy(workers));
        life.check();
        for deed in &deeds {
            if life.outcome.is_some() {
                break;
            }
            let serving_before = life.serving_now();
            life.do_deed(deed);
            life.check();
            let is_reload = matches!(deed, Deed::Asks(0));
            prop_assert!(
                !is_reload || life.serving_now() >= serving_before || life.outcome.is_some(),
                "a reload took capacity away when it began"
            );
        }
        // Whatever happened: asked to stop, it ends within its deadlines, even if nobody obeys but SIGKILL.
        life.fork_fails = false;
        if life.outcome.is_none() {
            life.ask(Ask::StopGraceful);
        }
        for _ in 0..4 {
            life.pass(seconds(31));
            while let Some(&worker) = life.living.keys().find(|worker| life.killed.contains(worker)) {
                life.exit(worker, ExitStatus::Signal(9));
            }
            if life.outcome.is_none() && life.living.is_empty() {
                life.step(Event::Tick);
            }
        }
        // A boot that failed ends by itself; the world owes that exit.
        for worker in life.living.clone().into_keys() {
            life.exit(worker, ExitStatus::Code(4));
        }
        prop_assert!(life.outcome.is_some(), "it never ended: {:?}", life.machine);
        prop_assert_eq!(life.machine.next_deadline(), None);
    }

    #[test]
    fn a_pool_that_is_left_alone_gets_well(
        workers in 1_usize..5,
        deeds in proptest::collection::vec(deed().prop_filter("no stop", |deed| !matches!(deed, Deed::Asks(5))), 0..60),
    ) {
        let mut life = Life::serving(workers);
        for deed in &deeds {
            life.do_deed(deed);
            life.check();
        }
        life.fork_fails = false;
        for _ in 0..12 {
            life.obey();
            // Boots that failed end by themselves.
            for worker in life.workers(|state| *state == State::Failed) {
                life.exit(worker, ExitStatus::Code(4));
            }
            life.all_ready();
            life.live(seconds(29));
        }
        prop_assert_eq!(life.phase(), "serving");
        prop_assert_eq!(life.ready().len(), life.machine.target());
        prop_assert_eq!(life.living.len(), life.machine.target());
    }
}
