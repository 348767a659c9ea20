//! The watcher of `--reload`: waits for a change of the application's files, and names the file.
//!
//! Events of the system are hints, nothing more: each has the stamps of the files compared with those of the look
//! before. So an editor that replaces a file, a lost event and a directory that goes and comes back are all the same;
//! what only looks like a change is none; and polling is looking without hints. (The polling of the notify crate is not
//! used: it sees times in whole seconds, or reads every file again and again.)
//!
//! - `filter`: which files count.
//! - `pattern`: paths with wildcards.
//! - `debounce`: when a burst of changes is over. Pure.
//! - `stamps`: what files looked like, and what has changed since.
//! - `hints`: the system's events.
//! - `page`: what a browser is shown of a version that does not boot.
//!
//! It knows nothing of Python or of workers.

mod debounce;
mod filter;
mod hints;
mod page;
mod pattern;
mod stamps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::net::timers::after;

use debounce::Debounce;
use filter::Filter;
use hints::{Hints, Unable};
use stamps::Stamps;

pub(crate) use page::BrokenPage;

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReloadEngine {
    /// By the system's events, and by looking every few seconds, for file systems that have none (network, containers).
    #[default]
    Auto,
    /// By looking, twice a second.
    Poll,
    /// By the system's events alone: inotify, or what this system has in its place.
    Inotify,
}

/// The settings of the watcher: additional files, and the method.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadSettings {
    /// How changes are noticed.
    pub engine: ReloadEngine,
    /// Paths and patterns (`*`, `?`, `[a-z]`, and `**` for directories of any depth), relative to the current directory.
    pub extra: Vec<String>,
}

/// How often [`ReloadEngine::Poll`] looks,
const POLL: Duration = Duration::from_millis(500);
/// and [`ReloadEngine::Auto`] beside the events.
const BACKGROUND: Duration = Duration::from_secs(3);
/// How often it is tried to watch directories that are wanted and were not there.
const DIRECTORIES: Duration = Duration::from_secs(1);

/// Waits for changes of files.
#[derive(Debug)]
pub(crate) struct Watcher {
    filter: Filter,
    stamps: Stamps,
    source: Source,
    /// The change since the last call.
    changed: BTreeSet<PathBuf>,
    debounce: Debounce,
}

/// The trigger of a scan.
#[derive(Debug)]
enum Source {
    /// Hints; and time, where there is an interval.
    Events { hints: Hints, search: Instant, background: Option<(Duration, Instant)> },
    /// Time alone.
    Polling { interval: Duration, next: Instant },
}

impl Watcher {
    /// Watches these paths and patterns. They may name what is not there yet.
    ///
    /// Where the system's events cannot be had it polls, and says so in the log.
    pub(crate) fn new<T: AsRef<Path>>(extra: &[T], engine: ReloadEngine) -> Self {
        // Where it cannot be named, paths stay as they are.
        let here = std::env::current_dir().unwrap_or_default();
        Self::within(&here, extra, engine, POLL)
    }

    /// `here`: what relative paths are relative to.
    fn within<T: AsRef<Path>>(here: &Path, extra: &[T], engine: ReloadEngine, interval: Duration) -> Self {
        let now = Instant::now();
        let background = (engine == ReloadEngine::Auto).then_some((BACKGROUND, now + BACKGROUND));
        let source = match engine {
            ReloadEngine::Poll => Source::Polling { interval, next: after(now, interval) },
            ReloadEngine::Auto | ReloadEngine::Inotify => match Hints::new() {
                Ok(hints) => Source::Events { hints, search: now, background },
                Err(unable) => polling(&unable, now),
            },
        };
        let mut watcher = Self {
            filter: Filter::new(here),
            stamps: Stamps::default(),
            source,
            changed: BTreeSet::new(),
            debounce: Debounce::default(),
        };
        watcher.extend(|filter| {
            for path in extra {
                filter.add_extra(path.as_ref());
            }
        });
        watcher
    }

    /// From now on every Python file that changes or appears in `folder` counts, but not in the folders in it.
    pub(crate) fn add_folder(&mut self, folder: &Path) {
        self.extend(|filter| filter.add_folder(folder));
    }

