//! Processes that SIGKILL does not end, and requests that wait for something that never comes.

use super::life::{Life, SECOND, policy, preloading, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

fn mold(life: &Life) -> WorkerId {
    *life.molds.keys().next().expect("a mold")
}

/// The mold owes the fork of a worker, and does nothing any more.
fn owing_a_fork() -> Life {
    let mut life = Life::serving_by(preloading(2));
    life.forks_later = true;
    let worker = life.ready()[0];
    life.dies(worker);
    assert_eq!(life.unforked.len(), 1);
    life
}

#[test]
fn a_stop_ends_though_a_mold_that_cannot_be_killed_owes_a_fork() {
    let mut life = owing_a_fork();
    let stop = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    for worker in life.drained.keys().copied().collect::<Vec<_>>() {
        life.exit(worker, ExitStatus::Code(0));
    }
    life.pass(seconds(5));
    assert_eq!(life.outcome, Some(Outcome::Unkillable { left: 1 }));
    let pid = mold(&life).0;
    let Some(Answer::Failed { reason, .. }) = life.answers.get(&stop) else { panic!() };
    assert_eq!(reason, &format!("stopped, but cannot be killed: pid {pid}"));
}

#[test]
fn a_slot_is_filled_though_a_mold_that_cannot_be_killed_owes_its_fork() {
    let mut life = owing_a_fork();
    let frozen = mold(&life);
    // The boot timeout, and then the mold's own.
    life.live(seconds(60));
    life.live(seconds(5));
    life.forks_later = false;
    for _ in 0..10 {
        for other in life.booting_molds().into_iter().filter(|other| *other != frozen) {
            life.worker_ready(other);
        }
        life.live(seconds(5));
        life.all_ready();
    }
    assert_eq!(life.ready().len(), 2, "{:?}", life.machine.wait_of(0));
    // It goes on after all, and forks what it owes: that is killed.
    let late = *life.unforked.keys().next().expect("the fork that is owed");
    life.answer_fork(late);
    assert!(life.killed.contains(&late));
    life.dies(late);
    assert_eq!(life.ready().len(), 2);
}

#[test]
fn a_client_that_waits_for_a_worker_hears_that_there_is_no_mold_to_fork_it() {
    for ask in [Ask::Recycle(0), Ask::Scale(3)] {
        let mut life = Life::serving_by(preloading(2));
        life.dies(mold(&life));
        let worker = life.ready()[0];
        life.dies(worker);
        let ticket = life.ask_for_answer(ask);
        for mold in life.booting_molds() {
            life.breaks(mold);
        }
        assert!(life.is_failed(ticket), "{ask:?}: {:?}", life.answers.get(&ticket));
        assert_eq!(life.machine.target(), 2);
    }
}

#[test]
fn a_slot_whose_failed_worker_is_still_to_be_reaped_is_filled_at_once_when_asked() {
    let mut life = Life::serving(2);
    let worker = life.ready()[0];
    life.dies(worker);
    for _ in 0..6 {
        let failing = life.booting()[0];
        life.breaks(failing);
        while life.booting().is_empty() {
            life.live(SECOND);
        }
    }
    let failing = life.booting()[0];
    life.boot_fails(failing, ErrorKind::Application);
    let ticket = life.ask_for_answer(Ask::Recycle(0));
    life.exit(failing, ExitStatus::Code(4));
    assert_eq!(life.booting().len(), 1);
    life.all_ready();
    assert!(life.is_done(ticket));
}

#[test]
fn a_new_worker_that_hangs_and_cannot_be_killed_fails_its_reload() {
    let plan = Plan { soak: seconds(300), ..Plan::default() };
    let mut life = Life::serving_by(Policy { plan, ..policy(2) });
    let ticket = life.reload();
    let silent = life.booting()[0];
    life.worker_ready(silent);
    for _ in 0..40 {
        life.now += SECOND;
        let beats = life.ready().into_iter().filter(|worker| *worker != silent);
        let beats = beats.map(|worker| (worker, life.now)).collect();
        life.step(Event::Beats(beats));
    }
    assert!(life.is_failed(ticket), "{}: {:?}", life.phase(), life.answers.get(&ticket));
}

#[test]
fn a_new_version_starts_with_a_clean_record_of_its_mold_as_well() {
    let mut life = Life::serving_by(preloading(1));
    life.dies(mold(&life));
    for _ in 0..60 {
        life.booting_molds().into_iter().for_each(|mold| life.breaks(mold));
        life.live(SECOND);
    }
    let ticket = life.reload();
    life.molds_ready();
    life.all_ready();
    life.obey();
    assert!(life.is_done(ticket));
    life.dies(mold(&life));
    life.booting_molds().into_iter().for_each(|mold| life.breaks(mold));
    life.live(SECOND);
    assert_eq!(life.booting_molds().len(), 1);
}

#[test]
fn workers_that_have_asked_to_be_replaced_do_not_pile_up_behind_their_slot() {
    let mut life = Life::serving(1);
    for _ in 0..10 {
        life.live(SECOND);
        let worker = life.ready()[0];
        life.step(Event::Leaving { worker, reason: "a slow backend".to_owned() });
        life.live(seconds(1));
        life.all_ready();
        // Only what is killed ends.
        life.reap_killed();
        assert!(life.living.len() <= 4, "{} processes", life.living.len());
    }
    assert!(
        life.told(|notice| matches!(
            notice,
            Notice::Worker(WorkerNotice::Overdue { reason: KillReason::Crowded, .. })
        )) > 0
    );
    assert_eq!(
        life.told(|notice| matches!(notice, Notice::Worker(WorkerNotice::Died { respawn_in: Some(_), .. }))),
        0
    );
}
