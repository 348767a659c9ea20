//! What a supervisor is, as a program: what was executed, with which words, and where. Settled when the process begins,
//! before anything changes the directory, so that an upgrade starts what the operator started.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::VARIABLE;
use crate::sys::exec;

/// A program to execute, as it was when the process began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The command line, in place of [`Image::arguments`].
    pub arguments: Vec<OsString>,
    /// A descriptor that it needs open, by its number; it stays open as long as this process.
    pub file: RawFd,
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
        self.start(&self.program, &self.arguments, value)
    }

    /// Becomes this very image again, whose executable is open as `executable`; without that, by its path.
    pub(crate) fn execute_again(&self, executable: Option<RawFd>, value: &str) -> io::Error {
        let Some(executable) = executable else { return self.execute(value) };
        let program = PathBuf::from(format!("/proc/self/fd/{executable}"));
        let arguments = self.again.as_ref().map_or(&self.arguments, |again| &again.arguments);
        self.start(&program, arguments, value)
    }

    fn start(&self, program: &Path, arguments: &[OsString], value: &str) -> io::Error {
        let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
        let environment = others.chain([(VARIABLE.into(), value.into())]);
        match std::env::set_current_dir(&self.directory) {
            Ok(()) => exec::execute(program, arguments, environment),
            Err(error) => error,
        }
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
