//! `wsgi.input`: a request's body, which is here already. Reading it never waits for the client.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList};

use crate::app::Body;

/// The stream.
#[pyclass(frozen, module = "mcsup", name = "InputStream")]
pub(super) struct Input(Mutex<Source>);

enum Source {
    Memory(Cursor<Vec<u8>>),
    File(BufReader<File>),
}

impl Input {
    pub(super) fn new(body: Body) -> Self {
        Self(Mutex::new(match body {
            Body::Empty => Source::Memory(Cursor::default()),
            Body::Memory(bytes) => Source::Memory(Cursor::new(bytes)),
            Body::File { file, .. } => Source::File(BufReader::with_capacity(64 * 1024, file)),
        }))
    }

    fn with<T>(&self, py: Python<'_>, act: impl FnOnce(&mut Source) -> io::Result<T>) -> PyResult<T> {
        let mut source = self.0.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(act(&mut source)?)
    }

    fn line(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Vec<u8>> {
        self.with(py, |source| source.read_line(limit))
    }
}

impl Source {
    fn read_up_to(&mut self, limit: Option<usize>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = limit.map_or(u64::MAX, |limit| limit as u64);
        match self {
            Source::Memory(cursor) => cursor.take(limit).read_to_end(&mut bytes)?,
            Source::File(file) => file.take(limit).read_to_end(&mut bytes)?,
        };
        Ok(bytes)
    }

    fn read_line(&mut self, limit: Option<usize>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = limit.map_or(u64::MAX, |limit| limit as u64);
        match self {
            Source::Memory(cursor) => cursor.take(limit).read_until(b'\n', &mut bytes)?,
            Source::File(file) => file.take(limit).read_until(b'\n', &mut bytes)?,
        };
        Ok(bytes)
    }
}

/// `None` and negative numbers mean all.
fn limit(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with(py, |source| source.read_up_to(limit(size)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.line(py, limit(size))?))
    }

    /// Lines of at least `hint` bytes together, as `io.IOBase` has it.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let (lines, mut size) = (PyList::empty(py), 0);
        let hint = limit(hint).filter(|hint| *hint > 0);
        loop {
            let line = self.line(py, None)?;
            if line.is_empty() {
                return Ok(lines);
            }
            size += line.len();
            lines.append(PyBytes::new(py, &line))?;
            if hint.is_some_and(|hint| size >= hint) {
                return Ok(lines);
            }
        }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.line(py, None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }
}
