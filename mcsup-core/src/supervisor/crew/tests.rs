//! A crew with real processes and links.

use super::*;
use crate::link::channel::WorkerEnd;
use crate::link::fork_order::{ForkOrder, ForkingEnd};
use crate::link::message::Report;
use crate::link::{channel, fork_order};
use crate::listener::open::OpenSet;
use crate::sys::ancestry::ADOPTS;
use crate::sys::fork::in_a_process;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::process::{Child, Command};

/// A crew with a mold whose part the test plays.
struct Pool {
    crew: Crew,
    orders: ForkingEnd,
    mold: WorkerEnd,
    process: Child,
}

const MOLD: WorkerId = WorkerId(1);

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().unwrap()
}

fn pool() -> Pool {
    let process = sleeper();
    let mut crew = Crew::new(8).unwrap();
    let ((link, mold), (forks, orders)) = (channel::pair().unwrap(), fork_order::pair().unwrap());
    let links = Links { link, row: None, forks: Some(forks) };
    crew.join(MOLD, Pid::from_child(&process), links);
    Pool { crew, orders, mold, process }
}

impl Pool {
    fn order(&mut self, worker: u64) {
        let (link, end) = channel::pair().unwrap();
        let row = self.crew.take_row().unwrap();
        let order =
            ForkOrder { worker, slot: 0, row: row.index(), max_requests: None, listeners: Vec::new() };
        let queued = QueuedFork { order, end, listeners: OpenSet::default() };
        let links = Links { link, row: Some(row), forks: None };
        self.crew.order((WorkerId(worker), MOLD), links, queued).unwrap();
    }

    /// The mold's next order: its worker, and the worker's end of its link.
    fn told(&self) -> Option<(u64, WorkerEnd)> {
        self.orders.take().unwrap().map(|(order, descriptors)| (order.worker, descriptors.into_parts().0))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The test may have reaped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failed(event: &Event) -> Option<(u64, &str)> {
    match event {
        Event::SpawnFailed { worker, reason } => Some((worker.0, reason)),
        _ => None,
    }
}

#[test]
fn a_mold_gets_a_few_orders_at_once_and_more_when_it_has_answered() {
    let mut pool = pool();
    (10..16).for_each(|worker| pool.order(worker));
    let mut told: Vec<_> = std::iter::from_fn(|| pool.told()).collect();
    assert_eq!(told.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [10, 11, 12, 13]);
    assert!(pool.crew.reports().is_empty());
    let reason = "no memory".to_owned();
    pool.mold.send(Report::ForkFailed { worker: 10, reason }).unwrap();
    drop(told.remove(0));
    let events = pool.crew.reports();
    assert_eq!(events.iter().map(failed).collect::<Vec<_>>(), [Some((10, "no memory"))]);
    assert_eq!(pool.told().map(|(worker, _)| worker), Some(14));
    assert!(pool.told().is_none());
}

#[test]
fn a_worker_that_is_not_born_when_the_mold_is_gone_was_not_forked() {
    let mut pool = pool();
    (10..16).for_each(|worker| pool.order(worker));
    let first = pool.told();
    let (_, orders) = fork_order::pair().unwrap();
    pool.orders = orders;
    assert!(pool.crew.reports().iter().filter_map(failed).map(|(worker, _)| worker).eq([11, 12, 13]));
    drop(first);
    pool.process.kill().unwrap();
    let mut events = Vec::new();
    while events.len() < 4 {
        events.extend(pool.crew.reap());
    }
    assert!(matches!(
        events.iter().find(|event| failed(event).is_none()),
        Some(Event::Exited { worker: MOLD, .. })
    ));
    let mut failed: Vec<u64> = events.iter().filter_map(failed).map(|(worker, _)| worker).collect();
    failed.sort_unstable();
    assert_eq!(failed, [10, 14, 15]);
    // All lines have come back.
    assert!((0..8).all(|_| pool.crew.take_row().is_some()));
}

#[test]
fn a_worker_that_was_to_be_killed_before_it_was_born_is_killed_then() {
    let mut pool = pool();
    pool.order(10);
    let (_, end) = pool.told().unwrap();
    pool.crew.signal(WorkerId(10), Signal::KILL);
    let mut worker = sleeper();
    let pid = i32::try_from(worker.id()).unwrap();
    end.send(Report::Born { pid }).unwrap();
    assert_eq!(pool.crew.reports(), [Event::Spawned { worker: WorkerId(10), pid }]);
    let status = worker.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::KILL.as_raw()));
}

#[test]
fn a_worker_that_was_to_be_killed_and_is_never_born_has_ended_so() {
    let mut pool = pool();
    (10..15).for_each(|worker| pool.order(worker));
    pool.crew.signal(WorkerId(14), Signal::KILL);
    let events = pool.crew.reports();
    assert!(matches!(&events[..], [Event::Exited { worker: WorkerId(14), .. }]), "{events:?}");
}