    /// From now on these files count, which the application was loaded from, and every Python file beside one.
    pub(crate) fn add_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let new: Vec<_> = files.into_iter().filter(|file| self.filter.is_new(file)).collect();
        if !new.is_empty() {
            self.extend(|filter| {
                for file in new {
                    filter.add_file(&file, file.canonicalize().ok().as_deref());
                }
            });
        }
    }

    /// That more files count than before is no change of them. What has happened to the others is.
    fn extend(&mut self, grow: impl FnOnce(&mut Filter)) {
        let before = self.filter.clone();
        grow(&mut self.filter);
        self.stamps.learn(&self.filter, &before);
        self.watch_directories(Instant::now());
        // At what happened before they were watched.
        self.look();
    }

    /// Waits for a change that nothing has followed for a moment; returns its description, one line.
    ///
    /// The wait is at most `patience`. A later call returns a change that has begun by then.
    pub(crate) fn wait_for(&mut self, patience: Duration) -> Option<String> {
        let until = after(Instant::now(), patience);
        loop {
            if self.is_time_to_look(Instant::now()) {
                self.look();
            }
            if self.debounce.is_over(Instant::now()) {
                // Not so if it goes on.
                self.look();
                if self.debounce.is_over(Instant::now()) {
                    self.debounce = Debounce::default();
                    let changed = std::mem::take(&mut self.changed);
                    return Some(self.filter.in_words(&changed));
                }
            }
            let now = Instant::now();
            if now >= until {
                return None;
            }
            let wake = [Some(until), self.next_look(), self.debounce.over_at()].into_iter().flatten().min();
            self.rest(wake.unwrap_or(until).saturating_duration_since(now));
        }
    }

    /// Compares everything with the last look.
    fn look(&mut self) {
        let changed = self.stamps.look(&self.filter);
        if !changed.is_empty() {
            self.debounce.changed(Instant::now());
            self.changed.extend(changed);
        }
    }

    /// Whether one is due by time; and has directories watched that have come to be.
    fn is_time_to_look(&mut self, now: Instant) -> bool {
        match &mut self.source {
            Source::Polling { interval, next } => is_due(next, *interval, now),
            Source::Events { search, background, .. } => {
                let looks = background.as_mut().is_some_and(|(interval, next)| is_due(next, *interval, now));
                let searches = is_due(search, DIRECTORIES, now);
                (searches && self.watch_directories(now)) || looks
            }
        }
    }

    fn next_look(&self) -> Option<Instant> {
        match &self.source {
            Source::Polling { next, .. } => Some(*next),
            Source::Events { search, background, .. } => {
                Some(background.map_or(*search, |(_, next)| next.min(*search)))
            }
        }
    }

    /// Waits for a hint, or for `time` at most.
    fn rest(&mut self, time: Duration) {
        match &mut self.source {
            Source::Polling { .. } => std::thread::sleep(time),
            Source::Events { hints, .. } => match hints.wait(&self.filter, time) {
                Ok(false) => {}
                Ok(true) => self.look(),
                Err(unable) => self.fall_back(&unable),
            },
        }
    }

    /// Whether there were any that were not watched before.
    fn watch_directories(&mut self, now: Instant) -> bool {
        let Source::Events { hints, search, .. } = &mut self.source else { return false };
        *search = now + DIRECTORIES;
        match hints.watch(self.filter.directories()) {
            Ok(any) => any,
            Err(unable) => {
                self.fall_back(&unable);
                true
            }
        }
    }

    fn fall_back(&mut self, unable: &Unable) {
        self.source = polling(unable, Instant::now());
    }
}

fn polling(unable: &Unable, now: Instant) -> Source {
    log::warn!(
        "changes of files are looked for every {POLL:?}, since the system does not tell them: {unable}"
    );
    Source::Polling { interval: POLL, next: now + POLL }
}

fn is_due(next: &mut Instant, interval: Duration, now: Instant) -> bool {
    let is_due = now >= *next;
    if is_due {
        *next = after(now, interval);
    }
    is_due
}
