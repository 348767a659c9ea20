//! A pool that starts and serves: boots, deaths, silences, leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::life::{Life, MILLISECOND, SECOND, policy, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

#[test]
fn a_pool_serves_as_soon_as_its_first_worker_does_and_says_so_once() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    assert_eq!((life.pool_ready, life.phase()), (0, "starting"));
    life.step(Event::Ready { worker: booting[0] });
    assert_eq!((life.pool_ready, life.phase()), (1, "serving"));
    life.step(Event::Ready { worker: booting[1] });
    assert_eq!((life.pool_ready, life.phase()), (1, "serving"));
}

#[test]
fn a_reload_to_a_corrected_version_does_not_wait_for_a_worker_that_never_boots() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    life.step(Event::Ready { worker: booting[0] });
    let ticket = life.reload();
    life.all_ready();
    life.all_ready();
    assert!(life.is_done(ticket), "{:?}", life.answers);
    assert_eq!(life.generations(), [2, 2]);
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
        assert_eq!(life.told(|notice| matches!(notice, Notice::Worker(WorkerNotice::BootFailed { .. }))), 1);
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
fn a_worker_that_dies_is_replaced_at_once_and_one_that_keeps_dying_when_its_slot_has_rested() {
    // How long a boot takes in milliseconds, and how many there are in two minutes.
    for (boot, respawns) in [(0, 240), (100, 200), (1000, 24), (10_000, 8)] {
        let mut life = Life::start(policy(1));
        let booted = |life: &mut Life| {
            life.live(Duration::from_millis(boot));
            life.all_ready();
        };
        booted(&mut life);
        life.live(seconds(60));
        let worker = life.ready()[0];
        life.exit(worker, ExitStatus::Signal(9));
        assert_eq!(life.booting().len(), 1);
        let (before, end) = (life.spawns, life.now + seconds(120));
        while life.now < end {
            if life.booting().is_empty() {
                life.live(Duration::from_millis(10));
            } else {
                booted(&mut life);
                life.ready().into_iter().for_each(|worker| life.exit(worker, ExitStatus::Code(1)));
            }
        }
        let spawned = life.spawns - before;
        assert!(
            spawned.abs_diff(respawns) <= respawns / 8 + 1,
            "{spawned} of {respawns}, boots of {boot} ms"
        );
    }
}

#[test]
fn of_a_pool_whose_boots_all_fail_one_after_the_other_is_tried_and_it_spares_the_processor() {
    let mut life = Life::serving(4);
    for worker in life.ready() {
        life.dies(worker);
    }
    let (before, boot, end) = (life.spawns, Duration::from_secs(2), life.now + seconds(100));
    while life.now < end {
        if life.booting().is_empty() {
            life.live(Duration::from_millis(10));
        } else {
            life.live(boot);
            life.booting().into_iter().for_each(|worker| life.breaks(worker));
            assert!(life.booting().is_empty(), "it rests");
        }
    }
    // The four that were replaced at once are among those before.
    let spent = boot * u32::try_from(life.spawns - before).unwrap();
    assert!(spent >= seconds(16) && spent <= seconds(20), "{spent:?} of 100 s");
    // One works: the others follow at once, one after the other.
    while life.booting().is_empty() {
        life.live(Duration::from_millis(10));
    }
    for ready in 1..=4 {
        assert_eq!(life.booting().len(), 1);
        life.all_ready();
        assert_eq!(life.ready().len(), ready);
    }
}

#[test]
fn a_boot_that_hangs_does_not_keep_dark_what_other_slots_could_serve() {
    let mut life = Life::serving(4);
    for _ in 0..2 {
        // At once the first time, and then each has failed to boot.
        for worker in life.ready().into_iter().chain(life.booting()) {
            if life.machine.table().get(worker).is_some_and(|entry| entry.state.is_ready()) {
                life.dies(worker);
            } else {
                life.breaks(worker);
            }
        }
    }
    while life.booting().is_empty() {
        life.live(Duration::from_millis(10));
    }
    // This one hangs; a usual boot takes no time at all.
    let hung = life.booting()[0];
    life.live(Duration::from_millis(7500));
    let others: Vec<WorkerId> = life.booting().into_iter().filter(|worker| *worker != hung).collect();
    assert_eq!(others.len(), 1);
    life.worker_ready(others[0]);
    for _ in 0..2 {
        let next = life.booting().into_iter().find(|worker| *worker != hung).expect("the next slot's turn");
        life.worker_ready(next);
    }
    assert_eq!(life.ready().len(), 3);
}

#[test]
fn poison_that_kills_every_worker_does_not_keep_a_pool_dark() {
    let mut life = Life::serving(2);
    for _ in 0..40 {
        for worker in life.ready() {
            life.dies(worker);
        }
        if life.booting().is_empty() {
            life.live(Duration::from_millis(500));
        }
        life.all_ready();
        assert!(!life.ready().is_empty());
    }
}

