//! How a pool ends.

use std::collections::BTreeSet;

use super::life::{Life, MILLISECOND, blue_green, policy, preloading, seconds};
use crate::policy::stops::SAME_ORDER;
use crate::policy::*;

#[test]
fn a_graceful_stop_drains_and_ends() {
    let mut life = Life::serving(2);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!(life.drained.len(), 2);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_worker_that_does_not_finish_is_killed_at_the_deadline_and_admitted() {
    let mut life = Life::serving(2);
    life.ask(Ask::Stop(StopMode::Graceful));
    let worker = *life.drained.keys().next().unwrap();
    life.exit(worker, ExitStatus::Code(0));
    life.pass(seconds(30));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Forced { killed: 1 }));
}

#[test]
fn each_further_stop_is_faster() {
    let mut life = Life::serving(2);
    life.ask(Ask::Stop(StopMode::Graceful));
    life.pass(SAME_ORDER);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!((life.quit.len(), life.killed.len()), (2, 0));
    life.pass(SAME_ORDER);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!(life.killed.len(), 2);
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn the_same_stop_again_in_a_moment_is_the_same_stop_and_a_quicker_one_is_another() {
    let mut life = Life::serving(2);
    let first = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    life.pass(SAME_ORDER - MILLISECOND);
    let again = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    assert_eq!((life.drained.len(), life.quit.len()), (2, 0));
    life.ask(Ask::Stop(StopMode::Quick));
    assert_eq!((life.quit.len(), life.killed.len()), (2, 0));
    // Neither the same again nor a slower one is faster.
    life.ask(Ask::Stop(StopMode::Quick));
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!(life.killed.len(), 0);
    life.obey();
    assert!(life.is_done(first) && life.is_done(again));
}

#[test]
fn a_worker_that_cannot_be_killed_does_not_keep_the_pool_from_ending_and_is_named() {
    let mut life = Life::serving(2);
    let stop = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    let [frozen, other] = life.drained.keys().copied().collect::<Vec<_>>()[..] else { panic!() };
    life.exit(other, ExitStatus::Code(0));
    life.pass(seconds(30));
    assert_eq!(life.killed, BTreeSet::from([frozen]));
    life.pass(seconds(5));
    assert_eq!(life.outcome, Some(Outcome::Unkillable { left: 1 }));
    let pid = life.machine.table().get(frozen).unwrap().pid.unwrap();
    let Some(Answer::Failed { reason, .. }) = life.answers.get(&stop) else { panic!() };
    assert!(reason.contains(&format!("pid {pid}")), "{reason}");
}

#[test]
fn a_mold_that_cannot_be_killed_does_not_keep_the_pool_from_ending() {
    let mut life = Life::serving_by(preloading(1));
    life.ask(Ask::Stop(StopMode::Graceful));
    let worker = life.ready().first().copied().or(life.drained.keys().next().copied()).unwrap();
    life.exit(worker, ExitStatus::Code(0));
    life.pass(seconds(5));
    assert_eq!(life.outcome, Some(Outcome::Unkillable { left: 1 }));
}

#[test]
fn a_stop_during_the_start_or_a_reload_kills_workers_that_boot_and_drains_those_that_serve() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!((life.killed.len(), life.drained.len()), (2, 2));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
    let mut life = Life::start(policy(2));
    life.ask(Ask::Stop(StopMode::Quick));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

fn lame(workers: usize) -> Policy {
    Policy { drain_delay: seconds(5), ..policy(workers) }
}

#[test]
fn a_pool_that_is_to_stop_serves_on_for_a_while_and_says_that_it_will_end() {
    let mut life = Life::serving_by(lame(2));
    let ticket = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    assert_eq!((life.phase(), life.lame_ducks.len(), life.drained.len()), ("lame duck", 2, 0));
    let refused = life.ask_for_answer(Ask::Reload);
    assert!(life.is_refused(refused));
    life.live(seconds(5));
    assert_eq!((life.phase(), life.drained.len()), ("stopping", 2));
    life.obey();
    assert!(life.is_done(ticket));
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_worker_that_dies_in_that_while_is_replaced_and_its_successor_says_it_as_well() {
    let mut life = Life::serving_by(lame(2));
    life.ask(Ask::Stop(StopMode::Graceful));
    let worker = life.ready()[0];
    life.dies(worker);
    life.all_ready();
    assert_eq!((life.ready().len(), life.lame_ducks.len()), (2, 3));
}

#[test]
fn a_second_stop_in_that_while_begins_the_end() {
    for (ask, quits) in [(Ask::Stop(StopMode::Graceful), 0), (Ask::Stop(StopMode::Quick), 2)] {
        let mut life = Life::serving_by(lame(2));
        let first = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
        life.pass(SAME_ORDER);
        let second = life.ask_for_answer(ask);
        assert_eq!((life.phase(), life.drained.len(), life.quit.len()), ("stopping", 2, quits));
        life.obey();
        assert!(life.is_done(first) && life.is_done(second));
    }
}

#[test]
fn a_reload_under_way_when_that_while_begins_is_withdrawn_without_a_loss_of_capacity() {
    let mut life = Life::serving_by(lame(3));
    let ticket = life.reload();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert!(life.is_superseded(ticket));
    life.obey();
    assert_eq!((life.booting().len(), life.generations()), (0, vec![2, 1, 1]));
}

#[test]
fn a_stop_answers_requests_that_wait_for_anything_else() {
    let mut life = Life::serving(2);
    let tickets =
        [Ask::Recycle(1), Ask::Scale(3), Ask::Upgrade, Ask::Reload].map(|ask| life.ask_for_answer(ask));
    let reload = life.reload();
    life.ask(Ask::Stop(StopMode::Graceful));
    assert!(tickets.into_iter().chain([reload]).all(|ticket| life.is_superseded(ticket)));
}

#[test]
fn a_worker_whose_boot_has_failed_does_not_keep_a_pool_from_ending() {
    let mut life = Life::serving(2);
    let worker = life.ready()[0];
    life.dies(worker);
    let stuck = life.booting()[0];
    life.boot_fails(stuck, crate::error::ErrorKind::Boot);
    life.ask(Ask::Stop(StopMode::Quick));
    life.pass(seconds(1));
    life.reap_killed();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn a_worker_that_may_have_clients_finishes_if_it_is_given_up_while_it_boots() {
    let mut life = Life::new(policy(1));
    life.serves_while_booting();
    life.begin();
    life.all_ready();
    for ask in [Ask::Reload, Ask::Stop(StopMode::Graceful)] {
        life.pass(seconds(2));
        life.ask(Ask::Reload);
        let booting = life.booting();
        assert_eq!(booting.len(), 1);
        life.pass(seconds(2));
        life.ask(ask);
        assert!(booting.iter().all(|worker| life.drained.contains_key(worker)), "{ask:?}");
        assert!(life.killed.is_empty());
        life.obey();
    }
    assert_eq!(life.outcome, Some(Outcome::Stopped));
    assert!(!life.notices.iter().any(|notice| matches!(notice, Notice::Worker(WorkerNotice::Died { .. }))));
}

#[test]
fn a_stop_ends_molds_and_workers_that_they_have_not_forked_yet() {
    let mut life = Life::serving_by(preloading(2));
    life.forks_later = true;
    let worker = life.ready()[0];
    life.dies(worker);
    assert_eq!(life.unforked.len(), 1);
    life.ask(Ask::Stop(StopMode::Graceful));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}

#[test]
fn the_end_of_the_program_begins_a_stop_and_hurries_none() {
    let mut life = Life::serving(2);
    life.ask(Ask::StopWithProgram);
    assert_eq!(life.drained.len(), 2);
    life.pass(SAME_ORDER);
    // The first request joins the stop, and only the next one hurries it.
    let stop = life.ask_for_answer(Ask::Stop(StopMode::Graceful));
    life.pass(SAME_ORDER);
    life.ask(Ask::StopWithProgram);
    assert_eq!((life.quit.len(), life.killed.len()), (0, 0));
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!((life.quit.len(), life.killed.len()), (2, 0));
    life.pass(SAME_ORDER);
    life.ask(Ask::StopWithProgram);
    assert_eq!(life.killed.len(), 0);
    life.obey();
    assert!(life.is_done(stop));
}

#[test]
fn the_end_of_the_program_does_not_shorten_the_lame_duck_phase() {
    let mut life = Life::serving_by(Policy { drain_delay: seconds(3), ..policy(2) });
    life.ask(Ask::Stop(StopMode::Graceful));
    life.pass(SAME_ORDER);
    life.ask(Ask::StopWithProgram);
    assert_eq!(life.phase(), "lame duck");
    let mut life = Life::serving_by(Policy { drain_delay: seconds(3), ..policy(2) });
    life.ask(Ask::StopWithProgram);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert_eq!(life.phase(), "lame duck");
    life.pass(seconds(3));
    life.obey();
    assert_eq!(life.outcome, Some(Outcome::Stopped));
}
