//! Reloads: how a new generation takes over, and how it does not.

use std::time::Duration;

use super::life::{Life, SECOND, Settings, blue_green, plan, policy, preloading, seconds};
use crate::error::ErrorKind;
use crate::policy::*;

#[test]
fn a_reload_retires_the_old_generation_when_the_new_one_is_whole() {
    let mut life = Life::serving_by(blue_green(2));
    let old = life.ready();
    life.reload();
    let new = life.booting();
    assert_eq!(new.len(), 2);
    life.step(Event::Ready { worker: new[0] });
    assert!(life.drained.is_empty());
    life.step(Event::Ready { worker: new[1] });
    assert_eq!(life.drained.keys().copied().collect::<Vec<_>>(), old);
    life.obey();
    assert_eq!((life.ready(), life.machine.current()), (new, 2));
}

#[test]
fn a_reload_that_fails_in_any_way_leaves_the_old_generation_serving() {
    type Blow = fn(&mut Life, WorkerId);
    let blows: [Blow; 4] = [
        |life, worker| life.boot_fails(worker, ErrorKind::Application),
        |life, worker| life.exit(worker, ExitStatus::Signal(11)),
        |life, _| life.pass(seconds(60)),
        |life, worker| {
            life.step(Event::Ready { worker });
            life.exit(worker, ExitStatus::Code(1));
        },
    ];
    for blow in blows {
        // Beats go on in real life; here only the boot counts.
        let mut life = Life::start(Policy { timeout: None, ..blue_green(2) });
        life.all_ready();
        let old = life.ready();
        life.reload();
        let first = life.booting()[0];
        blow(&mut life, first);
        life.obey();
        for worker in life.living.clone().into_keys().filter(|worker| !old.contains(worker)) {
            life.exit(worker, ExitStatus::Code(4));
        }
        assert_eq!((life.ready(), life.phase()), (old, "serving"));
        assert_eq!(life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::Failed { .. }))), 1);
        life.reload();
        life.all_ready();
        assert_eq!(life.phase(), "serving");
        assert_eq!(life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::Done { .. }))), 1);
    }
}

#[test]
fn the_last_error_of_a_new_worker_is_the_reason_of_a_failed_reload() {
    let mut life = Life::serving_by(blue_green(2));
    let ticket = life.reload();
    let new = life.booting()[0];
    life.step(Event::Ready { worker: new });
    let error = LastError { summary: "the queue is gone".to_owned(), detail: Some("line 7".to_owned()) };
    life.ends_with(new, ExitStatus::Code(1), Evidence { error: Some(error), ..Evidence::default() });
    let Answer::Failed { reason, detail } = &life.answers[&ticket] else { panic!() };
    assert!(reason.contains("soon after it was ready: exit code 1: the queue is gone; the old"), "{reason}");
    assert_eq!(detail.as_deref(), Some("line 7"));
}

#[test]
fn an_old_worker_that_dies_during_a_reload_is_replaced_by_one_of_its_own_generation() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    let old = life.ready()[0];
    life.exit(old, ExitStatus::Signal(9));
    let generations: Vec<_> = life.booting().iter().map(|worker| life.living[worker].0).collect();
    assert_eq!(generations, [2, 2, 1]);
    assert!(life.phase() == "reloading");
}

#[test]
fn a_newer_reload_supersedes_one_that_hangs_but_a_storm_of_them_is_bounded() {
    let mut life = Life::serving_by(blue_green(2));
    life.reload();
    for _ in 0..100 {
        life.reload();
    }
    assert_eq!(life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::Begun { .. }))), 1);
    life.pass(SECOND);
    assert_eq!(
        life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::Superseded { generation: 2 }))),
        1
    );
    life.obey();
    assert_eq!(life.living.len(), 4);
    life.all_ready();
    assert_eq!(life.machine.current(), 3);
}

