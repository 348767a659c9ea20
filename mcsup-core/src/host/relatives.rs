//! The descendants of a process. Uses /proc; without it, or with that of another PID namespace, there are
//! none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use serde::{Deserialize, Serialize};

use super::handle::Handle;
use super::processes;
use crate::sys::{kernel_text, shared_memory};

/// The most descendants of one search: each costs some microseconds.
const MOST: usize = 4096;

/// The most threads of one process whose children are listed.
const MOST_THREADS: usize = 256;

/// The most descriptors of one process that are examined.
const MOST_DESCRIPTORS: usize = 1024;

/// A process, from proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relative {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Whether it has ended and was not reaped.
    pub is_zombie: bool,
    /// Its start in ticks since boot. Together with the pid it identifies a process.
    pub(super) started: u64,
}

impl Relative {
    /// Looks a process up; `None`: there is none, or it is not visible.
    pub fn find(pid: i32) -> Option<Self> {
        read(pid, &kernel_text::read(processes::file_of(pid, "stat")?).ok()?)
    }

    /// A handle on this very process; `None`: it has ended.
    pub fn hold(&self) -> Option<Handle> {
        let handle = Handle::open(self.pid).ok()?;
        // The pid may have been reused before the handle was opened, but not after.
        (Self::find(self.pid)?.started == self.started).then_some(handle)
    }

    /// Whether it exists, including as a zombie.
    pub fn exists(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.is_same(self))
    }

    /// Whether `other` is the same process.
    pub fn is_same(&self, other: &Relative) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }

    /// Describes it by pid and name, quickly enough for the supervisor's loop.
    ///
    /// Does not read the process's own memory: a hanging process may hold its lock.
    pub(crate) fn name(&self) -> String {
        match kernel_text::read(format!("/proc/{}/comm", self.pid)) {
            Ok(name) => format!("pid {} ({})", self.pid, name.trim_end().replace(char::is_control, " ")),
            Err(_) => format!("pid {}", self.pid),
        }
    }

    /// Describes it by pid and command line. May wait for the process, so it does not suit the supervisor's
    /// loop.
    pub fn describe(&self) -> String {
        format!("pid {} ({})", self.pid, processes::command_of(self.pid))
    }

    /// Whether one of its threads has this name.
    pub fn has_thread(&self, name: &str) -> bool {
        let threads = processes::entries_of(self.pid, "task").into_iter().flatten().flatten();
        let mut names = threads
            .take(MOST_THREADS)
            .filter_map(|thread| kernel_text::read(thread.path().join("comm")).ok());
        names.any(|other| other.trim_end() == name)
    }

    /// Whether it maps the scoreboard of a pool: workers and molds do, processes forked by an application do
    /// not.
    ///
    /// May wait for the process, so it does not suit the supervisor's loop.
    pub fn has_scoreboard(&self) -> bool {
        let maps = processes::file_of(self.pid, "maps").and_then(|file| kernel_text::read(file).ok());
        maps.is_some_and(|maps| maps.contains(shared_memory::FILE_NAME))
    }

    /// The inode numbers of its sockets; `None`: this user has no permission.
    pub(crate) fn sockets(&self) -> Option<BTreeSet<u64>> {
        let entries = processes::entries_of(self.pid, "fd")?;
        let targets =
            entries.flatten().take(MOST_DESCRIPTORS).filter_map(|entry| fs::read_link(entry.path()).ok());
        Some(targets.filter_map(|target| processes::socket_of(&target)).collect())
    }
}

/// All descendants of `root`, except the processes in `without` and their descendants.
pub fn below(root: i32, without: &[i32]) -> Vec<Relative> {
    let lists = Lists::new();
    let mut found = Vec::new();
    let mut parents = VecDeque::from([root]);
    while let Some(parent) = parents.pop_front() {
        for pid in lists.children_of(parent) {
            if found.len() >= MOST {
                return found;
            }
            let is_wanted = !without.contains(&pid) && !parents.contains(&pid);
            if let Some(child) = Relative::find(pid).filter(|child| is_wanted && child.parent == parent) {
                found.push(child);
                parents.push_back(pid);
            }
        }
    }
    found
}

/// The source of children: the kernel's lists, or without them a scan of all processes.
enum Lists {
    Kernels,
    All(BTreeMap<i32, Vec<i32>>),
}

impl Lists {
    fn new() -> Self {
        if fs::exists("/proc/thread-self/children").unwrap_or(false) {
            return Lists::Kernels;
        }
        Self::scan()
    }

    fn scan() -> Self {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for process in processes::all_pids().into_iter().take(MOST).filter_map(Relative::find) {
            children.entry(process.parent).or_default().push(process.pid);
        }
        Lists::All(children)
    }

    fn children_of(&self, pid: i32) -> Vec<i32> {
        match self {
            Lists::All(children) => children.get(&pid).cloned().unwrap_or_default(),
            Lists::Kernels => {
                let threads = processes::entries_of(pid, "task").into_iter().flatten().flatten();
                let lists = threads
                    .take(MOST_THREADS)
                    .filter_map(|thread| kernel_text::read(thread.path().join("children")).ok());
                lists.flat_map(|list| numbers(&list)).collect()
            }
        }
    }
}

