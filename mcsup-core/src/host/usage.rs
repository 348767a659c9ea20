//! Memory, processor time and threads of a process. Uses /proc; without it, or without permission, values are
//! unknown.

use std::time::Duration;

use super::{processes, relatives};
use crate::sys::kernel_text;

/// The resources of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory; shared pages count in full.
    pub rss_bytes: Option<u64>,
    /// User and system time used.
    pub cpu: Option<Duration>,
    /// The number of threads.
    pub threads: Option<u32>,
}

/// The current usage of process `pid`. Cheap for a process of any size.
pub fn usage(pid: i32) -> Usage {
    let read = |file: &str| kernel_text::read(processes::file_of(pid, file)?).ok();
    let (cpu, threads) = read("stat").as_deref().and_then(times_and_threads).unzip();
    Usage {
        rss_bytes: read("statm").as_deref().and_then(resident_pages).map(|pages| pages * page_size()),
        cpu: cpu.map(ticks),
        threads,
    }
}

/// The resources of process `pid` and its descendants, as far as they are known.
pub(crate) fn of_family(pid: i32) -> Usage {
    let descendants = relatives::below(pid, &[]);
    descendants.iter().map(|process| usage(process.pid)).fold(usage(pid), |sum, one| Usage {
        rss_bytes: added(sum.rss_bytes, one.rss_bytes),
        cpu: added(sum.cpu, one.cpu),
        threads: added(sum.threads, one.threads),
    })
}

/// The sum of two values, of which some are unknown.
fn added<T: std::ops::Add<Output = T>>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

/// The proportional set size of process `pid`: shared pages count in parts.
///
/// The kernel walks all its pages: some milliseconds for a large process, and more if it waits for a lock of
/// the process. Not for a supervisor.
pub fn proportional(pid: i32) -> Option<u64> {
    pss_of(&kernel_text::read(processes::file_of(pid, "smaps_rollup")?).ok()?)
}

/// The resident memory of process `pid`; shared pages count in full. Cheap enough for every second.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let statm = kernel_text::read(processes::file_of(pid, "statm")?).ok()?;
    Some(resident_pages(&statm)? * page_size())
}

/// proc_pid_statm(5): size, resident, …, in pages.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

/// Parses the line `Pss:   N kB`.
fn pss_of(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Parses proc_pid_stat(5): fields 14 and 15 (utime, stime) in ticks, field 20 (num_threads).
///
/// The command in field 2 may contain anything, so fields count from the last parenthesis, before field 3.
fn times_and_threads(stat: &str) -> Option<(u64, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(14 - 3)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let threads = fields.nth(20 - 16)?.parse().ok()?;
    Some((user + system, threads))
}

fn ticks(count: u64) -> Duration {
    let rate = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(count as f64 / rate as f64)
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_as_documented() {
        assert_eq!(resident_pages("2203 1024 900 3 0 300 0\n"), Some(1024));
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:   1640 kB\nPss:    217 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(pss_of(rollup), Some(217 * 1024));
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 1 2 20 0 9 0 12345 2256896 1024";
        assert_eq!(times_and_threads(stat), Some((300, 9)));
        assert_eq!((times_and_threads(""), pss_of(""), resident_pages("")), (None, None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_family_uses_as_much_as_all_of_its_processes() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (ours, childs) = (std::process::id(), child.id());
        let of = |pid: u32| usage(i32::try_from(pid).unwrap()).threads.unwrap();
        let family = of_family(i32::try_from(ours).unwrap());
        assert_eq!(family.threads.unwrap(), of(ours) + of(childs));
        assert!(family.rss_bytes > usage(i32::try_from(childs).unwrap()).rss_bytes);
        assert_eq!((added(Some(1), None), added(None::<u8>, None)), (Some(1), None));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_own_process_uses_something() {
        let ours = i32::try_from(std::process::id()).unwrap();
        let before = usage(ours);
        assert!(before.rss_bytes.unwrap() > 100_000, "{before:?}");
        assert!(proportional(ours).unwrap() > 0 && before.threads.unwrap() >= 1, "{before:?}");
        let more = vec![1_u8; 64 << 20];
        assert!(std::hint::black_box(&more).iter().map(|byte| u64::from(*byte)).sum::<u64>() == 64 << 20);
        let after = usage(ours);
        assert!(after.rss_bytes.unwrap() > before.rss_bytes.unwrap() + (48 << 20), "{before:?} {after:?}");
        assert!(after.cpu.unwrap() >= before.cpu.unwrap());
    }

    #[test]
    fn a_process_that_does_not_exist_uses_nothing_known() {
        assert_eq!(usage(i32::MAX), Usage::default());
    }
}