#[test]
fn reloads_wait_while_too_many_generations_still_drain() {
    let mut life = Life::serving_by(blue_green(1));
    for _ in 0..2 {
        life.reload();
        life.all_ready();
    }
    life.reload();
    assert_eq!((life.phase(), life.living.len()), ("serving", 3));
    life.obey();
    assert!(life.phase() == "reloading");
}

fn soaking(workers: usize, retries: usize) -> Policy {
    Policy { plan: Plan { surge: Surge::Extra(1), soak: seconds(5), retries }, ..policy(workers) }
}

/// Workers that boot are ready, one after the other, until none boots; those that drain end.
fn roll(life: &mut Life) {
    while !life.booting().is_empty() || !life.booting_molds().is_empty() {
        life.molds_ready();
        if let Some(&worker) = life.booting().first() {
            life.worker_ready(worker);
        }
        life.obey();
    }
}

/// A reload of three workers, the first slot of which has a new worker.
fn half_way() -> (Life, Ticket) {
    let mut life = Life::serving(3);
    let ticket = life.reload();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.obey();
    assert_eq!((life.phase(), life.generations()), ("reloading", vec![2, 1, 1]));
    (life, ticket)
}

#[test]
fn with_a_surge_of_one_there_is_never_more_than_one_worker_more_and_never_one_fewer() {
    let mut life = Life::serving(4);
    (life.most, life.fewest_ready) = (0, usize::MAX);
    let ticket = life.reload();
    roll(&mut life);
    assert!(life.is_done(ticket));
    assert_eq!((life.most, life.fewest_ready, life.generations()), (5, 4, vec![2; 4]));
}

#[test]
fn the_first_worker_must_live_through_the_soak_before_the_next_boots() {
    let mut life = Life::serving_by(soaking(3, 0));
    life.reload();
    life.all_ready();
    life.live(Duration::from_millis(4900));
    assert_eq!((life.booting().len(), life.drained.len()), (0, 0));
    life.live(Duration::from_millis(100));
    assert_eq!((life.booting().len(), life.drained.len()), (1, 1));
    // The others need not: the code has proved itself.
    life.all_ready();
    assert_eq!((life.booting().len(), life.drained.len()), (1, 2));
}

#[test]
fn one_that_dies_during_the_soak_fails_the_reload_with_the_reason_and_no_worker_was_retired() {
    let mut life = Life::serving_by(soaking(3, 0));
    let old = life.ready();
    let ticket = life.reload();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.live(SECOND);
    life.dies(first);
    assert!(
        matches!(&life.answers[&ticket], Answer::Failed { reason, .. } if reason.contains("soon after it was ready"))
    );
    assert_eq!((life.ready(), life.drained.len(), life.discarded.clone()), (old, 0, vec![2]));
}

#[test]
fn the_answer_to_a_reload_that_fails_has_the_traceback() {
    let mut life = Life::serving(2);
    let ticket = life.reload();
    let first = life.booting()[0];
    life.breaks(first);
    let reason = "broken; the old generation goes on serving".to_owned();
    assert_eq!(life.answers[&ticket], Answer::Failed { reason, detail: Some("line 7".to_owned()) });
    assert!(life.broken.is_empty(), "only in development are workers told");
}

#[test]
fn in_development_the_old_workers_get_the_reason_of_the_failure() {
    let mut life = Life::serving_by(Policy { development: true, ..policy(2) });
    let old = life.ready();
    life.reload();
    let first = life.booting()[0];
    life.breaks(first);
    assert_eq!(life.broken.into_iter().collect::<Vec<_>>(), old);
}

#[test]
fn a_failure_after_some_have_retired_gives_each_slot_back_when_an_old_one_is_ready_there() {
    let (mut life, ticket) = half_way();
    life.fewest_ready = usize::MAX;
    let second = life.booting()[0];
    life.breaks(second);
    assert!(life.is_failed(ticket));
    assert_eq!((life.phase(), life.generations()), ("rolling back", vec![2, 1, 1]));
    roll(&mut life);
    assert_eq!((life.phase(), life.generations()), ("serving", vec![1, 1, 1]));
    assert_eq!((life.fewest_ready, life.discarded.clone()), (3, vec![2]));
    assert_eq!(life.told(|notice| *notice == Notice::Reload(ReloadNotice::RolledBack)), 1);
}

