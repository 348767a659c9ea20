//! The program of a supervisor: executable, arguments and directory.
//!
//! They are recorded when the process begins, before the directory changes, so that an upgrade starts the
//! operator's program.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VARIABLE;
use crate::host::service_manager;
use crate::sys::exec;

/// A program to execute, as recorded when the process began.
#[derive(Debug, Clone)]
pub struct Image {
    /// The executable's path, absolute.
    pub program: PathBuf,
    /// Its command line, including its own name.
    pub arguments: Vec<OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// The command for executing this image again after its files changed. Needed if its open executable is
    /// not enough.
    pub reexec: Option<Reexec>,
}

/// The command for executing an image again that has more files than its executable.
#[derive(Debug, Clone)]
pub struct Reexec {
    /// The command line, in place of [`Image::arguments`].
    pub arguments: Vec<OsString>,
    /// A file that must be open under the same descriptor number in the executed program.
    pub file: Arc<OwnedFd>,
}

/// An [`Image`] as it is passed to the next image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    #[serde(with = "crate::host::recorded_path")]
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    #[serde(with = "crate::host::recorded_path")]
    directory: PathBuf,
    #[serde(rename = "again")]
    pub(crate) reexec: Option<ReexecRecord>,
}

/// An [`Reexec`] as it is passed to the next image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReexecRecord {
    arguments: Vec<OsString>,
    pub(crate) file: RawFd,
}

impl Image {
    /// Describes this process. Keeps the name that it was started by, if that still refers to the executable,
    /// so that a changed symbolic link takes effect. Called before the directory changes.
    ///
    /// # Errors
    /// The system does not report the executable, or the directory is gone.
    pub fn of_this_process() -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let directory = std::env::current_dir()?;
        let executable = std::env::current_exe()?;
        let name = arguments.first().map(Path::new).filter(|name| !name.as_os_str().is_empty());
        let found = name.into_iter().flat_map(|name| candidates(name, &directory));
        let program = found.into_iter().find(|path| is_same(path, &executable)).unwrap_or(executable);
        Ok(Self { program, arguments, directory, reexec: None })
    }

    /// Executes the program that is installed now, with `value` in [`VARIABLE`]. Returns only on an error.
    pub(crate) fn execute(&self, value: &str) -> io::Error {
        start(&self.program, &self.arguments, &self.directory, value)
    }

    pub(crate) fn describe(&self) -> ImageRecord {
        let reexec = self.reexec.as_ref().map(|reexec| ReexecRecord {
            arguments: reexec.arguments.clone(),
            file: reexec.file.as_raw_fd(),
        });
        let Self { program, arguments, directory, .. } = self.clone();
        ImageRecord { program, arguments, directory, reexec }
    }
}

impl ImageRecord {
    /// The recorded image, with `file` as its open file.
    pub(crate) fn adopt(self, file: Option<OwnedFd>) -> Image {
        let Self { program, arguments, directory, reexec } = self;
        let reexec = reexec
            .zip(file)
            .map(|(ReexecRecord { arguments, .. }, file)| Reexec { arguments, file: file.into() });
        Image { program, arguments, directory, reexec }
    }

    /// Executes this image again, by its open executable; without one, by its path.
    pub(crate) fn execute_again(&self, executable: Option<RawFd>, value: &str) -> io::Error {
        let Some(executable) = executable else {
            return start(&self.program, &self.arguments, &self.directory, value);
        };
        let program = PathBuf::from(format!("/proc/self/fd/{executable}"));
        let arguments = self.reexec.as_ref().map_or(&self.arguments, |reexec| &reexec.arguments);
        start(&program, arguments, &self.directory, value)
    }
}

fn start(program: &Path, arguments: &[OsString], directory: &Path, value: &str) -> io::Error {
    let mut added = service_manager::for_next_image(std::process::id());
    added.push((VARIABLE.into(), value.into()));
    let others = std::env::vars_os().filter(|(name, _)| !added.iter().any(|(added, _)| added == name));
    let environment = others.chain(added.iter().cloned());
    match std::env::set_current_dir(directory) {
        Ok(()) => exec::execute(program, arguments, environment),
        Err(error) => error,
    }
}

/// The paths that a shell would try for `name`.
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
