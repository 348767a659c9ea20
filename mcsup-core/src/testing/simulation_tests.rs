//! Simulated pools and their supervisor.

use std::time::Duration;

use super::*;
use crate::control;
use crate::policy::{Limit, Outcome, Recycling};
use crate::worker::{Worker, WorkerContext, WorkerResult};
use crate::{Config, Error, ErrorKind, ForkSide, Local, PoolEvent, Result, Supervisor};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

struct Idle;

impl Worker for Idle {
    fn run(&mut self, _: &WorkerContext) -> WorkerResult {
        Ok(())
    }
}

/// Records the calls of its methods, and reads its settings from a field.
#[derive(Default)]
struct Recording {
    calls: Vec<String>,
    events: Vec<PoolEvent>,
    settings: Option<std::result::Result<Config, &'static str>>,
}

impl Supervisor for Recording {
    type Worker = Idle;

    fn worker(&mut self, _: u64) -> Idle {
        Idle
    }

    fn starting(&mut self) {
        self.calls.push("starting".to_owned());
    }

    fn listening(&mut self, _: &[&Local]) {
        self.calls.push("listening".to_owned());
    }

    fn ready(&mut self, ready: usize, target: usize) {
        self.calls.push(format!("ready {ready}/{target}"));
    }

    fn reload(&mut self, generation: u64) -> Result<Option<Config>> {
        self.calls.push(format!("reload {generation}"));
        match self.settings.clone() {
            Some(Err(reason)) => Err(Error::new(ErrorKind::Setting, reason)),
            Some(Ok(config)) => Ok(Some(config)),
            None => Ok(None),
        }
    }

    fn observe(&mut self, event: &PoolEvent) {
        self.events.push(event.clone());
    }

    fn forget(&mut self, generation: u64) {
        self.calls.push(format!("forget {generation}"));
    }

    fn after_fork(&mut self, side: ForkSide) {
        assert_eq!(side, ForkSide::Supervisor);
        self.calls.push("fork".to_owned());
    }
}

fn config(workers: usize) -> Config {
    let mut config = Config { addresses: vec!["127.0.0.1:80".parse().unwrap()], ..Config::default() };
    config.policy.workers = workers;
    config
}

fn serving(config: Config) -> Simulation<Recording> {
    let mut pool = Simulation::start(Recording::default(), config).unwrap();
    pool.pass(SECOND);
    assert_eq!((pool.phase(), pool.ready()), ("serving", pool.target()));
    pool.supervisor_mut().calls.clear();
    pool
}

#[test]
fn a_pool_is_ready_when_the_time_of_its_boots_has_passed_and_not_before() {
    let mut pool = Simulation::start(Recording::default(), config(2)).unwrap();
    assert_eq!((pool.phase(), pool.ready(), pool.workers().len()), ("starting", 0, 2));
    pool.pass(Duration::from_millis(99));
    assert_eq!(pool.ready(), 0);
    pool.pass(Duration::from_millis(1));
    assert_eq!((pool.phase(), pool.ready()), ("serving", 2));
    assert_eq!(pool.now(), Duration::from_millis(100));
    assert_eq!(pool.supervisor().calls, ["starting", "listening", "fork", "fork", "ready 1/2"]);
}

#[test]
fn a_reload_reads_the_settings_and_takes_their_number_of_workers() {
    let mut pool = serving(config(2));
    pool.supervisor_mut().settings = Some(Ok(config(3)));
    let reload = pool.reload();
    assert!(pool.reply(reload).is_none());
    pool.pass(MINUTE);
    assert_eq!(pool.reply(reload).unwrap().outcome, control::Outcome::Done);
    assert_eq!((pool.generation(), pool.ready(), pool.target()), (2, 3, 3));
    let calls = pool.supervisor().calls.join(" ");
    assert_eq!(calls, "reload 2 fork fork fork forget 1");
}

#[test]
fn a_reload_that_the_supervisor_or_a_start_would_refuse_changes_nothing() {
    let mut pool = serving(config(2));
    for (settings, reason) in [(Err("line 3"), "line 3"), (Ok(config(0)), "0 workers")] {
        pool.supervisor_mut().settings = Some(settings);
        let reload = pool.reload();
        pool.pass(MINUTE);
        let reply = pool.reply(reload).unwrap();
        assert_eq!(reply.outcome, control::Outcome::Failed);
        assert!(reply.message.starts_with(reason), "{}", reply.message);
        assert_eq!((pool.generation(), pool.ready()), (1, 2));
    }
    assert!(Simulation::start(Recording::default(), config(0)).is_err());
}