#[test]
fn a_rollback_that_cannot_boot_keeps_the_new_worker_and_the_next_reload_makes_all_alike() {
    let (mut life, _) = half_way();
    let second = life.booting()[0];
    life.breaks(second);
    let returning = life.booting()[0];
    life.breaks(returning);
    assert_eq!((life.phase(), life.generations()), ("serving", vec![2, 1, 1]));
    assert_eq!(life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::RollbackFailed { .. }))), 1);
    let ticket = life.reload();
    roll(&mut life);
    assert!(life.is_done(ticket));
    assert_eq!(life.generations(), [3, 3, 3]);
}

#[test]
fn a_worker_of_a_generation_that_failed_is_followed_by_one_of_the_generation_that_serves() {
    let (mut life, _) = half_way();
    let second = life.booting()[0];
    life.breaks(second);
    let returning = life.booting()[0];
    life.breaks(returning);
    let foreign = life.ready().into_iter().find(|worker| life.living[worker].0 == 2).unwrap();
    life.dies(foreign);
    // Its last boot has failed just now, and the pool serves.
    life.live(Duration::from_millis(500));
    life.all_ready();
    assert_eq!(life.generations(), [1, 1, 1]);
}

#[test]
fn what_a_superseded_reload_has_taken_over_is_given_back_when_the_next_one_fails() {
    let (mut life, first) = half_way();
    let second = life.reload();
    life.pass(SECOND);
    assert!(life.is_superseded(first));
    life.obey();
    assert_eq!(life.generations(), [2, 1, 1], "it serves on until the next does");
    let newcomer = life.booting()[0];
    life.breaks(newcomer);
    assert!(life.is_failed(second));
    roll(&mut life);
    assert_eq!((life.phase(), life.generations()), ("serving", vec![1, 1, 1]));
    assert_eq!(life.open_generations.into_iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn several_slots_are_given_back_while_a_worker_that_returns_boots_beside_another() {
    let plan = Plan { surge: Surge::Extra(2), ..plan() };
    let mut life = Life::serving_by(Policy { plan, ..policy(4) });
    life.reload();
    life.all_ready();
    life.obey();
    let failing = life.booting()[0];
    life.breaks(failing);
    let [stays, fails] = life.booting()[..] else { panic!("two return at once") };
    life.breaks(fails);
    assert_eq!((life.phase(), life.ready().len()), ("serving", 4));
    life.worker_ready(stays);
    life.obey();
    assert_eq!(life.ready().len(), 4, "the one beside it has gone");
    assert_eq!(life.generations().iter().filter(|generation| **generation == 2).count(), 1);
}

#[test]
fn as_many_failures_as_the_plan_allows_are_tried_again() {
    let plan = Plan { retries: 2, ..plan() };
    let mut life = Life::serving_by(Policy { plan, ..policy(1) });
    for _ in 0..2 {
        life.reload();
        for left in [1, 0] {
            let newcomer = life.booting()[0];
            life.breaks(newcomer);
            assert_eq!(life.phase(), "reloading");
            let counts = |notice: &Notice| matches!(notice, Notice::Reload(ReloadNotice::NewWorkerFailed { left: l, .. }) if *l == left);
            assert!(life.told(counts) > 0);
        }
        let newcomer = life.booting()[0];
        life.breaks(newcomer);
        assert_eq!((life.phase(), life.ready().len()), ("serving", 1));
    }
}

#[test]
fn settings_that_cannot_be_read_leave_everything_as_it_was() {
    let mut life = Life::serving(2);
    let (old, spawns) = (life.ready(), life.spawns);
    life.settings = Settings::Broken;
    let ticket = life.reload();
    assert!(matches!(&life.answers[&ticket], Answer::Failed { reason, .. } if reason.starts_with("line 3;")));
    assert_eq!((life.phase(), life.ready(), life.spawns), ("serving", old, spawns));
}

#[test]
fn a_failed_reload_restores_what_was_decided_by() {
    let mut life = Life::serving(2);
    let before = life.machine.policy().clone();
    life.settings = Settings::New(Policy { workers: 4, boot_timeout: SECOND, ..policy(4) });
    life.reload();
    assert_eq!((life.machine.policy().workers, life.slots), (4, 4));
    let newcomer = life.booting()[0];
    life.breaks(newcomer);
    assert_eq!((life.machine.policy(), life.machine.target(), life.slots), (&before, 2, 2));
    // And the number that the settings named: the same settings change it again.
    let ticket = life.reload();
    roll(&mut life);
    assert!(life.is_done(ticket));
    assert_eq!((life.ready().len(), life.machine.target()), (4, 4));
}

#[test]
fn a_number_that_the_settings_change_counts_and_one_that_they_do_not_leaves_scaling_by_hand_alone() {
    let mut life = Life::serving(2);
    life.ask(Ask::Scale(3));
    life.all_ready();
    life.settings = Settings::New(policy(2));
    life.reload();
    roll(&mut life);
    assert_eq!(life.ready().len(), 3);
    life.settings = Settings::New(policy(1));
    life.reload();
    roll(&mut life);
    assert_eq!((life.ready().len(), life.machine.target(), life.slots), (1, 1, 1));
}

#[test]
fn scaling_by_hand_during_a_reload_is_newer_than_what_its_settings_say() {
    for (workers, scaled) in [(5, 2), (5, 3), (1, 2)] {
        let mut life = Life::serving(2);
        life.settings = Settings::New(policy(workers));
        life.reload();
        let first = life.booting()[0];
        life.worker_ready(first);
        life.ask(Ask::Scale(scaled));
        roll(&mut life);
        assert_eq!((life.ready().len(), life.living.len(), life.slots), (scaled, scaled, scaled));
    }
}

#[test]
fn bounds_that_a_failed_reload_brought_do_not_keep_the_pool_out_of_its_own() {
    let bounds = |workers, max_workers| Policy { max_workers, ..policy(workers) };
    let mut life = Life::serving_by(bounds(3, 3));
    life.settings = Settings::New(bounds(1, 5));
    life.reload();
    life.ask(Ask::Scale(5));
    life.obey();
    let newcomer = life.booting()[0];
    life.breaks(newcomer);
    roll(&mut life);
    assert_eq!((life.phase(), life.ready().len(), life.slots), ("serving", 3, 3));
}

#[test]
fn addresses_that_are_given_up_are_closed_before_the_last_old_workers_drain_their_queues() {
    let mut life = Life::serving_by(blue_green(2));
    let old = life.ready();
    life.closes_listeners = true;
    life.reload();
    life.all_ready();
    let at = |wanted: &Effect| life.effects.iter().position(|effect| effect == wanted).unwrap();
    for worker in old {
        assert!(at(&Effect::Commit { generation: 2 }) < at(&Effect::Drain { worker, how: Drain::Stop }));
    }
}

#[test]
fn a_storm_of_changes_is_one_reload_and_an_operator_that_waits_for_one_gets_its_answer() {
    let mut life = Life::serving(2);
    for _ in 0..5 {
        life.step(Event::Changed { reason: "server.py".to_owned() });
    }
    assert_eq!(life.phase(), "serving");
    life.pass(Duration::from_millis(150));
    assert_eq!(life.told(|notice| matches!(notice, Notice::Reload(ReloadNotice::Begun { .. }))), 1);
    // Again, while an operator's reload waits behind the one that has just begun.
    let ticket = life.reload();
    life.step(Event::Changed { reason: "server.py".to_owned() });
    life.pass(SECOND);
    roll(&mut life);
    assert!(life.is_done(ticket));
}

#[test]
fn a_reload_that_is_asked_for_during_a_rollback_waits_for_its_end() {
    let (mut life, _) = half_way();
    let second = life.booting()[0];
    life.breaks(second);
    let ticket = life.reload();
    life.pass(seconds(5));
    assert_eq!(life.phase(), "rolling back");
    roll(&mut life);
    assert!(life.is_done(ticket));
    assert_eq!(life.generations(), [3, 3, 3]);
}

#[test]
fn a_reload_that_hangs_is_not_superseded_for_ever_while_what_was_superseded_still_drains() {
    let mut life = Life::serving_by(blue_green(3));
    for _ in 0..20 {
        life.reload();
        if let Some(&newcomer) = life.booting().first() {
            life.worker_ready(newcomer);
        }
        life.live(SECOND);
    }
    assert!(life.living.len() <= 12, "{} workers", life.living.len());
    life.obey();
    let ticket = life.reload();
    for _ in 0..3 {
        life.live(SECOND);
        roll(&mut life);
    }
    assert!(life.is_done(ticket));
}

#[test]
fn a_slot_that_both_generations_have_lost_is_served_by_the_old_one_first() {
    let plan = Plan { retries: 1, ..plan() };
    let mut life = Life::serving_by(Policy { plan, ..policy(2) });
    life.reload();
    let first = life.booting()[0];
    life.worker_ready(first);
    life.obey();
    life.dies(first);
    let mut booting: Vec<_> = life.booting().iter().map(|worker| life.living[worker]).collect();
    booting.sort_unstable();
    assert_eq!(booting, [(1, 0), (2, 1)]);
}

#[test]
fn an_answer_that_comes_too_late_lets_go_only_of_what_will_never_serve() {
    let mut life = Life::serving(1);
    life.reload();
    roll(&mut life);
    let prepared = |generation| Event::Prepared {
        generation,
        policy: Some(Box::new(policy(7))),
        closes_listeners: false,
    };
    life.step(prepared(2));
    assert_eq!((life.machine.policy().workers, life.discarded.len()), (1, 0));
    life.step(prepared(3));
    assert_eq!((life.machine.policy().workers, life.discarded.clone()), (1, vec![3]));
}

#[test]
fn the_soak_begins_again_when_the_supervisor_did_not_see_it() {
    let mut life = Life::serving_by(soaking(2, 0));
    life.reload();
    let newcomer = life.booting()[0];
    life.worker_ready(newcomer);
    life.now += seconds(60);
    life.step(Event::Late { by: seconds(59) });
    assert!(life.drained.is_empty(), "whether it has died is not known yet");
    life.dies(newcomer);
    assert_eq!((life.phase(), life.ready().len()), ("serving", 2));
}

#[test]
fn a_reload_can_turn_the_mold_on_and_off() {
    let mut life = Life::serving(2);
    life.settings = Settings::New(preloading(2));
    life.reload();
    assert!(life.booting().is_empty(), "no worker is forked before the mold is ready");
    roll(&mut life);
    assert_eq!((life.phase(), life.molds.len()), ("serving", 1));
    life.settings = Settings::New(policy(2));
    life.reload();
    roll(&mut life);
    life.obey();
    assert_eq!((life.phase(), life.molds.len(), life.ready().len()), ("serving", 0, 2));
}

#[test]
fn workers_that_were_never_asked_for_signs_of_life_are_not_killed_when_they_are() {
    let mut life = Life::serving_by(Policy { timeout: None, ..policy(2) });
    life.pass(seconds(1000));
    life.settings = Settings::New(policy(2));
    life.reload();
    assert!(life.aborted.is_empty());
    life.pass(seconds(29));
    assert!(life.aborted.is_empty());
}
