//! Workers that are replaced before anything is wrong with them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::life::{Life, policy, seconds};
use crate::policy::*;

fn by(recycling: Recycling, workers: usize) -> Policy {
    Policy { recycling, ..policy(workers) }
}

#[allow(clippy::unnecessary_wraps, reason = "it is a setting")]
fn limit<T>(base: T, jitter: T) -> Option<Limit<T>> {
    Some(Limit { base, jitter })
}

#[test]
fn the_successor_is_ready_before_the_old_worker_is_asked_to_finish() {
    let mut life = Life::serving(2);
    (life.most, life.fewest_ready) = (0, usize::MAX);
    let old = life.ready()[1];
    let ticket = life.ask_for_answer(Ask::Recycle(1));
    assert_eq!((life.booting().len(), life.drained.len()), (1, 0));
    life.all_ready();
    assert_eq!(life.drained.keys().copied().collect::<Vec<_>>(), [old]);
    assert!(life.is_done(ticket));
    assert_eq!((life.most, life.fewest_ready), (3, 2));
}

#[test]
fn one_worker_is_replaced_at_a_time_and_the_next_follows_at_once() {
    let mut life = Life::serving(3);
    let tickets = [0, 1, 2].map(|slot| life.ask_for_answer(Ask::Recycle(slot)));
    for recycled in 1..=3 {
        assert_eq!(life.booting().len(), 1);
        life.all_ready();
        assert_eq!(life.drained.len(), recycled);
    }
    assert!(life.booting().is_empty() && tickets.into_iter().all(|ticket| life.is_done(ticket)));
}

#[test]
fn a_slot_that_does_not_exist_is_refused() {
    let mut life = Life::serving(2);
    let ticket = life.ask_for_answer(Ask::Recycle(2));
    assert_eq!(life.answers[&ticket], Answer::Refused("there is no slot 2: they are 0 to 1".to_owned()));
}

#[test]
fn a_slot_that_waits_is_filled_now_when_an_operator_asks_and_the_outcome_is_the_answer() {
    let mut life = Life::serving(2);
    let worker = life.ready()[0];
    life.dies(worker);
    let failing = life.booting()[0];
    life.breaks(failing);
    let Wait { why, until } = life.machine.wait_of(0).expect("it waits");
    assert_eq!((why, until.is_some_and(|at| at > life.now)), (Vacancy::FailedBoots(1), true));
    assert!(life.booting().is_empty());
    let fails = life.ask_for_answer(Ask::Recycle(0));
    let failing = life.booting()[0];
    life.breaks(failing);
    assert!(life.is_failed(fails));
    let works = life.ask_for_answer(Ask::Recycle(0));
    // It boots already.
    let joins = life.ask_for_answer(Ask::Recycle(0));
    assert_eq!((life.booting().len(), life.machine.wait_of(0)), (1, None));
    life.all_ready();
    assert!(life.is_done(works) && life.is_done(joins));
}

#[test]
fn a_successor_that_fails_leaves_the_old_worker_and_is_tried_again_later() {
    let mut life = Life::serving(1);
    let old = life.ready();
    let ticket = life.ask_for_answer(Ask::Recycle(0));
    let successor = life.booting()[0];
    life.breaks(successor);
    assert!(life.is_failed(ticket));
    assert_eq!((life.ready(), life.booting().len()), (old.clone(), 0));
    life.live(seconds(29));
    assert!(life.booting().is_empty());
    life.live(seconds(1));
    life.all_ready();
    assert_eq!(life.drained.keys().copied().collect::<Vec<_>>(), old);
}

#[test]
fn a_request_does_not_wait_until_a_failed_replacement_is_tried_again() {
    let mut life = Life::serving(2);
    life.ask(Ask::Recycle(0));
    let successor = life.booting()[0];
    life.breaks(successor);
    let ticket = life.ask_for_answer(Ask::Recycle(1));
    life.all_ready();
    assert!(life.is_done(ticket));
}

#[test]
fn a_reload_replaces_workers_that_were_to_be_recycled_and_one_that_fails_postpones_it() {
    let mut life = Life::serving(2);
    let old = life.ready();
    let ticket = life.ask_for_answer(Ask::Recycle(0));
    let successor = life.booting()[0];
    life.reload();
    assert!(life.is_superseded(ticket) && life.killed.contains(&successor));
    life.obey();
    let later = life.ask_for_answer(Ask::Recycle(1));
    assert_eq!(
        life.told(|notice| matches!(notice, Notice::Recycle(RecycleNotice::Postponed { slot: 1, .. }))),
        1
    );
    let newcomer = life.booting()[0];
    life.breaks(newcomer);
    // The marks are left over.
    for _ in 0..2 {
        life.all_ready();
    }
    assert!(life.is_done(later));
    assert_eq!(life.drained.keys().copied().collect::<Vec<_>>(), old);
}

