//! Leftovers of workers, with real processes.

use std::process::{Child, Command};

use super::*;
use crate::supervisor::signals::SignalUse;

fn start(command: &str, argument: &str) -> (Child, Relative) {
    let child = Command::new(command).arg(argument).spawn().unwrap();
    let relative = Relative::find(child.id().try_into().unwrap()).unwrap();
    (child, relative)
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn only_a_signal_to_stop_ends_the_wait_for_leftovers() {
    use rustix::process::{Signal, kill_process};
    let signals = Signals::install(SignalUse::Handled).unwrap();
    let (mut brief, _) = start("sleep", "0");
    let (child, relative) = start("sleep", "1000");
    let handles = [relative.hold().unwrap()];
    let wait = |patience| all_end(&handles, Duration::from_millis(patience), Some(&signals));
    assert!(brief.wait().unwrap().success());
    kill_process(getpid(), Signal::CHILD).unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    assert!(wait(200));
    for stop in [Signal::TERM, Signal::INT, Signal::QUIT] {
        kill_process(getpid(), stop).unwrap();
        assert!(!wait(10_000));
    }
    drop(signals);
    end(child);
}

fn pids(found: &[Relative]) -> Vec<i32> {
    found.iter().map(|process| process.pid).collect()
}

#[test]
fn what_ran_beside_the_pool_before_it_looked_is_no_leftover() {
    let mut leftovers = Leftovers::new(Children::Ignore);
    let (beside, beside_it) = start("sleep", "1000");
    let (worker, member) = start("sleep", "1000");
    leftovers.set(Children::End, &[member.pid]);
    assert_eq!(pids(&leftovers.describe().unwrap()), [beside_it.pid]);
    // The same setting once more changes nothing.
    let (left, left_it) = start("sleep", "1000");
    leftovers.set(Children::End, &[member.pid]);
    let record = serde_json::to_string(&leftovers.describe()).unwrap();
    let mut next = Leftovers::adopt(Children::End, serde_json::from_str(&record).unwrap());
    next.set(Children::End, &[member.pid]);
    for leftovers in [leftovers, next] {
        let known = pids(leftovers.others.as_deref().unwrap());
        assert!(known.contains(&beside_it.pid) && !known.contains(&left_it.pid), "{known:?}");
    }
    [beside, worker, left].into_iter().for_each(end);
}

#[test]
fn what_was_to_be_killed_is_left_alone_once_leftovers_are_ignored() {
    let (mut left, left_it) = start("sleep", "1000");
    let mut leftovers = Leftovers::new(Children::End);
    let termination = begin_to_end(&left_it, Moment::ZERO);
    assert!(left.wait().unwrap().code().is_none());
    leftovers.known.insert(left_it.pid, Known { process: left_it, termination });
    assert_eq!(leftovers.deadline(), Some(PATIENCE));
    leftovers.set(Children::Ignore, &[]);
    assert_eq!(leftovers.deadline(), None);
    leftovers.set(Children::End, &[]);
    assert_eq!(leftovers.deadline(), None);
}

#[test]
fn leftovers_of_workers_without_groups_of_their_own_are_found_when_the_terminal_is_gone() {
    let mut leftovers = Leftovers::new(Children::End);
    let (left, left_it) = start("sleep", "1000");
    assert_eq!(left_it.group, our_group());
    let finds = |leftovers: &Leftovers| pids(&leftovers.outsiders(&[])).contains(&left_it.pid);
    leftovers.note_fork(true);
    let before = finds(&leftovers);
    leftovers.note_fork(false);
    let after = finds(&leftovers);
    end(left);
    assert_eq!((before, after), (false, true));
}

#[test]
fn an_image_without_a_list_of_others_adopts_all_that_are_there() {
    let (beside, beside_it) = start("sleep", "1000");
    let mut leftovers = Leftovers::adopt(Children::End, None);
    leftovers.set(Children::End, &[]);
    assert_eq!(pids(&leftovers.describe().unwrap()), [beside_it.pid]);
    end(beside);
}

#[test]
fn a_leftover_is_named_without_a_look_into_its_memory() {
    let (child, relative) = start("sleep", "1000");
    let named = words(&[relative]).unwrap();
    end(child);
    assert!(named.ends_with(&format!("still running: pid {} (sleep)", relative.pid)), "{named}");
}

#[test]
fn a_process_that_the_program_starts_beside_its_pool_is_no_leftover() {
    use std::os::unix::process::CommandExt;
    let led = |group: i32| {
        let child = Command::new("sleep").arg("1000").process_group(group).spawn().unwrap();
        let relative = Relative::find(child.id().try_into().unwrap()).unwrap();
        (child, relative)
    };
    let mut leftovers = Leftovers::new(Children::End);
    leftovers.are_beside_a_program();
    // At a terminal workers share the program's group.
    leftovers.note_fork(false);
    let (worker, member) = led(0);
    let ((own, _), (leading, _)) = (start("sleep", "1000"), led(0));
    let (mut left, left_it) = led(member.group);
    end(worker);
    let gone = Member { pid: member.pid, is_mold: false };
    leftovers.note_gone(Gone { members: vec![gone], has_others: false }, Moment::ZERO);
    assert_eq!(pids(&leftovers.outsiders(&[])), [left_it.pid]);
    leftovers.finish(&[], None);
    assert!(left.wait().unwrap().code().is_none());
    for mut child in [own, leading] {
        assert!(child.try_wait().unwrap().is_none());
        end(child);
    }
}
