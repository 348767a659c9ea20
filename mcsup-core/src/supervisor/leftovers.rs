//! Processes of the application that outlive their worker: logged, and ended if the settings say so.
//!
//! A worker leads its own process group, and the supervisor adopts its orphans. So an orphan in the group of an ended
//! worker belongs to that worker. An orphan that has left its group may belong to any worker, also to a live one: it is
//! logged, and ended with the pool at the earliest.
//!
//! Where this process has other children too, of a program that steps its pool or of another pool, only a process in the
//! group of an ended worker is a leftover.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::getpid;

use super::config::Children;
use super::crew::{Gone, Member};
use super::signals::Signals;
use crate::clock;
use crate::host::daemon;
use crate::host::handle::Handle;
use crate::host::relatives::{self, Relative};
use crate::host::survivors::{self, MOST_NAMED, SETTLE};
use crate::listener::open::OpenSet;
use crate::policy::Moment;
use crate::spawn::reap;
use crate::sys::descriptor;

/// The same as [`SETTLE`] at the end of the pool: shorter, because an operator waits.
const SETTLE_AT_END: Duration = Duration::from_millis(100);

/// The longest time of a process to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest time of the kernel to end a process after SIGKILL.
const AFTER_KILL: Duration = Duration::from_millis(500);

/// The interval between checks for their end, at the end of the pool.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The known leftovers, and the time of the next search.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    how: Children,
    known: BTreeMap<i32, Known>,
    /// Descendants of this process before its first search, which are no leftovers. `None`: it does not search.
    others: Option<Vec<Relative>>,
    /// Whether live workers adopt their orphans: one of the supervisor then belongs to an ended worker.
    workers_adopt: bool,
    /// Whether some worker was forked into the group of this process.
    shares_group: bool,
    /// Whether the program starts processes too.
    is_beside_a_program: bool,
    /// Workers and molds that have ended since the last search.
    ended: Vec<Member>,
    /// Earlier ones whose group has processes: the kernel does not reuse their pids meanwhile.
    past: Vec<Member>,
    look_at: Option<Moment>,
    /// The addresses of listening sockets, by inode number.
    listeners: BTreeMap<u64, String>,
    /// A sentence about the processes that outlive the pool.
    survivors_text: Option<String>,
}

#[derive(Debug)]
struct Known {
    process: Relative,
    /// `None`: nothing ends it.
    termination: Option<Termination>,
}

#[derive(Debug)]
struct Termination {
    handle: Handle,
    /// The time of SIGKILL; `None`: it was sent.
    kill_at: Option<Moment>,
}

impl Leftovers {
    /// The leftovers of a new pool, before its first fork.
    pub(crate) fn new(how: Children) -> Self {
        let mut leftovers = Self::default();
        leftovers.set(how, &[]);
        leftovers
    }

    /// The leftovers of an adopted pool. The last image has logged all other descendants.
    pub(crate) fn adopt(how: Children, others: Option<Vec<Relative>>) -> Self {
        Self { how, others, shares_group: daemon::has_terminal(), ..Self::default() }
    }

    /// Notes whether live workers adopt their orphans.
    pub(super) fn expect_adoption(&mut self, workers_adopt: bool) {
        self.workers_adopt = workers_adopt;
    }

    /// Notes that the program may start processes too.
    pub(super) fn are_beside_a_program(&mut self) {
        self.is_beside_a_program = true;
    }

    /// The record for the next image.
    pub(super) fn describe(&self) -> Option<Vec<Relative>> {
        self.others.clone()
    }

    /// Whether [`set`](Self::set) must be called for the setting `how`.
    pub(super) fn is_changed(&self, how: Children) -> bool {
        self.how != how || self.others.is_none() && how != Children::Ignore
    }

    /// Applies a changed setting. `members`: the processes of the pool.
    pub(super) fn set(&mut self, how: Children, members: &[i32]) {
        self.how = how;
        match how {
            // Processes that were to get SIGKILL are left alone too.
            Children::Ignore => {
                let Self { shares_group, workers_adopt, is_beside_a_program, .. } = *self;
                let listeners = std::mem::take(&mut self.listeners);
                let kept = Self { how, listeners, shares_group, workers_adopt, ..Self::default() };
                *self = Self { is_beside_a_program, ..kept };
            }
            // Without an earlier search any present process may be older than the pool.
            Children::Name | Children::End => {
                self.others.get_or_insert_with(|| relatives::below(us(), members));
            }
        }
    }

    /// Notes a fork. Whether the process leads its own group is decided at the fork: the terminal may end later.
    pub(super) fn note_fork(&mut self, has_own_group: bool) {
        self.shares_group |= !has_own_group;
    }

