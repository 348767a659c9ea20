//! A pool that starts and serves: boots, deaths, silences, leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::life::{Life, SECOND, policy, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

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
    assert_eq!(life.ready().len(), 2);
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
fn a_worker_that_says_that_it_cannot_boot_and_does_not_end_is_killed_and_replaced() {
    let mut life = Life::serving(2);
    let worker = life.ready()[0];
    life.dies(worker);
    let stuck = life.booting()[0];
    life.boot_fails(stuck, ErrorKind::Application);
    life.live(seconds(30));
    assert_eq!(life.killed, BTreeSet::from([stuck]));
    life.obey();
    life.live(seconds(30));
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_start_that_fails_answers_whoever_waits_for_anything() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    let tickets = [Ask::Reload, Ask::Upgrade, Ask::Scale(3)].map(|ask| life.ask_for_answer(ask));
    let refused = life.ask_for_answer(Ask::Recycle(0));
    life.breaks(booting[0]);
    let stop = life.ask_for_answer(Ask::StopGraceful);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::BootFailed(ErrorKind::Application)));
    assert!(tickets.into_iter().all(|ticket| life.is_superseded(ticket)));
    assert!(life.is_refused(refused) && life.is_done(stop));
}

#[test]
fn whoever_asks_a_pool_that_has_ended_is_answered_at_once() {
    let mut life = Life::serving(1);
    life.ask(Ask::StopGraceful);
    life.obey();
    let (stop, reload) = (life.ask_for_answer(Ask::StopQuick), life.ask_for_answer(Ask::Reload));
    assert!(life.is_done(stop) && life.is_refused(reload));
}

#[test]
fn of_two_that_boot_too_long_at_once_each_is_killed_once() {
    let mut life = Life::start(policy(3));
    life.pass(seconds(60));
    let kills = life.effects.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).count();
    assert_eq!((kills, life.killed.len()), (3, 3));
    assert_eq!(life.told(|notice| matches!(notice, Notice::BootTimeout { .. })), 1);
}

#[test]
fn a_slot_whose_worker_does_not_end_after_its_drain_does_not_wait_for_it() {
    let mut life = Life::serving(1);
    life.live(seconds(20));
    let leaving = life.ready()[0];
    life.step(Event::Leaving { worker: leaving, reason: "tired".to_owned() });
    life.all_ready();
    life.live(seconds(30));
    assert!(life.killed.contains(&leaving));
    // Not reaped yet; its successor dies as well.
    let worker = life.ready()[0];
    life.dies(worker);
    life.live(SECOND);
    life.all_ready();
    assert_eq!(life.ready().len(), 1);
}

#[test]
fn log_files_are_opened_anew_by_whoever_lives_and_molds_are_among_them() {
    let mut life = Life::serving_by(super::life::preloading(2));
    let killed = life.ready()[1];
    life.ask(Ask::ScaleDown);
    life.pass(seconds(30));
    assert!(life.killed.contains(&killed));
    life.ask(Ask::ReopenLogs);
    let expected = life.everybody().filter(|worker| *worker != killed).collect::<BTreeSet<_>>();
    assert_eq!((life.reopened.len(), life.reopened.clone()), (2, expected));
}
