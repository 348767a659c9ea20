//! How many workers there are.

use super::life::{Life, blue_green, policy, seconds};
use crate::policy::*;

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

#[test]
fn a_request_for_a_size_is_answered_when_the_added_workers_are_ready() {
    let mut life = Life::serving(1);
    let ticket = life.ask_for_answer(Ask::Scale(3));
    let booting = life.booting();
    life.worker_ready(booting[0]);
    assert!(!life.answers.contains_key(&ticket));
    life.worker_ready(booting[1]);
    assert_eq!(life.answers[&ticket], Answer::Done("3 workers".to_owned()));
}

#[test]
fn a_pool_gets_smaller_at_once_even_while_one_of_its_workers_is_missing() {
    let mut life = Life::serving(3);
    let worker = life.ready()[0];
    life.dies(worker);
    let ticket = life.ask_for_answer(Ask::Scale(2));
    assert!(life.is_done(ticket));
    assert_eq!(life.drained.len(), 1);
}

#[test]
fn a_size_that_there_cannot_be_is_refused() {
    let mut life = Life::serving_by(Policy { max_workers: 4, ..policy(4) });
    for ask in [Ask::Scale(0), Ask::Scale(5), Ask::ScaleUp] {
        let ticket = life.ask_for_answer(ask);
        assert!(life.is_refused(ticket), "{ask:?}");
    }
}

#[test]
fn scaling_that_fails_to_boot_goes_back_and_says_so() {
    let mut life = Life::serving(2);
    let ticket = life.ask_for_answer(Ask::Scale(4));
    let booting = life.booting();
    life.worker_ready(booting[0]);
    life.breaks(booting[1]);
    life.obey();
    assert!(life.is_failed(ticket));
    assert_eq!((life.ready().len(), life.machine.target(), life.slots), (2, 2, 2));
    assert_eq!(
        life.told(|notice| matches!(notice, Notice::Scale(ScaleNotice::Failed { from: 4, to: 2, .. }))),
        0
    );
    assert_eq!(
        life.told(|notice| matches!(notice, Notice::Scale(ScaleNotice::Failed { from: 2, to: 4, .. }))),
        1
    );
}

#[test]
fn scaling_twice_before_the_first_has_arrived_goes_back_to_what_there_really_was() {
    let mut life = Life::serving(1);
    let first = life.ask_for_answer(Ask::Scale(2));
    let second = life.ask_for_answer(Ask::Scale(3));
    let booting = life.booting();
    life.breaks(booting[0]);
    life.obey();
    assert!(life.is_superseded(first) && life.is_failed(second));
    assert_eq!((life.ready().len(), life.machine.target()), (1, 1));
}

#[test]
fn a_new_worker_that_is_recycled_while_others_boot_does_not_undo_the_scaling() {
    let mut life = Life::serving(1);
    let ticket = life.ask_for_answer(Ask::Scale(3));
    let [added, last] = life.booting()[..] else { panic!("two are added") };
    life.worker_ready(added);
    life.ask(Ask::Recycle(1));
    let successor = life.booting().into_iter().find(|worker| *worker != last).unwrap();
    life.breaks(successor);
    life.worker_ready(last);
    assert!(life.is_done(ticket));
    assert_eq!(life.ready().len(), 3);
}

#[test]
fn slots_that_a_reload_added_are_left_when_scaling_says_so() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    life.ask(Ask::Scale(1));
    life.all_ready();
    life.obey();
    assert_eq!((life.phase(), life.living.len(), life.slots), ("serving", 1, 1));
}

#[test]
fn a_worker_that_leaves_a_slot_has_siblings_that_go_on() {
    let mut life = Life::serving(2);
    life.ask(Ask::ScaleDown);
    assert_eq!(life.drained.values().copied().collect::<Vec<_>>(), [Drain::Retire]);
}

#[test]
fn a_stop_answers_requests_that_wait_for_a_size() {
    let mut life = Life::serving(1);
    let ticket = life.ask_for_answer(Ask::Scale(2));
    life.ask(Ask::Stop(StopMode::Quick));
    assert!(life.is_superseded(ticket));
    life.pass(seconds(1));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_pool_begins_within_its_bound_and_has_listeners_for_it() {
    let life = Life::start(Policy { max_workers: 3, ..policy(5) });
    assert_eq!((life.booting().len(), life.slots), (3, 3));
}
