//! The cgroups of a process with one controller, of version 2 and 1, as far as they are mounted
//! (cgroups(7), proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

use super::processes;
use crate::sys::kernel_text;

/// The mounted hierarchies with one controller.
#[derive(Debug)]
pub(super) struct Hierarchies {
    proc: PathBuf,
    controller: &'static str,
    mounts: Vec<Mount>,
}

#[derive(Debug)]
struct Mount {
    is_unified: bool,
    /// The cgroup that is visible at the mount point.
    root: String,
    at: PathBuf,
}

/// A cgroup of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    pub(super) directory: PathBuf,
    /// The mount point: the outermost visible cgroup.
    pub(super) top: PathBuf,
    pub(super) is_unified: bool,
}

impl Hierarchies {
    /// Finds those of this process.
    pub(super) fn new(controller: &'static str) -> Self {
        let seen = Self::seen_by(Path::new("/proc"), controller);
        // Without mounts no process has a cgroup.
        if processes::numbers_are_ours() { seen } else { Self { mounts: Vec::new(), ..seen } }
    }

    pub(super) fn seen_by(proc: &Path, controller: &'static str) -> Self {
        let mounts = kernel_text::read(proc.join("self/mountinfo")).unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| mount(line, controller)).collect();
        Self { proc: proc.to_owned(), controller, mounts }
    }

    /// The cgroups of process `pid`; `self` is this one.
    pub(super) fn cgroups_of(&self, pid: &str) -> Vec<Cgroup> {
        let cgroups = kernel_text::read(self.proc.join(pid).join("cgroup")).unwrap_or_default();
        cgroups.lines().flat_map(|line| self.cgroups_in(line)).collect()
    }

    /// The cgroups of one line of cgroups(7): `ID:CONTROLLERS:PATH`, without controllers for version 2.
    fn cgroups_in(&self, line: &str) -> Vec<Cgroup> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
        let is_unified = controllers.is_empty();
        if !is_unified && !controllers.split(',').any(|name| name == self.controller) {
            return Vec::new();
        }
        let mounts = self.mounts.iter().filter(|mount| mount.is_unified == is_unified);
        let cgroup = |mount: &Mount| {
            Some(Cgroup { directory: mount.directory_of(path)?, top: mount.at.clone(), is_unified })
        };
        mounts.filter_map(cgroup).collect()
    }
}

impl Mount {
    /// The directory of a cgroup; `None`: it is not visible under this mount.
    fn directory_of(&self, cgroup: &str) -> Option<PathBuf> {
        let below = cgroup.strip_prefix(self.root.trim_end_matches('/'))?;
        let is_below = below.is_empty() || below.starts_with('/');
        if !is_below || below.split('/').any(|part| part == "..") {
            return None;
        }
        Some(self.at.join(below.trim_start_matches('/')))
    }
}

/// Parses `ID PARENT DEVICE ROOT MOUNT_POINT OPTIONS … - TYPE SOURCE SUPER_OPTIONS`.
fn mount(line: &str, controller: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    let is_unified = kind == "cgroup2";
    let has_it = is_unified || kind == "cgroup" && options.split(',').any(|option| option == controller);
    if !has_it {
        return None;
    }
    let mut front = front.split(' ').skip(3);
    Some(Mount { is_unified, root: unescaped(front.next()?), at: unescaped(front.next()?).into() })
}

/// Undoes the escapes of a field in proc_pid_mountinfo(5): `\`, then three octal digits. Paths in cgroups(7) have none.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_at_checked(3).map(|(digits, rest)| (u8::from_str_radix(digits, 8), rest)) {
            Some((Ok(byte), rest)) => plain.extend([&*char::from(byte).to_string(), rest]),
            _ => plain.extend(["\\", part]),
        }
    }
    plain
}