#[test]
fn a_worker_that_dies_has_a_successor_and_those_that_always_die_are_not_forked_without_a_pause() {
    let mut pool = serving(config(1));
    let pid = pool.workers()[0].pid.unwrap();
    assert!(pool.kill(pid, 11) && !pool.kill(pid, 11));
    pool.pass(SECOND);
    assert_eq!(pool.ready(), 1);
    assert_ne!(pool.workers()[0].pid, Some(pid));
    pool.supervisor_mut().calls.clear();
    pool.behave(|_| Behaviour::sound().dies_after(Duration::from_millis(10), "no queue"));
    let pid = pool.workers()[0].pid.unwrap();
    assert!(pool.fail(pid, "no queue"));
    pool.pass(10 * MINUTE);
    let forks = pool.supervisor().calls.len();
    assert!((120..1200).contains(&forks), "{forks} forks in 600 seconds");
}

#[test]
fn a_worker_that_hangs_is_killed_at_the_timeout_and_replaced() {
    let mut config = config(1);
    config.policy.timeout = Some(Duration::from_secs(30));
    let mut births = 0;
    let mut pool = Simulation::start_with(Recording::default(), config, move |_| {
        births += 1;
        if births == 1 { Behaviour::sound().hangs_after(MINUTE) } else { Behaviour::sound() }
    })
    .unwrap();
    pool.pass(MINUTE + Duration::from_secs(29));
    let pid = pool.workers()[0].pid;
    pool.pass(Duration::from_secs(5));
    assert_ne!(pool.workers()[0].pid, pid);
    pool.pass(60 * MINUTE);
    assert_eq!(pool.ready(), 1);
}

#[test]
fn a_worker_with_too_much_memory_is_recycled() {
    let mut config = config(1);
    config.policy.recycling =
        Recycling { rss: Some(Limit { base: 1000, jitter: 0 }), ..Recycling::default() };
    let small = |birth: &PoolProcess| birth.pid > Some(1001);
    let behaviour =
        move |birth: &PoolProcess| Behaviour::sound().uses_memory(if small(birth) { 10 } else { 2000 });
    let mut pool = Simulation::start_with(Recording::default(), config, behaviour).unwrap();
    pool.pass(10 * MINUTE);
    let pids: Vec<_> = pool.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!((pids, pool.ready()), (vec![Some(1002)], 1));
}

#[test]
fn a_stop_waits_for_the_drain_and_kills_at_the_graceful_timeout() {
    let mut pool = serving(config(2));
    let stop = pool.stop();
    pool.pass(SECOND);
    assert_eq!((pool.outcome(), pool.phase()), (Some(Outcome::Stopped), "ended"));
    assert_eq!(pool.reply(stop).unwrap().message, "stopped");
    let stubborn = |_: &PoolProcess| Behaviour::sound().never_drains();
    let mut pool = Simulation::start_with(Recording::default(), config(2), stubborn).unwrap();
    pool.pass(SECOND);
    pool.stop();
    pool.pass(Duration::from_secs(29));
    assert_eq!(pool.outcome(), None);
    pool.pass(SECOND);
    assert_eq!(pool.outcome(), Some(Outcome::Forced { killed: 2 }));
}

#[test]
fn a_pool_whose_first_workers_cannot_boot_ends() {
    for behaviour in [Behaviour::fails_to_boot("no database"), Behaviour::hangs_in_boot()] {
        let choose = move |_: &PoolProcess| behaviour.clone();
        let mut pool = Simulation::start_with(Recording::default(), config(2), choose).unwrap();
        pool.pass(2 * MINUTE);
        assert_eq!(pool.outcome(), Some(Outcome::BootFailed(ErrorKind::Boot)));
    }
}

#[test]
fn other_requests_of_operators_and_of_workers_are_carried_out() {
    let mut pool = serving(config(2));
    let scale = pool.scale(4);
    pool.pass(SECOND);
    let recycle = pool.recycle(3);
    pool.pass(SECOND);
    let reopen = pool.reopen_logs();
    for request in [scale, recycle, reopen] {
        assert_eq!(pool.reply(request).unwrap().outcome, control::Outcome::Done);
    }
    let leaving = pool.workers()[0].pid.unwrap();
    assert!(pool.leave(leaving, "tired"));
    pool.ask_reload("app.rs has changed");
    pool.pass(MINUTE);
    assert_eq!((pool.ready(), pool.generation()), (4, 2));
    assert!(pool.workers().iter().all(|worker| worker.state == "ready"));
}

#[test]
fn a_mold_forks_the_workers_of_a_pool_that_preloads() {
    let mut config = config(2);
    config.policy.preload = true;
    let mut molds = 0;
    let mut pool = Simulation::start_with(Recording::default(), config, move |birth| {
        molds += usize::from(birth.slot.is_none());
        assert!(molds == 1, "the first process is a mold, and there is no other");
        Behaviour::sound()
    })
    .unwrap();
    pool.pass(SECOND);
    assert_eq!(pool.ready(), 2);
}

