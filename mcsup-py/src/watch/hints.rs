//! The system's word that something may have changed: inotify, FSEvents or kqueue, by way of the notify crate.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::filter::Filter;

/// Watched directories: never files, since a file that is replaced is another one.
pub(super) struct Hints {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    events: Receiver<notify::Result<Event>>,
}

/// Why there are none.
#[derive(Debug)]
pub(super) enum Unable {
    /// The system says so.
    Refused(notify::Error),
    /// The thread that listens to it is gone.
    Ended,
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unable::Refused(error) => match &error.kind {
                ErrorKind::Io(reason) => reason.fmt(f),
                _ => error.fmt(f),
            },
            Unable::Ended => f.write_str("its watcher has ended"),
        }
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl Hints {
    pub(super) fn new() -> Result<Self, Unable> {
        let (sender, events) = mpsc::channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is no change, and each import reads many.
            if !event.as_ref().is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                // The receiver is gone: the process ends.
                let _ = sender.send(event);
            }
        })
        .map_err(Unable::Refused)?;
        Ok(Self { watcher, watched: BTreeSet::new(), events })
    }

    /// Watches directories that are there and were not watched; whether there were any.
    pub(super) fn watch(&mut self, directories: BTreeSet<PathBuf>) -> Result<bool, Unable> {
        let new: Vec<_> =
            directories.into_iter().filter(|path| !self.watched.contains(path) && path.is_dir()).collect();
        if new.is_empty() {
            return Ok(false);
        }
        // All at once, since some systems start again with each.
        let mut paths = self.watcher.paths_mut();
        for path in new {
            match paths.add(&path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(path)),
                Err(error) if is_limit(&error) => return Err(Unable::Refused(error)),
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => {
                    log::debug!("the directory {} cannot be watched: {error}", path.display());
                    self.watched.insert(path);
                }
            }
        }
        paths.commit().map_err(Unable::Refused)?;
        Ok(true)
    }

    /// Waits for a hint at something that may count, or for `time`; says whether there was one.
    pub(super) fn wait(&mut self, filter: &Filter, time: Duration) -> Result<bool, Unable> {
        let first = match self.events.recv_timeout(time) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => return Err(Unable::Ended),
        };
        let mut counts = self.counts(first, filter)?;
        // All that is there is answered by one look.
        while let Ok(event) = self.events.try_recv() {
            counts |= self.counts(event, filter)?;
        }
        Ok(counts)
    }

    fn counts(&mut self, event: notify::Result<Event>, filter: &Filter) -> Result<bool, Unable> {
        let event = match event {
            Ok(event) => event,
            Err(error) if is_limit(&error) => return Err(Unable::Refused(error)),
            // A change may be missing.
            Err(_) => return Ok(true),
        };
        let mut counts = event.need_rescan();
        let moves = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
        for path in &event.paths {
            counts |= filter.may_want(path);
            if moves && self.watched.remove(path) {
                // A later directory of this name is another one, with its own watch.
                let _ = self.watcher.unwatch(path);
                counts = true;
            }
        }
        Ok(counts)
    }
}

fn is_limit(error: &notify::Error) -> bool {
    let is_limit = |reason: &std::io::Error| {
        matches!(reason.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::ENOMEM))
    };
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(reason) => is_limit(reason),
        _ => false,
    }
}
