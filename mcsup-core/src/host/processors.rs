//! The number of processors that this process may use: by its affinity, and by the quotas of its cgroups.

use std::num::NonZeroUsize;
use std::path::Path;

use super::cgroups::{Cgroup, Hierarchies};
use crate::sys::kernel_text;

/// The processors that this process may use at the same time; a part of one counts as a whole one.
///
/// On Linux these are the processors of its affinity (sched_setaffinity(2)), at most the smallest quota of its
/// cgroups and their parents (`cpu.max`, or `cpu.cfs_quota_us` of version 1). The value can change at any time.
pub fn available() -> NonZeroUsize {
    let processors = affinity();
    let quota = Hierarchies::new("cpu").cgroups_of("self").iter().filter_map(smallest_quota).min();
    quota.map_or(processors, |quota| processors.min(quota))
}

/// The numbers of the processors of this process's affinity, ascending; `None`: unknown, as outside of Linux.
#[cfg(target_os = "linux")]
pub fn allowed() -> Option<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect())
}

/// The numbers of the processors of this process's affinity, ascending; `None`: unknown, as outside of Linux.
#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Option<Vec<usize>> {
    None
}

#[cfg(target_os = "linux")]
fn affinity() -> NonZeroUsize {
    let set = rustix::thread::sched_getaffinity(None).ok();
    let count = set.and_then(|set| NonZeroUsize::new(usize::try_from(set.count()).ok()?));
    count.unwrap_or_else(online)
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> NonZeroUsize {
    online()
}

fn online() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The smallest quota of a cgroup and its visible parents, in processors; `None`: there is none.
fn smallest_quota(cgroup: &Cgroup) -> Option<NonZeroUsize> {
    let visible = cgroup.directory.ancestors().take_while(|directory| directory.starts_with(&cgroup.top));
    visible.filter_map(|directory| quota_of(directory, cgroup.is_unified)).min()
}

fn quota_of(directory: &Path, is_unified: bool) -> Option<NonZeroUsize> {
    let read = |name: &str| kernel_text::read(directory.join(name)).ok();
    let text = if is_unified {
        read("cpu.max")?
    } else {
        format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
    };
    parse(&text)
}

/// Parses the quota and the period, both in microseconds. A quota of `max` or -1 is none.
fn parse(text: &str) -> Option<NonZeroUsize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.trim().parse().ok()?);
    NonZeroUsize::new(quota.checked_div(period)? + usize::from(quota % period > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_part_of_a_processor_counts_as_a_whole_one() {
        let parsed = |text| parse(text).map(NonZeroUsize::get);
        for (text, expected) in [
            ("max 100000\n", None),
            ("-1 100000", None),
            ("50000 100000\n", Some(1)),
            ("100000 100000", Some(1)),
            ("150000 100000", Some(2)),
            ("200000 100000", Some(2)),
            ("0 100000", None),
            ("1 0", None),
            ("", None),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    /// The smallest quota of this process, with a directory in place of /proc and the mounts.
    fn quota(files: &[(&str, &str)]) -> Option<usize> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("TOP", &directory.path().display().to_string())).unwrap();
        }
        let hierarchies = Hierarchies::seen_by(&directory.path().join("proc"), "cpu");
        let cgroups = hierarchies.cgroups_of("self");
        cgroups.iter().filter_map(smallest_quota).min().map(NonZeroUsize::get)
    }

    #[test]
    fn the_smallest_quota_of_the_cgroup_and_its_parents_counts() {
        let mount = ("proc/self/mountinfo", "30 25 0:26 / TOP/sys rw - cgroup2 cgroup2 rw\n");
        let ours = ("proc/self/cgroup", "0::/a/b\n");
        let inner = |text| ("sys/a/b/cpu.max", text);
        assert_eq!(quota(&[mount, ours, inner("max 100000")]), None);
        assert_eq!(quota(&[mount, ours, inner("400000 100000")]), Some(4));
        assert_eq!(
            quota(&[mount, ours, inner("400000 100000"), ("sys/a/cpu.max", "300000 100000")]),
            Some(3)
        );
        assert_eq!(
            quota(&[mount, ours, inner("200000 100000"), ("sys/a/cpu.max", "300000 100000")]),
            Some(2)
        );
        assert_eq!(quota(&[mount, ours]), None);
    }

    #[test]
    fn a_quota_of_version_1_counts_too() {
        let files = [
            ("proc/self/mountinfo", "29 25 0:25 / TOP/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"),
            ("proc/self/cgroup", "4:cpuacct,cpu:/web\n0::/\n"),
            ("cpu/web/cpu.cfs_quota_us", "250000\n"),
            ("cpu/web/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&files), Some(3));
    }

    #[test]
    fn a_cgroup_whose_name_the_mount_table_escapes_has_its_quota() {
        // A container that mounts the cgroup of its unit `web-1.service`, below a directory with a space.
        let mount = "30 25 0:26 /a\\134x2db TOP/my\\040sys rw - cgroup2 cgroup2 rw\n";
        let files = [
            ("proc/self/mountinfo", mount),
            ("proc/self/cgroup", "0::/a\\x2db/web\n"),
            ("my sys/web/cpu.max", "200000 100000"),
        ];
        assert_eq!(quota(&files), Some(2));
    }

    #[test]
    fn this_process_has_at_least_one_processor_and_no_more_than_the_machine() {
        #[cfg(target_os = "linux")]
        assert_eq!(allowed().unwrap().len(), affinity().get());
        assert!(available() <= NonZeroUsize::new(online().get().max(affinity().get())).unwrap());
    }
}