fn numbers(list: &str) -> Vec<i32> {
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Parses fields 3 to 5 and 22. The command in field 2 may contain anything, so fields count from the last
/// parenthesis.
fn read(pid: i32, stat: &str) -> Option<Relative> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let started = fields.nth(22 - 6)?.parse().ok()?;
    Some(Relative { pid, parent, group, is_zombie, started })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use processes::own_pid;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn the_files_of_proc_are_read_as_documented() {
        let stat = "7 (a ) (b) S 1 6 5 0 -1 4194560 100 0 0 0 250 50 1 2 20 0 9 0 12345 2256896 1024";
        let expected = Relative { pid: 7, parent: 1, group: 6, is_zombie: false, started: 12345 };
        assert_eq!(read(7, stat), Some(expected));
        assert_eq!((read(7, ""), read(7, "7 (a) S 1")), (None, None));
        assert_eq!(numbers("12 13 \n"), [12, 13]);
    }

    #[test]
    fn children_and_their_children_are_found_and_those_that_are_excluded_are_not() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (shells, sleeps) = (i32::try_from(shell.id()).unwrap(), line.trim().parse::<i32>().unwrap());
        let pids = |without: &[i32]| below(own_pid(), without).iter().map(|it| it.pid).collect::<Vec<_>>();
        assert!([shells, sleeps].iter().all(|pid| pids(&[]).contains(pid)), "{:?}", pids(&[]));
        assert!([shells, sleeps].iter().all(|pid| !pids(&[shells]).contains(pid)));
        let sleep = Relative::find(sleeps).unwrap();
        // The shell prints its pid before it becomes another program.
        let begin = std::time::Instant::now();
        while !sleep.describe().ends_with("(sleep 60)") && begin.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert!(sleep.describe().ends_with("(sleep 60)"), "{}", sleep.describe());
        assert_eq!(sleep.name(), format!("pid {sleeps} (sleep)"));
        sleep.hold().unwrap().kill().unwrap();
        shell.wait().unwrap();
        assert!(sleep.hold().is_none());
    }

    #[test]
    fn children_are_found_without_the_kernels_lists_too() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let by_scan = Lists::scan().children_of(own_pid());
        assert!(by_scan.contains(&pid), "{by_scan:?}");
        assert!(
            matches!(Lists::new(), Lists::All(_)) || Lists::Kernels.children_of(own_pid()).contains(&pid)
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_known_although_the_kernel_cuts_its_name_inside_a_character() {
        let directory = tempfile::tempdir().unwrap();
        let named = directory.path().join("aaaaaaaaaaaaaaü");
        std::os::unix::fs::symlink("/bin/sleep", &named).unwrap();
        let mut child = Command::new(named).arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap();
        let found = (
            Relative::find(pid),
            processes::is_ending(pid),
            processes::children_of(own_pid()).contains(&pid),
        );
        let (named, cpu) = (processes::name(pid), super::super::usage::usage(pid).cpu);
        let has_thread = found.0.is_some_and(|it| it.has_thread("aaaaaaaaaaaaaa\u{fffd}"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(comm.starts_with(b"aaaaaaaaaaaaaa") && String::from_utf8(comm).is_err());
        assert!(matches!(found, (Some(_), false, true)) && cpu.is_some() && has_thread, "{found:?} {cpu:?}");
        assert!(named.starts_with(&format!("pid {pid} (aaaaaaaaaaaaaa")), "{named}");
    }

    #[test]
    fn a_process_that_shares_a_scoreboard_is_known_by_it() {
        let us = Relative::find(own_pid()).unwrap();
        assert!(!us.has_scoreboard());
        let _kept = crate::sys::shared_memory::SharedLines::new(2).unwrap();
        assert!(us.has_scoreboard());
    }

    #[test]
    fn a_process_that_was_given_the_number_of_another_is_not_held() {
        let us = Relative::find(own_pid()).unwrap();
        assert!(us.hold().is_some());
        assert!(Relative { started: us.started + 1, ..us }.hold().is_none());
    }

    #[test]
    fn where_proc_is_of_another_namespace_no_process_is_known() {
        use super::super::usage;
        use processes::{children_of, describe, listening_addresses, name, numbers_are_ours};
        const INSIDE: &str = "MCSUP_TEST_INSIDE";
        let ours = own_pid();
        if std::env::var_os(INSIDE).is_some() {
            // A process with this pid exists, and it is another one.
            assert!(std::path::Path::new(&format!("/proc/{ours}/stat")).exists() && !numbers_are_ours());
            assert_eq!((Relative::find(ours), below(ours, &[])), (None, Vec::new()));
            assert_eq!((children_of(ours), listening_addresses(ours)), (Vec::new(), Vec::new()));
            assert_eq!((describe(ours), name(ours)), (format!("pid {ours}"), format!("pid {ours}")));
            assert_eq!(usage::usage(ours), usage::Usage::default());
            return;
        }
        assert!(numbers_are_ours() && Relative::find(ours).is_some());
        let new = ["--pid", "--fork", "--kill-child"];
        let tried = Command::new("unshare").args(new).arg("true").output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            // Not by eprintln, which this crate never uses.
            let words = b"SKIPPED: this needs a PID namespace\n";
            return std::io::Write::write_all(&mut std::io::stderr(), words).unwrap();
        }
        let test = "host::relatives::tests::where_proc_is_of_another_namespace_no_process_is_known";
        let inside = Command::new("unshare")
            .args(new)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
    }
}
