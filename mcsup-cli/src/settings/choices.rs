//! Settings whose value is one of a few: what there is to choose from.

use std::path::PathBuf;

/// How many workers more than asked for a reload may start at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    /// So many, 1 to 512.
    Extra(usize),
    /// A whole second pool.
    All,
}

/// What to do about threads that run in the mold when it forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreloadThreads {
    /// Not to fork.
    Refuse,
    /// To name them in the log, and fork.
    Warn,
}

/// How changes of files are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadEngine {
    /// As the system does it best.
    Auto,
    /// By looking again and again.
    Poll,
    /// By Linux' inotify.
    Inotify,
}

/// Where the control socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSocket {
    /// Beside the pid file, where there is one.
    Beside,
    /// At this path.
    At(PathBuf),
    /// Nowhere.
    Off,
}
