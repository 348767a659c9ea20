//! Another image of the supervisor in this one's place.

use super::life::{Exec, Life, SECOND, policy, preloading, seconds};
use crate::policy::*;

fn checked(life: &mut Life, exec: Exec) {
    assert!(std::mem::take(&mut life.checks_image));
    life.exec = exec;
    let before = life.execs;
    life.step(Event::ImageChecked);
    assert_eq!(life.execs, before, "what else has happened in this round must be heard first");
    life.step(Event::Tick);
}

#[test]
fn an_image_that_can_take_over_does_and_answers_the_request() {
    let mut life = Life::serving(2);
    let workers = life.ready();
    let ticket = life.ask_for_answer(Ask::Upgrade);
    assert_eq!((life.phase(), life.execs), ("upgrading", 0));
    checked(&mut life, Exec::Succeeds);
    assert_eq!(life.answers[&ticket], Answer::Done("1 to 2".to_owned()));
    assert_eq!((life.phase(), life.ready(), life.execs), ("serving", workers, 1));
    assert_eq!(life.told(|notice| *notice == Notice::Upgrade(UpgradeNotice::Done { workers: 2 })), 1);
    // It is a supervisor like any other.
    let worker = life.ready()[0];
    life.dies(worker);
    life.all_ready();
    let again = life.ask_for_answer(Ask::Upgrade);
    checked(&mut life, Exec::Succeeds);
    assert!(life.is_done(again));
}

#[test]
fn one_that_cannot_or_that_crashes_leaves_this_one_and_the_answer_says_why() {
    for exec in [Exec::Fails, Exec::FallsBack] {
        let mut life = Life::serving(2);
        let workers = life.ready();
        let ticket = life.ask_for_answer(Ask::Upgrade);
        checked(&mut life, exec);
        assert!(life.is_failed(ticket));
        assert_eq!((life.phase(), life.ready()), ("serving", workers));
        assert_eq!(life.told(|notice| matches!(notice, Notice::Upgrade(UpgradeNotice::Failed { .. }))), 1);
    }
}

#[test]
fn an_image_that_does_not_answer_in_time_has_failed_and_its_answer_is_not_heard_any_more() {
    let mut life = Life::serving(1);
    let ticket = life.ask_for_answer(Ask::Upgrade);
    life.live(seconds(29));
    assert_eq!(life.phase(), "upgrading");
    life.live(SECOND);
    assert!(life.is_failed(ticket));
    checked(&mut life, Exec::Succeeds);
    assert_eq!((life.phase(), life.execs), ("serving", 0));
}

#[test]
fn an_upgrade_waits_until_nothing_else_is_under_way() {
    let mut life = Life::start(policy(2));
    let ticket = life.ask_for_answer(Ask::Upgrade);
    assert_eq!(life.told(|notice| *notice == Notice::Upgrade(UpgradeNotice::Postponed)), 1);
    life.all_ready();
    assert_eq!(life.phase(), "upgrading");
    checked(&mut life, Exec::Fails);
    assert!(life.is_failed(ticket));
    life.reload();
    life.ask(Ask::Upgrade);
    assert_eq!(life.phase(), "reloading");
    while !life.booting().is_empty() {
        life.all_ready();
    }
    assert_eq!(life.phase(), "upgrading");
    checked(&mut life, Exec::Fails);
    for slot in [0, 1] {
        life.ask(Ask::Recycle(slot));
    }
    life.ask(Ask::Upgrade);
    assert_eq!(life.phase(), "serving");
    life.all_ready();
    assert_eq!(life.phase(), "upgrading", "the other recycling waits");
}

#[test]
fn what_waits_behind_an_upgrade_begins_when_it_fails_at_its_deadline() {
    let mut life = Life::serving(1);
    life.ask(Ask::Upgrade);
    let ticket = life.reload();
    assert_eq!(life.phase(), "upgrading");
    life.live(seconds(30));
    assert_eq!(life.phase(), "reloading");
    life.all_ready();
    assert!(life.is_done(ticket));
}

#[test]
fn what_waits_behind_an_upgrade_goes_on_in_the_new_image() {
    let mut life = Life::serving(2);
    life.ask(Ask::Upgrade);
    let scale = life.ask_for_answer(Ask::Scale(3));
    let recycle = life.ask_for_answer(Ask::Recycle(0));
    let reload = life.reload();
    life.step(Event::Changed { reason: "server.py".to_owned() });
    checked(&mut life, Exec::Succeeds);
    assert_eq!(life.phase(), "reloading");
    life.live(seconds(1));
    for _ in 0..8 {
        life.all_ready();
        life.obey();
    }
    assert!(life.answers.contains_key(&recycle) && life.is_done(scale) && life.answers.contains_key(&reload));
    assert_eq!((life.ready().len(), life.machine.target(), life.machine.current()), (3, 3, 3));
}