#[test]
fn only_a_mold_that_has_long_forked_nothing_is_stuck() {
    let mut pool = pool();
    let stuck = Some(Event::MoldStuck { mold: MOLD });
    let rest = |pool: &mut Pool| pool.crew.entries.get_mut(&MOLD).unwrap().last_progress = Moment::ZERO;
    rest(&mut pool);
    // It had nothing to do until then.
    (10..16).for_each(|worker| pool.order(worker));
    assert_eq!(pool.crew.signal(WorkerId(13), Signal::KILL), None);
    rest(&mut pool);
    // A missing worker without an order is not its fault.
    assert_eq!(pool.crew.signal(WorkerId(15), Signal::KILL), None);
    // It has forked one of those before this one.
    let reason = "no memory".to_owned();
    let told = pool.told();
    pool.mold.send(Report::ForkFailed { worker: 10, reason }).unwrap();
    drop(told);
    assert!(!pool.crew.reports().is_empty());
    assert_eq!(pool.crew.signal(WorkerId(11), Signal::KILL), None);
    rest(&mut pool);
    assert_eq!(pool.crew.signal(WorkerId(12), Signal::KILL), stuck);
    // To be killed is not for the crew to decide.
    assert!(pool.process.try_wait().unwrap().is_none());
}

#[test]
fn a_link_that_another_process_holds_does_not_keep_a_worker_that_is_never_born() {
    let mut pool = pool();
    pool.order(10);
    let held = pool.told();
    pool.process.kill().unwrap();
    while pool.crew.reap().is_empty() {}
    pool.crew.signal(WorkerId(10), Signal::KILL);
    let events = pool.crew.reports();
    assert!(matches!(&events[..], [Event::Exited { worker: WorkerId(10), .. }]), "{events:?}");
    drop(held);
}

#[test]
fn a_link_that_has_ended_is_not_waited_on_while_its_process_lives() {
    let mut pool = pool();
    assert_eq!(pool.crew.links().count(), 1);
    pool.mold = channel::pair().unwrap().1;
    assert!(pool.crew.reports().is_empty());
    assert_eq!(pool.crew.links().count(), 0);
    pool.process.kill().unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        events = pool.crew.reap();
    }
    assert!(matches!(&events[..], [Event::Exited { worker: MOLD, .. }]), "{events:?}");
}

#[test]
fn the_reports_of_a_reaped_worker_come_before_its_end() {
    let mut pool = pool();
    let failure = crate::policy::BootFailure {
        kind: crate::error::ErrorKind::Boot,
        summary: "no module".to_owned(),
        detail: Some("x".repeat(64 * 1024)),
    };
    pool.mold.send(Report::Failed(failure.clone())).unwrap();
    pool.process.kill().unwrap();
    let child = WaitId::Pid(Pid::from_child(&pool.process));
    waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let events = pool.crew.reap();
    assert_eq!(events[0], Event::BootFailed { worker: MOLD, failure });
    assert!(matches!(events[1], Event::Exited { worker: MOLD, .. }));
}

#[test]
fn a_worker_that_is_reaped_before_it_is_heard_was_born_and_has_ended() {
    if !ADOPTS {
        // Its mold says how it ends.
        return;
    }
    let mut pool = pool();
    pool.crew.adopts = true;
    pool.order(10);
    let (_, end) = pool.told().unwrap();
    let mut worker = sleeper();
    let process = Pid::from_child(&worker);
    let pid = process.as_raw_nonzero().get();
    end.send(Report::Born { pid }).unwrap();
    drop(end);
    worker.kill().unwrap();
    waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let events = pool.crew.reap();
    assert_eq!(events[0], Event::Spawned { worker: WorkerId(10), pid });
    let [_, Event::Exited { worker: WorkerId(10), exit }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(exit.status, ExitStatus::Signal(Signal::KILL.as_raw()));
    assert!(worker.wait().is_err(), "it was reaped");
}

#[test]
fn a_process_of_one_worker_is_not_another_ones_too() {
    let mut pool = pool();
    pool.order(10);
    let (_, end) = pool.told().unwrap();
    let pid = Pid::from_child(&pool.process).as_raw_nonzero().get();
    end.send(Report::Born { pid }).unwrap();
    assert!(pool.crew.reports().is_empty());
}

#[test]
fn a_process_that_is_no_child_is_no_worker() {
    let mut pool = pool();
    pool.order(10);
    let (_, end) = pool.told().unwrap();
    end.send(Report::Born { pid: 1 }).unwrap();
    let events = pool.crew.reports();
    assert_eq!(events.is_empty(), ADOPTS, "{events:?}");
}

#[test]
fn a_process_that_other_code_has_reaped_has_ended_also_where_orphans_are_adopted() {
    in_a_process(|| {
        let mut pool = pool();
        pool.crew.adopts = true;
        assert!(pool.crew.reap().is_empty());
        pool.process.kill().unwrap();
        pool.process.wait().unwrap();
        let events = pool.crew.reap();
        assert!(matches!(events[..], [Event::Exited { worker: MOLD, .. }]), "{events:?}");
        assert!(pool.crew.reap().is_empty());
    });
}

#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
#[test]
fn orphans_that_another_pool_has_adopted_are_reaped_after_its_end_too() {
    in_a_process(|| {
        let mut crew = Crew::new(1).unwrap();
        assert!(crew.reap().is_empty());
        let other = Crew::new(1).unwrap();
        ancestry::adopt_orphans().unwrap();
        // The shell ends first.
        let mut shell = Command::new("sh").args(["-c", "sleep 0.2 &"]).spawn().unwrap();
        shell.wait().unwrap();
        drop(other);
        let mut ended = 0;
        while ended == 0 {
            crew.reap();
            ended += crew.take_reaped_others().len();
        }
    });
}