#[test]
fn what_slots_have_lost_is_forgotten_while_they_are_served_and_an_orderly_end_costs_nothing() {
    let mut life = Life::serving(1);
    for _ in 0..6 {
        life.live(seconds(1));
        let worker = life.ready()[0];
        life.dies(worker);
        life.all_ready();
    }
    life.live(seconds(25));
    let recycled = life.ask_for_answer(Ask::Recycle(0));
    life.all_ready();
    assert!(life.is_done(recycled));
    let worker = life.ready()[0];
    life.dies(worker);
    // It was ready for no time at all, and its slot rests for half a second.
    life.live(Duration::from_millis(500));
    assert_eq!(life.booting().len(), 1);
}

#[test]
fn a_worker_that_cannot_be_killed_does_not_keep_its_slot_empty() {
    let mut life = Life::serving(2);
    let frozen = life.ready()[0];
    life.now += seconds(30);
    let busy = life.ready()[1];
    life.step(Event::Beats(vec![(busy, life.now)]));
    life.live(SECOND);
    life.step(Event::Tick);
    assert_eq!((life.killed.clone(), life.booting().len()), (BTreeSet::from([frozen]), 0));
    life.live(seconds(5));
    assert_eq!(life.told(|notice| matches!(notice, Notice::Worker(WorkerNotice::Unkillable { .. }))), 1);
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
    // It ends after all.
    life.dies(frozen);
    assert_eq!((life.ready().len(), life.booting().len()), (2, 0));
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
    life.live(seconds(1));
    life.fork_fails = false;
    // Whatever was refused before: no slot is charged with it.
    life.live(seconds(2));
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn forks_that_are_refused_are_tried_one_at_a_time_for_the_whole_pool() {
    let mut life = Life::serving(4);
    life.fork_fails = true;
    for worker in life.ready() {
        life.dies(worker);
    }
    let before = life.spawns;
    life.pass(Duration::from_millis(499));
    assert_eq!(life.spawns, before);
    for tries in 1..=5 {
        life.pass(if tries == 1 { MILLISECOND } else { seconds(2) });
        assert_eq!(life.spawns, before + tries);
    }
    assert!(matches!(life.machine.wait_of(3), Some(Wait { why: Vacancy::Refused(_), until: Some(_) })));
    life.fork_fails = false;
    life.pass(seconds(2));
    // The first that works brings the others.
    assert_eq!(life.booting().len(), 4);
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
    // It serves until its successor does.
    assert_eq!((life.drained.len(), life.booting().len(), life.ready().len()), (0, 1, 2));
    life.all_ready();
    assert_eq!((life.drained.len(), life.ready().len()), (1, 2));
    life.live(seconds(31));
    assert_eq!(life.killed, BTreeSet::from([leaving]));
    life.obey();
    assert_eq!((life.living.len(), life.spawns), (2, 3));
}

#[test]
fn workers_that_all_want_to_leave_again_and_again_are_never_missed() {
    let mut life = Life::serving(2);
    for _ in 0..10 {
        for worker in life.ready() {
            life.step(Event::Leaving { worker, reason: "a slow backend".to_owned() });
        }
        assert_eq!(life.ready().len(), 2);
        life.live(Duration::from_millis(500));
        assert_eq!((life.booting().len(), life.drained.len()), (2, 0));
        life.all_ready();
        assert_eq!((life.ready().len(), life.drained.len()), (2, 2));
        life.obey();
        life.drained.clear();
    }
}

#[test]
fn a_supervisor_that_was_suspended_blames_no_worker() {
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
fn a_start_that_fails_answers_all_requests_that_wait() {
    let mut life = Life::start(policy(2));
    let booting = life.booting();
    let tickets = [Ask::Reload, Ask::Upgrade, Ask::Scale(3)].map(|ask| life.ask_for_answer(ask));
    let recycled = life.ask_for_answer(Ask::Recycle(0));
    life.breaks(booting[0]);
    let stop = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::BootFailed(ErrorKind::Application)));
    assert!(tickets.into_iter().all(|ticket| life.is_superseded(ticket)));
    assert!(life.is_superseded(recycled) && life.is_done(stop));
}

#[test]
fn a_request_to_a_pool_that_has_ended_is_answered_at_once() {
    let mut life = Life::serving(1);
    life.ask(Ask::Stop(StopMode::Graceful));
    life.obey();
    let (stop, reload) = (life.ask_for_answer(Ask::Stop(StopMode::Quick)), life.ask_for_answer(Ask::Reload));
    assert!(life.is_done(stop) && life.is_refused(reload));
}

#[test]
fn of_two_that_boot_too_long_at_once_each_is_killed_once() {
    let mut life = Life::start(policy(3));
    life.pass(seconds(60));
    let kills = life.effects.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).count();
    assert_eq!((kills, life.killed.len()), (3, 3));
    assert_eq!(life.told(|notice| matches!(notice, Notice::Worker(WorkerNotice::BootTimeout { .. }))), 1);
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
fn log_files_are_opened_again_by_all_that_live_and_molds_are_among_them() {
    let mut life = Life::serving_by(super::life::preloading(2));
    let killed = life.ready()[1];
    life.ask(Ask::ScaleDown);
    life.pass(seconds(30));
    assert!(life.killed.contains(&killed));
    life.ask(Ask::ReopenLogs);
    let expected = life.processes().filter(|worker| *worker != killed).collect::<BTreeSet<_>>();
    assert_eq!((life.reopened.len(), life.reopened.clone()), (2, expected));
}