#[test]
fn a_worker_that_was_to_be_recycled_still_is_in_the_new_image() {
    let mut life = Life::serving(1);
    let old = life.ready()[0];
    life.ask(Ask::Upgrade);
    let ticket = life.ask_for_answer(Ask::Recycle(0));
    checked(&mut life, Exec::Succeeds);
    life.all_ready();
    assert!(life.is_done(ticket) && life.drained.contains_key(&old));
}

#[test]
fn deadlines_are_kept_by_the_new_image() {
    let mut life = Life::serving(2);
    life.live(seconds(20));
    let [leaving, dying] = life.ready()[..] else { panic!("two serve") };
    life.step(Event::Leaving { worker: leaving, reason: "tired".to_owned() });
    life.all_ready();
    life.dies(dying);
    let booting = life.booting();
    life.live(seconds(10));
    life.ask(Ask::Upgrade);
    checked(&mut life, Exec::Succeeds);
    assert_eq!(life.booting(), booting);
    life.live(seconds(20));
    assert_eq!(life.killed.iter().copied().collect::<Vec<_>>(), [leaving]);
    life.live(seconds(30));
    assert_eq!(life.killed.len(), 2, "a boot timeout");
}

#[test]
fn the_new_image_keeps_the_mold_and_the_number_of_workers() {
    let mut life = Life::serving_by(preloading(1));
    life.ask(Ask::Scale(2));
    life.all_ready();
    let mold = *life.molds.keys().next().unwrap();
    life.ask(Ask::Upgrade);
    checked(&mut life, Exec::Succeeds);
    assert_eq!((life.machine.target(), life.molds.len()), (2, 1));
    let worker = life.ready()[0];
    life.dies(worker);
    assert_eq!(life.machine.table().get(life.booting()[0]).unwrap().mold, Some(mold));
}

#[test]
fn no_fork_is_asked_for_and_not_answered_when_the_new_image_takes_over() {
    let mut life = Life::serving_by(preloading(1));
    life.forks_later = true;
    life.ask(Ask::Upgrade);
    life.ask(Ask::ScaleUp);
    checked(&mut life, Exec::Succeeds);
    assert_eq!(life.execs, 0);
    let unforked = *life.unforked.keys().next().unwrap();
    life.answer_fork(unforked);
    life.step(Event::Tick);
    assert_eq!((life.execs, life.booting().len()), (1, 1));
}

#[test]
fn an_image_that_can_take_over_is_not_blamed_for_a_fork_that_is_not_answered() {
    let mut life = Life::serving_by(preloading(1));
    life.forks_later = true;
    let ticket = life.ask_for_answer(Ask::Upgrade);
    life.ask(Ask::ScaleUp);
    checked(&mut life, Exec::Succeeds);
    life.live(seconds(30));
    let Answer::Failed { reason, .. } = &life.answers[&ticket] else { panic!("{:?}", life.answers[&ticket]) };
    assert!(reason.starts_with("the new image could take over, but"), "{reason}");
    assert_eq!((life.phase(), life.execs), ("serving", 0));
}

#[test]
fn a_stop_during_an_upgrade_ends_this_one_and_no_other_takes_over() {
    let mut life = Life::serving(1);
    let ticket = life.ask_for_answer(Ask::Upgrade);
    life.ask(Ask::Stop(StopMode::Graceful));
    assert!(life.is_superseded(ticket));
    checked(&mut life, Exec::Succeeds);
    life.obey();
    assert_eq!((life.execs, life.outcome), (0, Some(Outcome::Stopped)));
}

#[test]
fn several_requests_for_an_upgrade_are_answered_by_the_same_one() {
    let mut life = Life::serving(1);
    let first = life.ask_for_answer(Ask::Upgrade);
    let second = life.ask_for_answer(Ask::Upgrade);
    checked(&mut life, Exec::Succeeds);
    assert!(life.is_done(first) && life.is_done(second));
    assert_eq!(life.execs, 1);
}

#[test]
fn a_suspended_supervisor_does_not_blame_the_new_image() {
    let mut life = Life::serving(1);
    life.ask(Ask::Upgrade);
    life.now += seconds(3600);
    life.step(Event::Late { by: seconds(3590) });
    assert_eq!(life.phase(), "upgrading");
}
