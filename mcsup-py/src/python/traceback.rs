//! Exceptions and stacks as text.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rustix::fs::OFlags;
use rustix::process::Signal;

/// The traceback as Python prints it: whole, with causes.
pub(crate) fn format(py: Python<'_>, error: &PyErr) -> String {
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
pub(crate) fn one_line(py: Python<'_>, error: &PyErr) -> String {
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
pub(crate) fn files_in(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("File \"")?.split('"').next());
    // Not `<string>` and its like.
    names.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The signal that shows the stacks and nothing else: harmless by default, and sent only on purpose.
const SHOW_STACKS: Signal = Signal::URG;

/// The stacks on their way to the log, while an engine looks for them: a file in memory, which never makes a handler wait.
/// The log's own descriptor may be a full pipe that this process cannot open again, and a signal handler that writes there
/// stops its thread for good. A pipe would be too small for the stacks of many threads, of which the oldest come last.
static STACKS: Mutex<Option<File>> = Mutex::new(None);

/// Writes the stacks of all threads to `fd` when the process is aborted or crashes, and when it gets SIGURG.
///
/// # Errors
/// Python's `faulthandler` is not there, or refuses.
pub(crate) fn dump_stacks_when_asked(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let options = options(py, fd)?;
    py.import("faulthandler")?.call_method("enable", (), Some(&options))?;
    show_by_signal(py, fd)?;
    *STACKS.lock().unwrap_or_else(PoisonError::into_inner) = None;
    Ok(())
}

/// From now on SIGURG leaves the stacks for [`take_stacks`], and [`dump_stacks`] has them.
///
/// # Errors
/// There is no memory or no descriptor for a file, or Python's `faulthandler` refuses; nothing has changed.
pub(crate) fn keep_stacks(py: Python<'_>) -> PyResult<()> {
    let file = anonymous_file()?;
    // One handler's pieces stand behind another's, and at the start of what was emptied.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map_err(io::Error::from)?;
    show_by_signal(py, file.as_raw_fd())?;
    *STACKS.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

fn options(py: Python<'_>, fd: RawFd) -> PyResult<Bound<'_, PyDict>> {
    let options = PyDict::new(py);
    options.set_item("file", fd)?;
    options.set_item("all_threads", true)?;
    Ok(options)
}

fn show_by_signal(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let signal = (SHOW_STACKS.as_raw(),);
    py.import("faulthandler")?.call_method("register", signal, Some(&options(py, fd)?)).map(drop)
}

/// The stacks of all threads now. By a signal, whose handler needs no interpreter: the thread that has it may be the one
/// that hangs.
///
/// # Errors
/// They are not [kept](keep_stacks), or cannot be read.
pub(crate) fn dump_stacks() -> io::Result<String> {
    let held = STACKS.lock().unwrap_or_else(PoisonError::into_inner);
    let file = held.as_ref().ok_or_else(|| io::Error::other("they are not kept"))?;
    // SAFETY: raise(3) has no preconditions. The handler is faulthandler's, or else the signal is ignored by default; in
    // this thread it has run when the call returns.
    unsafe { libc::raise(SHOW_STACKS.as_raw()) };
    Ok(take(file)?.unwrap_or_default())
}

/// The stacks that SIGURG has left since the last call; `None`: it has not come.
///
/// # Errors
/// They cannot be read.
pub(crate) fn take_stacks() -> io::Result<Option<String>> {
    let held = STACKS.lock().unwrap_or_else(PoisonError::into_inner);
    held.as_ref().map_or(Ok(None), take)
}

/// Empties the file. A handler that is writing has the rest of its stacks in the next reading.
fn take(file: &File) -> io::Result<Option<String>> {
    let (mut bytes, mut read) = (Vec::new(), 0);
    loop {
        bytes.resize(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX), 0);
        if bytes.len() == read {
            break;
        }
        file.read_exact_at(&mut bytes[read..], read as u64)?;
        read = bytes.len();
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(target_os = "linux")]
fn anonymous_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("mcsup-stacks", MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn anonymous_file() -> io::Result<File> {
    tempfile::tempfile()
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