    /// Remembers the listeners of workers, to recognise them in other processes.
    pub(super) fn note_listeners(&mut self, listeners: &OpenSet) {
        if self.how == Children::Ignore {
            return;
        }
        for listener in listeners.iter() {
            if let Some(inode) = descriptor::inode(listener.as_fd()) {
                self.listeners.entry(inode).or_insert_with(|| listener.local().to_string());
            }
        }
    }

    /// Notes reaped processes, and schedules a search.
    pub(super) fn note_gone(&mut self, gone: Gone, now: Moment) {
        if self.how == Children::Ignore || gone == Gone::default() {
            return;
        }
        self.ended.extend(gone.members);
        self.look_at.get_or_insert(now + SETTLE);
    }

    /// The time of the next search or SIGKILL.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.kills().chain(self.look_at).min()
    }

    fn kills(&self) -> impl Iterator<Item = Moment> + '_ {
        self.known.values().filter_map(|known| known.termination.as_ref()?.kill_at)
    }

    /// Searches for leftovers and kills them, as far as due. `members`: the processes of the pool.
    pub(super) fn run_due(&mut self, members: &[i32], now: Moment) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.look(members, false, now);
        }
        if self.kills().any(|at| at <= now) {
            self.kill_overdue(now);
        }
    }

    /// Delays the search: a worker that has not reported `Born` would look like a leftover.
    pub(super) fn postpone(&mut self, now: Moment) {
        if let Some(at) = &mut self.look_at {
            *at = (*at).max(now + SETTLE);
        }
    }

    /// Searches for leftovers, and logs the new ones.
    fn look(&mut self, members: &[i32], is_end: bool, now: Moment) {
        let ended = std::mem::take(&mut self.ended);
        self.past.extend(&ended);
        let found = self.outsiders(members);
        self.past.retain(|member| found.iter().any(|process| process.group == member.pid));
        self.known.retain(|_, known| found.iter().any(|process| process.is_same(&known.process)));
        let (mut named, mut unnamed) = (0, 0);
        let mut is_missed = false;
        for process in found {
            let is_new = !self.known.contains_key(&process.pid);
            let worker = self.worker_of(&process, &ended, is_new);
            let known = self.known.entry(process.pid).or_insert(Known { process, termination: None });
            let is_certain = worker.is_some() || self.workers_adopt || is_end;
            let ends = self.how == Children::End && is_certain && known.termination.is_none();
            if ends {
                known.termination = begin_to_end(&process, now);
            }
            is_missed |= ends && known.termination.is_none();
            let ends = ends.then_some(known.termination.is_some());
            if is_new && named < MOST_NAMED {
                named += 1;
                log_new(&process, worker, &self.listeners, ends);
            } else {
                unnamed += usize::from(is_new);
            }
        }
        if is_missed && !is_end {
            self.look_at.get_or_insert(now + PATIENCE);
        }
        if unnamed > 0 {
            log::warn!("Left behind as well: {unnamed} more processes");
        }
    }

    /// Descendants of this process that belong neither to the pool nor to [`others`](Self::others).
    fn outsiders(&self, members: &[i32]) -> Vec<Relative> {
        let (us, group) = (us(), our_group());
        let has_others = self.is_beside_a_program || reap::pools() > 1;
        // The pid of an ended process may belong to another process.
        let others = self.others().filter(|other| other.parent == us && other.exists());
        let without: Vec<i32> = members.iter().copied().chain(others.map(|other| other.pid)).collect();
        relatives::below(us, &without)
            .into_iter()
            .filter(|process| !process.is_zombie)
            // In the group of a live member, or started beside the workers.
            .filter(|process| !members.contains(&process.group))
            .filter(|process| process.group != group || self.shares_group)
            .filter(|process| !has_others || self.is_of_ended(process))
            .filter(|process| !self.others().any(|other| other.is_same(process)))
            .collect()
    }

    /// Whether it is in the group of an ended worker.
    fn is_of_ended(&self, process: &Relative) -> bool {
        self.past.iter().chain(&self.ended).any(|member| member.pid == process.group)
    }

    fn others(&self) -> impl Iterator<Item = &Relative> {
        self.others.iter().flatten()
    }

    /// The worker that has started it, if that is certain.
    fn worker_of(&self, process: &Relative, ended: &[Member], is_new: bool) -> Option<Member> {
        if let Some(member) = self.past.iter().find(|member| member.pid == process.group) {
            return Some(*member);
        }
        match ended {
            // At a terminal workers have no own groups.
            [worker] if is_new && process.group == our_group() => Some(*worker),
            _ => None,
        }
    }

    fn kill_overdue(&mut self, now: Moment) {
        for known in self.known.values_mut() {
            let Some(termination) =
                known.termination.as_mut().filter(|it| it.kill_at.is_some_and(|at| at <= now))
            else {
                continue;
            };
            termination.kill_at = None;
            if !termination.handle.has_ended() {
                log::warn!("Process {} did not end within {PATIENCE:?}: killed", known.process.pid);
                let _ = termination.handle.kill();
            }
        }
    }

    /// Logs and ends the leftovers at the end of the pool, in bounded time.
    ///
    /// `members`: processes of the pool that SIGKILL did not end. A further signal to stop ends the wait.
    pub(super) fn finish(&mut self, members: &[i32], stop_signals: Option<&Signals>) {
        if self.how == Children::Ignore || self.outsiders(members).is_empty() {
            return;
        }
        let begin = clock::now();
        let handles =
            |processes: &[Relative]| processes.iter().filter_map(Relative::hold).collect::<Vec<_>>();
        let is_stopped = !all_end(&handles(&self.outsiders(members)), SETTLE_AT_END, stop_signals);
        self.look(members, true, clock::now());
        if self.how == Children::End {
            let left = PATIENCE.saturating_sub(clock::now().saturating_sub(begin));
            if !is_stopped {
                all_end(&handles(&self.outsiders(members)), left, stop_signals);
            }
            // Orphans of the ended leftovers appear only now.
            self.look(members, true, clock::now());
            self.kill_overdue(Moment::MAX);
            all_end(&handles(&self.outsiders(members)), AFTER_KILL, None);
        }
        let left: Vec<Relative> = self.outsiders(members);
        self.survivors_text = words(&left);
        if let Some(survivors_text) = &self.survivors_text {
            log::warn!("Not of the pool: {survivors_text}");
        }
    }

    /// A sentence about the processes that outlive the pool.
    pub(super) fn survivors_text(&self) -> Option<&str> {
        self.survivors_text.as_deref()
    }
}

