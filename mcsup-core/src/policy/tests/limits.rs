//! Limits that are longer than the clock can count.

use std::time::Duration;

use super::life::{Life, policy, seconds};
use crate::policy::jitter::Jitter;
use crate::policy::restart::{Restarts, Served};
use crate::policy::*;

/// A policy in which each time for itself is the longest, or a short one.
fn longest(chance: &mut Jitter) -> Policy {
    let mut time = || match chance.up_to(3) {
        0 => seconds(1),
        1 => Duration::MAX - seconds(1),
        _ => Duration::MAX,
    };
    let mut long = policy(3);
    long.boot_timeout = time();
    long.timeout = Some(time());
    long.graceful_timeout = time();
    long.quick_timeout = time();
    long.abort_patience = time();
    long.drain_delay = time();
    long.reload_interval = time();
    long.upgrade_timeout = time();
    long.plan.soak = time();
    long.recycling.lifetime = Some(Limit { base: time(), jitter: time() });
    let most = Some(Limit { base: u64::MAX, jitter: u64::MAX });
    long.recycling.requests = most;
    long.recycling.rss = most;
    let base = time();
    long.restart = RestartPolicy { base, cap: base.max(time()), ready_cap: time(), stable: time() };
    long.preload = chance.up_to(1) == 0;
    long
}

/// Something that may happen to one of `workers`, the last of which is a made-up one.
fn any_event(workers: &[WorkerId], generation: u64, chance: &mut Jitter) -> Event {
    let mut pick = |most: usize| usize::try_from(chance.up_to(most as u64 - 1)).unwrap();
    let worker = workers[pick(workers.len())];
    let asks = [
        Ask::Stop(StopMode::Graceful),
        Ask::Reload,
        Ask::Upgrade,
        Ask::Recycle(0),
        Ask::ScaleUp,
        Ask::ScaleDown,
        Ask::Reload,
        Ask::Recycle(1),
    ];
    match pick(16) {
        0..=2 => Event::Ready { worker },
        3 => Event::Exited {
            worker,
            exit: Exit { status: ExitStatus::Code(1), evidence: Evidence::default() },
        },
        4 => Event::Leaving { worker, reason: String::new() },
        5 => Event::Memory(vec![(worker, u64::MAX)]),
        6 => Event::Late { by: seconds(60) },
        7 => Event::ImageChecked,
        8 => Event::UpgradeFailed { reason: String::new() },
        9 => Event::Changed { reason: String::new() },
        10 | 11 => Event::Prepared { generation, policy: None, closes_listeners: false },
        12 | 13 => Event::Ask(asks[pick(asks.len())], None),
        14 => Event::BootFailed {
            worker,
            failure: BootFailure { kind: crate::ErrorKind::Boot, summary: String::new(), detail: None },
        },
        _ => Event::Tick,
    }
}

/// Whatever happens, in whatever order: it must not panic.
fn stray(policy: Policy, seed: u64) {
    let (mut chance, mut now) = (Jitter::new(seed), seconds(1_000));
    let mut machine = Machine::new(policy);
    let (mut workers, mut generation) = (vec![WorkerId(0)], 1);
    let mut effects = machine.start(now);
    for _ in 0..200 {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Spawn { worker, .. } | Effect::SpawnMold { mold: worker, .. } => {
                    workers.push(worker);
                    let pid = i32::try_from(workers.len()).unwrap();
                    events.push(Event::Spawned { worker, pid });
                }
                Effect::Prepare { generation: next } => generation = next,
                _ => {}
            }
        }
        now += Duration::from_millis(chance.up_to(20_000));
        events.push(any_event(&workers, generation, &mut chance));
        effects = events.into_iter().flat_map(|event| machine.step(event, now)).collect();
        machine.next_deadline();
        machine.record();
    }
}

#[test]
fn no_limit_is_too_long_for_the_clock() {
    for seed in 0..2_000 {
        let policy = longest(&mut Jitter::new(seed));
        let lived = std::panic::catch_unwind(|| stray(policy.clone(), seed));
        assert!(lived.is_ok(), "seed {seed}: {policy:?}");
    }
}

#[test]
fn a_back_off_may_be_longer_than_the_clock() {
    let ever = Duration::MAX;
    let all = RestartPolicy { base: ever, cap: ever, ready_cap: ever, stable: ever };
    let mut restarts = Restarts::new(all, 1);
    for now in [seconds(1), seconds(1 << 40)] {
        restarts.note_boot(0, ever, false, now);
        assert_eq!(restarts.rest_after_failure_ends(), ever);
        assert!(restarts.after_failed_boot(0, now) > seconds(1 << 40));
        restarts.after_death(0, Served { ready: now, boot: ever }, now);
        assert_eq!(restarts.after_death(0, Served { ready: now, boot: ever }, now), ever);
    }
}

#[test]
fn a_limit_that_the_clock_cannot_hold_never_comes() {
    let ever = Duration::MAX;
    let mut settings = policy(1);
    (settings.boot_timeout, settings.timeout, settings.graceful_timeout) = (ever, Some(ever), ever);
    let mut life = Life::start(settings);
    life.live(seconds(1_000_000));
    life.all_ready();
    life.live(seconds(1_000_000));
    assert_eq!((life.phase(), life.ready().len()), ("serving", 1));
    life.ask(Ask::Stop(StopMode::Graceful));
    life.live(seconds(1_000_000));
    assert!(life.outcome.is_none());
}
