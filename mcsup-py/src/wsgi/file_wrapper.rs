//! `wsgi.file_wrapper`: an iterable over a file-like object, which the server may send by itself.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The largest size that a file without blocks is not believed.
const LARGEST_MADE_UP: u64 = 64 * 1024;

/// The wrapper.
#[pyclass(frozen, module = "mcsup")]
pub(super) struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    block_size: usize,
}

/// A part of a file that can be sent without Python.
#[derive(Debug)]
pub(super) struct Sendable {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) length: u64,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=8192, /))]
    fn new(filelike: Py<PyAny>, block_size: usize) -> Self {
        Self { filelike, block_size: block_size.max(1) }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1("read", (self.block_size,))?;
        let at_end = block.cast::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().is_empty());
        Ok((!at_end).then_some(block))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let filelike = self.filelike.bind(py);
        if filelike.hasattr("close")? {
            filelike.call_method0("close")?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// The rest of a real file, from the position that Python has reached. `None`: anything else.
    pub(super) fn sendable(&self, py: Python<'_>) -> Option<Sendable> {
        let filelike = self.filelike.bind(py);
        if !reads_as_it_is(filelike).ok()? {
            return None;
        }
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        // Last: the other calls let other threads of Python run, which may close the file and open another.
        let fd: RawFd = filelike.call_method0("fileno").ok()?.extract().ok()?;
        if fd < 0 {
            return None;
        }
        // SAFETY: the Python object is alive and owns the descriptor until it is closed. `fileno` has said that it is not,
        // and no other thread of Python has run since.
        let owned = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().ok()?;
        let file = File::from(owned);
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        // Files of procfs and sysfs have no blocks, and st_size is not their length (stat(2), "NOTES"): it is 0, or a page or
        // so. A larger one without blocks is a hole.
        if metadata.blocks() == 0 && metadata.len() <= LARGEST_MADE_UP {
            return None;
        }
        Some(Sendable { file, offset, length: metadata.len().saturating_sub(offset) })
    }
}

/// Whether reading `filelike` gives the bytes of the file behind its descriptor. A descriptor is no proof: that of a
/// `GzipFile` gives the packed bytes. So only Python's own files, over a raw file, are trusted.
fn reads_as_it_is(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = filelike.py();
    let io = py.import(intern!(py, "io"))?;
    let is =
        |object: &Bound<'_, PyAny>, name| -> PyResult<bool> { Ok(object.get_type().is(&io.getattr(name)?)) };
    if is(filelike, "FileIO")? {
        return Ok(true);
    }
    let is_buffered = is(filelike, "BufferedReader")? || is(filelike, "BufferedRandom")?;
    if !is_buffered || !is(&filelike.getattr("raw")?, "FileIO")? {
        return Ok(false);
    }
    // What was written through the same object is in the file only then.
    filelike.call_method0("flush")?;
    Ok(true)
}
