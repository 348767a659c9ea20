//! The number of out-of-memory kills in a cgroup: memory.events of cgroup v2, memory.oom_control of v1.
//! Unknown where neither is visible.

use std::path::PathBuf;

use super::cgroups::{self, Cgroup};
use crate::sys::kernel_text;

/// The mounted cgroup hierarchies with memory counters.
#[derive(Debug)]
pub(crate) struct Hierarchies(cgroups::Hierarchies);

/// The file with the kernel's count for one cgroup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counter {
    pub(super) file: PathBuf,
    pub(super) is_unified: bool,
}

impl Hierarchies {
    /// Finds those of this process.
    pub(crate) fn new() -> Self {
        Self(cgroups::Hierarchies::new("memory"))
    }

    /// The counter of the cgroup of process `pid`.
    pub(crate) fn counter_of(&self, pid: i32) -> Option<Counter> {
        self.0.cgroups_of(&pid.to_string()).iter().find_map(counter_in)
    }
}

fn counter_in(Cgroup { directory, is_unified, .. }: &Cgroup) -> Option<Counter> {
    // A kill in a child cgroup also counts in its ancestors' memory.events, but only in its own
    // memory.events.local. The count of v1 covers one cgroup only.
    let files: &[&str] =
        if *is_unified { &["memory.events.local", "memory.events"] } else { &["memory.oom_control"] };
    let counters = files.iter().map(|file| Counter { file: directory.join(file), is_unified: *is_unified });
    counters.into_iter().find(|counter| counter.kills().is_some())
}

impl Counter {
    /// The number of kills since the cgroup was made; `None`: the cgroup is gone, or does not count.
    pub(crate) fn kills(&self) -> Option<u64> {
        kills_in(&kernel_text::read(&self.file).ok()?)
    }
}

/// Parses the line `oom_kill N`. It includes each process of a group that is killed as a whole
/// (`oom_group_kill`).
pub(super) fn kills_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory in place of /proc and the mounts.
    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(files: &[(&str, &str)]) -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, text)| fixture.write(name, text));
            fixture
        }

        fn write(&self, name: &str, text: &str) {
            let top = self.0.path().display().to_string();
            self.write_bytes(name, text.replace("TOP", &top).as_bytes());
        }

        fn write_bytes(&self, name: &str, bytes: &[u8]) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        fn counter(&self, pid: i32) -> Option<Counter> {
            let proc = self.0.path().join("proc");
            Hierarchies(cgroups::Hierarchies::seen_by(&proc, "memory")).counter_of(pid)
        }

        fn kills(&self, pid: i32) -> Option<u64> {
            self.counter(pid)?.kills()
        }
    }

    const UNIFIED: &str = "30 25 0:26 / TOP/sys rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const EVENTS: &str = "low 0\nhigh 0\nmax 31\noom 4\noom_kill 3\noom_group_kill 1\n";
    const LEGACY: &str = "29 25 0:25 / TOP/cpu rw - cgroup cgroup rw,cpu\n\
        30 25 0:26 / TOP/memory rw,relatime - cgroup cgroup rw,memory\n\
        31 25 0:27 / TOP/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_count_of_a_unified_hierarchy_is_the_cgroups_own() {
        let fixture = Fixture::new(&[
            ("proc/self/mountinfo", UNIFIED),
            ("proc/7/cgroup", "0::/app.slice/web\n"),
            ("sys/app.slice/web/memory.events", EVENTS),
        ]);
        assert_eq!(fixture.kills(7), Some(3));
        // Two of them were in child cgroups.
        fixture.write("sys/app.slice/web/memory.events.local", "oom 1\noom_kill 1\n");
        assert_eq!(fixture.kills(7), Some(1));
        assert_eq!(fixture.kills(8), None);
    }

    #[test]
    fn a_mount_point_that_is_no_text_hides_no_count() {
        let fixture =
            Fixture::new(&[("proc/7/cgroup", "0::/web\n"), ("sys/web/memory.events.local", "oom_kill 2\n")]);
        let ours = UNIFIED.replace("TOP", &fixture.0.path().display().to_string());
        let strange = b"40 25 0:30 / /mnt/\xff rw - ext4 /dev/vdb rw\n";
        fixture.write_bytes("proc/self/mountinfo", &[strange, ours.as_bytes()].concat());
        assert_eq!(fixture.kills(7), Some(2));
    }

    #[test]
    fn the_count_of_a_legacy_hierarchy_is_found_beside_an_empty_unified_one() {
        let fixture = Fixture::new(&[
            ("proc/self/mountinfo", LEGACY),
            ("proc/7/cgroup", "4:memory:/web\n3:cpuset:/\n0::/\n"),
            ("memory/web/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
            ("unified/cgroup.procs", ""),
        ]);
        assert_eq!(fixture.kills(7), Some(5));
        assert!(!fixture.counter(7).unwrap().is_unified);
    }

    #[test]
    fn a_cgroup_is_found_where_only_a_part_of_the_hierarchy_is_mounted() {
        let fixture = Fixture::new(&[
            ("proc/self/mountinfo", "30 25 0:26 /docker/abc TOP/sys ro - cgroup2 cgroup2 rw\n"),
            ("proc/7/cgroup", "0::/docker/abc/web\n"),
            ("proc/8/cgroup", "0::/docker/abcd\n"),
            ("proc/9/cgroup", "0::/../web\n"),
            ("sys/web/memory.events", EVENTS),
            ("sys/memory.events", EVENTS),
        ]);
        assert_eq!(fixture.kills(7), Some(3));
        assert_eq!((fixture.kills(8), fixture.kills(9)), (None, None));
    }

    #[test]
    fn a_system_that_does_not_count_has_no_counter() {
        let fixture = Fixture::new(&[
            ("proc/self/mountinfo", UNIFIED),
            ("proc/7/cgroup", "0::/web\n"),
            ("sys/web/memory.events", "low 0\nhigh 0\n"),
        ]);
        assert_eq!(fixture.kills(7), None);
        assert_eq!(Fixture::new(&[]).kills(7), None);
    }
}
