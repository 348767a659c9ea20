//! The state of the watched files at the last scan, and the files that have changed since.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::filter::Filter;

/// The attributes that identify a version of a file. Without mode and owner; a touch is a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    size: u64,
    /// Editors put a new file in the place of the old one.
    inode: u64,
}

/// All files that count and are there.
#[derive(Debug, Default)]
pub(super) struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// Stamps the files that match now and did not match the filter `before`.
    ///
    /// The next scan reports changes of the others, also their creation.
    pub(super) fn learn(&mut self, filter: &Filter, before: &Filter) {
        self.0.extend(take(filter).into_iter().filter(|(path, _)| !before.wants(path)));
    }

    /// The files that have changed, appeared or vanished since the last scan.
    pub(super) fn look(&mut self, filter: &Filter) -> Vec<PathBuf> {
        let before = std::mem::replace(&mut self.0, take(filter));
        let now = &self.0;
        let differs =
            now.iter().filter(|(path, stamp)| before.get(*path) != Some(*stamp)).map(|(path, _)| path);
        let gone = before.keys().filter(|path| !now.contains_key(*path) && filter.misses(path));
        differs.chain(gone).cloned().collect()
    }
}

fn take(filter: &Filter) -> BTreeMap<PathBuf, Stamp> {
    let mut taken = BTreeMap::new();
    let mut note = |path: PathBuf| {
        if let Some(stamp) = stamp(&path) {
            taken.insert(path, stamp);
        }
    };
    filter.files().map(Path::to_owned).for_each(&mut note);
    for folder in filter.listed() {
        // One that is gone has no files.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        entries.flatten().map(|entry| entry.path()).filter(|path| filter.wants(path)).for_each(&mut note);
    }
    taken
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp { modified: (data.mtime(), data.mtime_nsec()), size: data.len(), inode: data.ino() })
}
