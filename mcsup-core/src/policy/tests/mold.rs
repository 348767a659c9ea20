//! Molds: the pool keeps all its promises with them as well.

use super::life::{Life, preloading, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

fn mold(life: &Life) -> WorkerId {
    *life.molds.keys().next().expect("a mold")
}

#[test]
fn no_worker_is_forked_before_the_mold_is_ready() {
    let mut life = Life::start(preloading(2));
    assert_eq!((life.spawns, life.molds.len()), (0, 1));
    life.molds_ready();
    assert_eq!(life.booting().len(), 2);
    life.all_ready();
    assert_eq!((life.phase(), life.pool_ready), ("serving", 1));
}

#[test]
fn a_mold_that_fails_at_the_start_ends_it_with_its_reason() {
    type Blow = fn(&mut Life, WorkerId);
    let blows: [(Blow, ErrorKind); 3] = [
        (|life, mold| life.breaks(mold), ErrorKind::Application),
        (|life, mold| life.dies(mold), ErrorKind::Boot),
        (|life, _| life.pass(seconds(60)), ErrorKind::Boot),
    ];
    for (blow, kind) in blows {
        let mut life = Life::start(preloading(2));
        let mold = mold(&life);
        blow(&mut life, mold);
        life.obey();
        assert_eq!((life.outcome, life.spawns), (Some(Outcome::BootFailed(kind)), 0));
    }
}

#[test]
fn a_mold_that_fails_in_a_reload_fails_it() {
    let mut life = Life::serving_by(preloading(2));
    let old = life.ready();
    let ticket = life.reload();
    let new = *life.molds.keys().last().unwrap();
    life.breaks(new);
    assert!(life.is_failed(ticket));
    assert_eq!((life.phase(), life.ready(), life.molds.len()), ("serving", old, 1));
    // The notice is about a mold, not about a worker.
    assert_eq!(life.told(|notice| matches!(notice, Notice::Mold(MoldNotice::BootFailed { .. }))), 1);
}

#[test]
fn a_mold_that_fails_and_does_not_exit_is_killed_as_soon_as_a_worker() {
    let mut life = Life::serving_by(preloading(2));
    life.reload();
    let new = *life.molds.keys().last().unwrap();
    life.boot_fails(new, ErrorKind::Application);
    life.pass(seconds(5));
    assert!(life.killed.contains(&new));
}

#[test]
fn a_mold_that_dies_takes_nothing_down_and_comes_back() {
    let mut life = Life::serving_by(preloading(2));
    life.live(seconds(60));
    life.dies(mold(&life));
    assert_eq!((life.ready().len(), life.molds.len()), (2, 1));
    life.molds_ready();
    assert_eq!(life.spawns, 2);
}

#[test]
fn a_mold_that_cannot_come_back_is_tried_ever_later() {
    let mut life = Life::serving_by(preloading(1));
    life.dies(mold(&life));
    let mut tries = 0;
    for _ in 0..600 {
        while let Some(&mold) = life.booting_molds().first() {
            tries += 1;
            life.breaks(mold);
        }
        life.live(std::time::Duration::from_millis(100));
    }
    assert!((4..=10).contains(&tries), "{tries} tries in a minute");
    assert_eq!(life.ready().len(), 1);
}

#[test]
fn a_slot_that_becomes_empty_without_a_mold_is_filled_when_there_is_one_again() {
    let mut life = Life::serving_by(preloading(2));
    life.dies(mold(&life));
    let worker = life.ready()[0];
    life.dies(worker);
    life.live(seconds(5));
    assert_eq!((life.ready().len(), life.booting().len()), (1, 0));
    life.molds_ready();
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_reload_keeps_the_old_mold_until_it_is_sure_of_the_new_one() {
    let mut life = Life::serving_by(preloading(2));
    let old = mold(&life);
    life.reload();
    life.molds_ready();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.obey();
    assert!(life.molds.contains_key(&old));
    life.all_ready();
    assert_eq!(life.phase(), "serving");
    assert!(life.killed.contains(&old));
}

#[test]
fn a_new_generation_does_not_wait_for_the_back_off_of_the_old_ones_mold() {
    let mut life = Life::serving_by(preloading(1));
    life.dies(mold(&life));
    while let Some(&mold) = life.booting_molds().first() {
        life.breaks(mold);
    }
    let ticket = life.reload();
    life.molds_ready();
    life.all_ready();
    assert!(life.is_done(ticket));
}

#[test]
fn a_rollback_that_waits_for_a_mold_that_cannot_boot_is_given_up_and_the_next_reload_begins() {
    let mut life = Life::serving_by(preloading(2));
    life.reload();
    life.molds_ready();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.obey();
    life.dies(mold(&life));
    let second = life.booting()[0];
    life.breaks(second);
    assert_eq!(life.phase(), "rolling back");
    let ticket = life.reload();
    let again = life.booting_molds().first().copied().unwrap();
    life.breaks(again);
    assert_eq!(life.phase(), "reloading");
    life.obey();
    for _ in 0..3 {
        life.molds_ready();
        life.all_ready();
        life.obey();
    }
    assert!(life.is_done(ticket));
    assert_eq!(life.generations(), [3, 3]);
}

#[test]
fn a_worker_that_is_given_up_before_it_was_forked_is_killed_as_soon_as_it_is() {
    let mut life = Life::serving_by(preloading(1));
    life.forks_later = true;
    life.ask(Ask::ScaleUp);
    let unforked = *life.unforked.keys().next().unwrap();
    life.ask(Ask::ScaleDown);
    assert!(life.killed.is_empty());
    life.answer_fork(unforked);
    assert!(life.killed.contains(&unforked));
}

#[test]
fn a_fork_that_is_not_answered_because_the_mold_died_is_asked_of_the_next_one() {
    let mut life = Life::serving_by(preloading(2));
    life.forks_later = true;
    let worker = life.ready()[0];
    life.dies(worker);
    assert_eq!(life.unforked.len(), 1);
    life.dies(mold(&life));
    life.forks_later = false;
    life.molds_ready();
    life.live(seconds(1));
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_mold_that_does_not_answer_for_a_fork_is_killed_and_followed_by_another() {
    let mut life = Life::serving_by(Policy { timeout: None, ..preloading(2) });
    life.forks_later = true;
    let worker = life.ready()[0];
    life.dies(worker);
    life.pass(seconds(60));
    assert!(life.killed.contains(&mold(&life)));
    life.forks_later = false;
    life.obey();
    life.pass(seconds(1));
    life.molds_ready();
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_mold_that_is_stuck_is_killed_for_that_and_followed_by_another() {
    let mut life = Life::serving_by(preloading(2));
    let stuck = mold(&life);
    life.step(Event::MoldStuck { mold: stuck });
    // It may be reported once for each worker that it should have forked.
    life.step(Event::MoldStuck { mold: stuck });
    assert!(life.killed.contains(&stuck));
    life.reap_killed();
    let killed = Some(KillReason::Barren);
    assert_eq!(
        life.told(
            |notice| matches!(notice, Notice::Mold(MoldNotice::Died { killed: by, .. }) if *by == killed)
        ),
        1
    );
    life.pass(seconds(1));
    life.molds_ready();
    assert_ne!(mold(&life), stuck);
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_mold_that_cannot_fork_again_and_again_is_replaced() {
    let mut life = Life::serving_by(preloading(2));
    let barren = mold(&life);
    life.fork_fails = true;
    for worker in life.ready() {
        life.dies(worker);
    }
    for _ in 0..4 {
        life.pass(seconds(2));
    }
    assert!(life.killed.contains(&barren));
    life.fork_fails = false;
    life.reap_killed();
    life.pass(seconds(2));
    life.molds_ready();
    life.all_ready();
    assert_eq!(life.ready().len(), 2);
}