fn words(left: &[Relative]) -> Option<String> {
    survivors::sentence("that the application started", left.iter().map(Relative::name))
}

fn us() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// The own process group; 0 if it belongs to another pid namespace. rustix's getpgrp(2) would fail then.
fn our_group() -> i32 {
    Relative::find(us()).map_or(0, |process| process.group)
}

/// Sends SIGTERM and sets the time of SIGKILL. `None`: it has ended, or no descriptor is free.
fn begin_to_end(process: &Relative, now: Moment) -> Option<Termination> {
    let handle = process.hold()?;
    if let Err(error) = handle.terminate() {
        log::warn!("cannot end process {}: {error}", process.pid);
    }
    Some(Termination { handle, kill_at: Some(now + PATIENCE) })
}

fn log_new(
    process: &Relative,
    worker: Option<Member>,
    listeners: &BTreeMap<u64, String>,
    ends: Option<bool>,
) {
    let (held, process) = (held_by(process, listeners), process.name());
    let ends = match ends {
        Some(true) => "; it is ended",
        Some(false) => "; it cannot be ended now, for it has just ended or no descriptor is free",
        None => "",
    };
    match worker {
        Some(member) => log::warn!("Left behind by {member}: {process}, {held}{ends}"),
        None => log::warn!("Left behind by some worker, whose group it has left: {process}, {held}{ends}"),
    }
}

/// The sockets that it holds, in words.
fn held_by(process: &Relative, listeners: &BTreeMap<u64, String>) -> String {
    let Some(sockets) = process.sockets() else { return "which does not show what it holds".to_owned() };
    let listening: Vec<String> = sockets
        .iter()
        .filter_map(|inode| Some(format!("the listening socket {}", listeners.get(inode)?)))
        .collect();
    let others = sockets.len() - listening.len();
    let others = match others {
        0 => None,
        1 => Some("1 other socket".to_owned()),
        _ => Some(format!("{others} other sockets")),
    };
    match (listening.is_empty(), others) {
        (true, None) => "which holds no socket".to_owned(),
        (true, Some(others)) => format!("which holds {}", others.replace("other ", "")),
        (false, others) => {
            let all: Vec<String> = listening.into_iter().chain(others).collect();
            format!("which holds {}", all.join(" and "))
        }
    }
}

/// Waits until all have ended or `patience` is over; `false`: a signal to stop came first.
fn all_end(handles: &[Handle], patience: Duration, stop_signals: Option<&Signals>) -> bool {
    let deadline = clock::now() + patience;
    for handle in handles {
        while !handle.has_ended() {
            let left = deadline.saturating_sub(clock::now());
            if left.is_zero() {
                return true;
            }
            let mut sources: Vec<PollFd<'_>> = stop_signals
                .iter()
                .map(|signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN))
                .collect();
            let timeout = clock::wait_of(left.min(LOOK_EVERY));
            let _ = poll(&mut sources, Some(&timeout));
            // The end of a child is a signal as well.
            if stop_signals.is_some_and(Signals::take_stop) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
