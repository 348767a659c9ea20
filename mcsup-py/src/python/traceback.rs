//! Exceptions and stacks as text.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rustix::io::FdFlags;
use rustix::process::Signal;

/// The traceback as Python prints it: whole, with causes.
pub fn format(py: Python<'_>, error: &PyErr) -> String {
    let lines = || -> PyResult<String> {
        // The traceback by itself: before Python 3.12 that of the value lacks the outermost frames, or has those of
        // the import system.
        let parts = (error.get_type(py), error.value(py), error.traceback(py));
        let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
        lines.cast_into::<PyList>()?.iter().map(|line| line.extract::<String>()).collect()
    };
    // An exception whose own methods fail is still named.
    lines().unwrap_or_else(|_| format!("{error}\n"))
}

/// Kind and message of an exception in one line, without the place where it was raised.
pub fn one_line(py: Python<'_>, error: &PyErr) -> String {
    let kind = || -> PyResult<String> {
        let kind = error.get_type(py);
        let (module, name) = (kind.module()?.to_string(), kind.qualname()?.to_string());
        Ok(if module == "builtins" { name } else { format!("{module}.{name}") })
    };
    let kind = kind().unwrap_or_else(|_| "an exception".to_owned());
    let message = error.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    match message.trim().lines().next() {
        None => kind,
        Some(first) => format!("{kind}: {first}"),
    }
}

/// The files that a traceback names.
pub fn files_in(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("File \"")?.split('"').next());
    // Not `<string>` and its like.
    names.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The signal that shows the stacks and nothing else: harmless by default, and used by nobody who does not ask for it.
const SHOW_STACKS: Signal = Signal::URG;

/// Where stacks go on their way to the log: a pipe of this process that never waits. The log's own descriptor may be a
/// full pipe that this process cannot open again, and a signal handler that writes there stops its thread for good.
struct Stacks {
    owner: u32,
    reading: OwnedFd,
    writing: OwnedFd,
}

static STACKS: Mutex<Option<Stacks>> = Mutex::new(None);

impl Stacks {
    fn new() -> io::Result<Self> {
        let (reading, writing) = rustix::pipe::pipe()?;
        for end in [&reading, &writing] {
            rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self { owner: std::process::id(), reading, writing })
    }

    /// A fork shares its parent's pipe: it gets one of its own, by the number that the handler knows.
    fn be_ours(&mut self) -> io::Result<()> {
        if self.owner == std::process::id() {
            return Ok(());
        }
        let new = Self::new()?;
        for (new, held) in [(&new.reading, &mut self.reading), (&new.writing, &mut self.writing)] {
            rustix::io::dup2(new, held)?;
            rustix::io::fcntl_setfd(held, FdFlags::CLOEXEC)?;
        }
        self.owner = new.owner;
        Ok(())
    }

    /// All that is in the pipe. Of more than it takes the end is lost.
    fn take(&self) -> String {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(&self.reading, &mut piece))
        {
            bytes.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Writes the stacks of all threads to `fd` when the process is aborted or crashes; prepares [`dump_stacks`].
pub fn dump_stacks_when_asked(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("file", fd)?;
    options.set_item("all_threads", true)?;
    let faulthandler = py.import("faulthandler")?;
    faulthandler.call_method("enable", (), Some(&options))?;
    let stacks = Stacks::new()?;
    options.set_item("file", stacks.writing.as_raw_fd())?;
    faulthandler.call_method("register", (SHOW_STACKS.as_raw(),), Some(&options))?;
    *STACKS.lock().unwrap_or_else(PoisonError::into_inner) = Some(stacks);
    Ok(())
}

/// The stacks of all threads now. By a signal, whose handler needs no interpreter: the thread that has it may be the one
/// that hangs.
pub fn dump_stacks() -> io::Result<String> {
    let mut held = STACKS.lock().unwrap_or_else(PoisonError::into_inner);
    let stacks = held.as_mut().ok_or_else(|| io::Error::other("they were never asked for"))?;
    stacks.be_ours()?;
    // SAFETY: raise(3) has no preconditions. The handler is faulthandler's, or else the signal is ignored by default; in
    // this thread it has run when the call returns.
    unsafe { libc::raise(SHOW_STACKS.as_raw()) };
    Ok(stacks.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_traceback_are_found_in_it() {
        let text = "Traceback (most recent call last):\n  File \"/srv/app.py\", line 1, in <module>\n    import new\n  \
                    File \"/srv/my new/x.py\", line 2\n    File \"relative.py\"\n  File \"<string>\", line 1\nFile";
        let found: Vec<_> = files_in(text).collect();
        assert_eq!(found, ["/srv/app.py", "/srv/my new/x.py"].map(PathBuf::from));
    }
}
