//! What a supervisor is, as a program: what was executed, with which words, and where. Settled when the process begins,
//! before anything changes the directory, so that an upgrade starts what the operator started.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VARIABLE;
use crate::sys::exec;

/// A program to execute, as it was when the process began.
#[derive(Debug, Clone)]
pub struct Image {
    /// The executable's path, absolute.
    pub program: PathBuf,
    /// All words of its command line, its own name first.
    pub arguments: Vec<OsString>,
    /// The directory in which it is started.
    pub directory: PathBuf,
    /// How it is executed again once its files may be others, where that takes more than its open executable.
    pub again: Option<Again>,
}

/// How an image that consists of more files than its executable comes back.
#[derive(Debug, Clone)]
pub struct Again {
    /// The command line, in place of [`Image::arguments`].
    pub arguments: Vec<OsString>,
    /// A file that it needs open. Its descriptor has the same number in the program that is executed.
    pub file: Arc<OwnedFd>,
}

/// An [`Image`] as it is written down for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    #[serde(with = "crate::host::recorded_path")]
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    #[serde(with = "crate::host::recorded_path")]
    directory: PathBuf,
    pub(crate) again: Option<AgainRecord>,
}

/// An [`Again`] as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgainRecord {
    arguments: Vec<OsString>,
    pub(crate) file: RawFd,
}

impl Image {
    /// This process: the executable by the name that it was started by, where that still means it, so that a link that
    /// is put somewhere else is followed. To be called before the directory changes.
    ///
    /// # Errors
    /// The system does not say which executable this is, or the directory is gone.
    pub fn of_this_process() -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let directory = std::env::current_dir()?;
        let executable = std::env::current_exe()?;
        let name = arguments.first().map(Path::new).filter(|name| !name.as_os_str().is_empty());
        let found = name.into_iter().flat_map(|name| candidates(name, &directory));
        let program = found.into_iter().find(|path| is_same(path, &executable)).unwrap_or(executable);
        Ok(Self { program, arguments, directory, again: None })
    }

    /// Becomes the program that is there now, with `value` in [`VARIABLE`] and otherwise the environment as it is.
    /// Returns only where that failed.
    pub(crate) fn execute(&self, value: &str) -> io::Error {
        start(&self.program, &self.arguments, &self.directory, value)
    }

    pub(crate) fn describe(&self) -> ImageRecord {
        let again = self
            .again
            .as_ref()
            .map(|again| AgainRecord { arguments: again.arguments.clone(), file: again.file.as_raw_fd() });
        let Self { program, arguments, directory, .. } = self.clone();
        ImageRecord { program, arguments, directory, again }
    }
}

impl ImageRecord {
    /// The image that was described, whose file is `file`.
    pub(crate) fn adopt(self, file: Option<OwnedFd>) -> Image {
        let Self { program, arguments, directory, again } = self;
        let again = again
            .zip(file)
            .map(|(AgainRecord { arguments, .. }, file)| Again { arguments, file: file.into() });
        Image { program, arguments, directory, again }
    }

    /// Becomes this very image again, whose executable is open as `executable`; without that, by its path.
    pub(crate) fn execute_again(&self, executable: Option<RawFd>, value: &str) -> io::Error {
        let Some(executable) = executable else {
            return start(&self.program, &self.arguments, &self.directory, value);
        };
        let program = PathBuf::from(format!("/proc/self/fd/{executable}"));
        let arguments = self.again.as_ref().map_or(&self.arguments, |again| &again.arguments);
        start(&program, arguments, &self.directory, value)
    }
}

fn start(program: &Path, arguments: &[OsString], directory: &Path, value: &str) -> io::Error {
    let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let environment = others.chain([(VARIABLE.into(), value.into())]);
    match std::env::set_current_dir(directory) {
        Ok(()) => exec::execute(program, arguments, environment),
        Err(error) => error,
    }
}

/// Where a shell would have found `name`.
fn candidates(name: &Path, directory: &Path) -> Vec<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return vec![directory.join(name)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| directory.join(place).join(name)).collect()
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_given_is_kept_where_it_means_the_executable() {
        let image = Image::of_this_process().unwrap();
        assert!(is_same(&image.program, &std::env::current_exe().unwrap()));
        assert!(image.program.is_absolute());
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(&image.program, &link).unwrap();
        assert!(candidates(Path::new("./current"), dir.path()).iter().all(|path| is_same(path, &link)));
    }
}