#[test]
fn two_runs_are_the_same() {
    let run = || {
        let flaky = |birth: &PoolProcess| {
            let life = Duration::from_millis(u64::from(birth.pid.unwrap().unsigned_abs() % 7) * 900);
            Behaviour::sound().dies_after(life, "no queue")
        };
        let mut pool = Simulation::start_with(Recording::default(), config(3), flaky).unwrap();
        pool.pass(10 * MINUTE);
        (pool.workers(), pool.supervisor().calls.clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_supervisor_observes_the_events_of_a_simulated_pool() {
    let mut pool = serving(config(1));
    let pid = pool.workers()[0].pid;
    pool.supervisor_mut().events.clear();
    assert!(pool.fail(pid.unwrap(), "no queue"));
    pool.pass(SECOND);
    pool.stop();
    pool.pass(SECOND);
    let events = &pool.supervisor().events;
    let [PoolEvent::Died { process, error, .. }, PoolEvent::Born { .. }, PoolEvent::Ready { after, .. }, ..] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((process.pid, error.as_deref()), (pid, Some("no queue")));
    assert_eq!(*after, Duration::from_millis(100));
    let changed = |from, to| events.contains(&PoolEvent::PhaseChanged { from, to });
    assert!(changed("serving", "stopping") && changed("stopping", "ended"), "{events:?}");
}

/// The number of processes that were born and have not ended, by the events.
fn living(events: &[PoolEvent]) -> usize {
    let born = events.iter().filter(|event| matches!(event, PoolEvent::Born { .. }));
    let is_end = |event: &&PoolEvent| matches!(event, PoolEvent::Died { .. } | PoolEvent::Retired { .. });
    born.count() - events.iter().filter(is_end).count()
}

#[test]
fn each_process_that_an_observer_sees_born_it_also_sees_end() {
    let mut pool = serving(config(2));
    pool.behave(|_| Behaviour::hangs_in_boot());
    // The second reload supersedes the first one.
    pool.reload();
    pool.pass(SECOND);
    pool.reload();
    pool.pass(SECOND);
    assert_eq!(living(&pool.supervisor().events), pool.workers().len());
    pool.behave(|_| Behaviour::sound().never_drains());
    pool.pass(10 * MINUTE);
    pool.kill(pool.workers()[0].pid.unwrap(), 9);
    pool.pass(SECOND);
    assert_eq!(living(&pool.supervisor().events), pool.workers().len());
    pool.stop();
    pool.stop();
    pool.pass(MINUTE);
    assert!(pool.outcome().is_some());
    assert_eq!(living(&pool.supervisor().events), 0, "{:?}", pool.supervisor().events);
}

#[test]
fn each_failed_process_of_a_start_that_fails_is_seen_to_end() {
    for preload in [false, true] {
        for behaviour in [Behaviour::fails_to_boot("no database"), Behaviour::hangs_in_boot()] {
            let mut config = config(3);
            config.policy.preload = preload;
            let choose = move |_: &PoolProcess| behaviour.clone();
            let mut pool = Simulation::start_with(Recording::default(), config, choose).unwrap();
            pool.pass(5 * MINUTE);
            assert!(pool.outcome().is_some());
            assert_eq!(living(&pool.supervisor().events), 0, "{:?}", pool.supervisor().events);
        }
    }
}

#[test]
fn the_phase_changes_before_the_effects_of_its_cause() {
    let mut pool = serving(config(1));
    pool.supervisor_mut().events.clear();
    pool.reload();
    let events = &pool.supervisor().events;
    let changed = PoolEvent::PhaseChanged { from: "serving", to: "reloading" };
    assert_eq!(events[..2], [changed, PoolEvent::ReloadBegan { generation: 2 }]);
}

#[test]
fn the_supervisor_sees_the_forks_of_its_own_process_and_not_those_of_a_mold() {
    let mut config = config(3);
    config.policy.preload = true;
    let mut pool = Simulation::start(Recording::default(), config).unwrap();
    pool.pass(SECOND);
    assert_eq!(pool.ready(), 3);
    assert_eq!(pool.supervisor().calls.iter().filter(|call| *call == "fork").count(), 1);
}

#[test]
fn a_worker_drains_at_a_signal_to_stop_and_has_a_successor() {
    let mut pool = serving(config(1));
    pool.supervisor_mut().events.clear();
    let pid = pool.workers()[0].pid.unwrap();
    assert!(pool.kill(pid, 15));
    assert_eq!(pool.workers()[0].pid, Some(pid));
    pool.pass(SECOND);
    assert_eq!(pool.ready(), 1);
    let cause = pool.supervisor().events.iter().find_map(|event| match event {
        PoolEvent::Died { cause, .. } => Some(cause.clone()),
        _ => None,
    });
    assert_eq!(cause.as_deref(), Some("exited with code 0"));
}