#[test]
fn a_reload_that_succeeds_answers_requests_for_another_worker_meanwhile() {
    let mut life = Life::serving(1);
    life.reload();
    let ticket = life.ask_for_answer(Ask::Recycle(0));
    life.all_ready();
    assert!(life.is_done(ticket));
    assert_eq!(life.spawns, 2);
}

#[test]
fn an_old_worker_that_dies_or_leaves_while_its_successor_boots_is_not_replaced_twice() {
    for leaves in [false, true] {
        let mut life = Life::serving(1);
        let old = life.ready()[0];
        let ticket = life.ask_for_answer(Ask::Recycle(0));
        match leaves {
            true => life.step(Event::Leaving { worker: old, reason: "tired".to_owned() }),
            false => life.dies(old),
        }
        life.all_ready();
        life.obey();
        assert_eq!((life.ready().len(), life.spawns), (1, 2));
        assert!(life.is_done(ticket));
    }
}

#[test]
fn a_slot_that_loses_both_its_old_worker_and_the_successor_is_filled_like_any() {
    let mut life = Life::serving(1);
    let old = life.ready()[0];
    life.ask(Ask::Recycle(0));
    life.dies(old);
    let successor = life.booting()[0];
    life.dies(successor);
    life.live(seconds(1));
    life.all_ready();
    assert_eq!((life.ready().len(), life.spawns), (1, 3));
}

#[test]
fn scaling_a_slot_away_ends_its_recycling() {
    let mut life = Life::serving(2);
    let ticket = life.ask_for_answer(Ask::Recycle(1));
    life.ask(Ask::ScaleDown);
    life.obey();
    assert!(life.is_done(ticket));
    assert_eq!((life.ready().len(), life.living.len()), (1, 1));
}

#[test]
fn each_workers_limits_are_drawn_once_from_its_base_and_up_to_its_jitter() {
    let recycling = Recycling {
        requests: limit(1000, 500),
        lifetime: limit(seconds(100), seconds(50)),
        rss: limit(1 << 30, 1 << 20),
    };
    let mut life = Life::serving_by(by(recycling, 40));
    let drawn = |life: &Life| life.machine.table().iter().map(|entry| entry.allowance).collect::<Vec<_>>();
    let before = drawn(&life);
    assert!(before.iter().map(|allowance| allowance.requests).collect::<BTreeSet<_>>().len() > 10);
    for allowance in &before {
        assert!((1000..=1500).contains(&allowance.requests.unwrap()));
        assert!((seconds(100)..=seconds(150)).contains(&allowance.lifetime.unwrap()));
        assert!((1 << 30..=(1 << 30) + (1 << 20)).contains(&allowance.rss.unwrap()));
    }
    life.live(seconds(10));
    assert_eq!(drawn(&life), before);
}

#[test]
fn a_limit_below_a_unit_is_none() {
    let lifetime = limit(Duration::from_micros(500), seconds(9));
    let recycling = Recycling { requests: limit(0, 9), lifetime, rss: limit(0, 9) };
    let mut life = Life::serving_by(by(recycling, 2));
    let old = life.ready();
    life.live(seconds(20));
    life.step(Event::Enough { worker: old[0], requests: 1 });
    life.step(Event::Memory(old.iter().map(|worker| (*worker, 1 << 30)).collect()));
    assert_eq!((life.ready(), life.booting()), (old, Vec::new()));
}

#[test]
fn a_worker_that_has_lived_long_enough_is_replaced() {
    let recycling = Recycling { lifetime: limit(seconds(100), Duration::ZERO), ..Recycling::default() };
    let mut life = Life::serving_by(by(recycling, 1));
    let old = life.ready()[0];
    for _ in 0..10 {
        assert!(life.booting().is_empty());
        life.live(seconds(10));
    }
    assert_eq!(life.booting().len(), 1);
    life.all_ready();
    assert!(life.drained.contains_key(&old));
}

#[test]
fn a_worker_that_uses_too_much_memory_is_replaced() {
    let recycling = Recycling { rss: limit(100 << 20, 0), ..Recycling::default() };
    let mut life = Life::serving_by(by(recycling, 2));
    assert_eq!(life.measures, 1);
    life.live(seconds(1));
    assert_eq!(life.measures, 2);
    let [lean, fat] = life.ready()[..] else { panic!("two serve") };
    life.step(Event::Memory(vec![(lean, 100 << 20), (fat, 101 << 20)]));
    life.all_ready();
    assert_eq!(life.drained.keys().copied().collect::<Vec<_>>(), [fat]);
}

#[test]
fn a_worker_that_has_served_enough_is_replaced_even_if_it_says_so_during_a_reload_that_fails() {
    let recycling = Recycling { requests: limit(10, 0), ..Recycling::default() };
    let mut life = Life::serving_by(by(recycling, 1));
    life.settings = super::life::Settings::New(policy(1));
    life.reload();
    let old = life.ready()[0];
    life.step(Event::Enough { worker: old, requests: 10 });
    let newcomer = life.booting()[0];
    life.breaks(newcomer);
    life.all_ready();
    assert!(life.drained.contains_key(&old));
}
