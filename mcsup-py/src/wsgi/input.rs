//! `wsgi.input`: a request's body, which is here already. Reading it never waits for the client.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList};

use crate::app::{Body, Memory};

/// The stream.
#[pyclass(frozen, module = "mcsup", name = "InputStream")]
pub(super) struct Input(Mutex<Source>);

enum Source {
    Memory(Cursor<Memory>),
    File { file: BufReader<Arc<File>>, left: u64 },
}

/// A read of more than this from a file lets other threads of Python run meanwhile.
const LARGE: usize = 64 * 1024;

impl Input {
    pub(super) fn new(body: Body) -> Self {
        Self(Mutex::new(match body {
            Body::Empty => Source::Memory(Cursor::default()),
            Body::Memory(bytes) => Source::Memory(Cursor::new(bytes)),
            Body::File { file, length } => {
                Source::File { file: BufReader::with_capacity(LARGE, file), left: length }
            }
        }))
    }

    fn source(&self, py: Python<'_>) -> MutexGuard<'_, Source> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Up to `limit` bytes; all that is left without one.
    fn block<'py>(&mut self, py: Python<'py>, limit: Option<usize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit.unwrap_or(usize::MAX);
        match self {
            Source::Memory(cursor) => {
                let rest = cursor.fill_buf()?;
                let bytes = PyBytes::new(py, &rest[..limit.min(rest.len())]);
                cursor.consume(bytes.as_bytes().len());
                Ok(bytes)
            }
            Source::File { file, left } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(limit);
                let bytes = PyBytes::new_with(py, count, |room| {
                    let read = if count > LARGE {
                        py.detach(|| file.read_exact(room))
                    } else {
                        file.read_exact(room)
                    };
                    Ok(read?)
                })?;
                *left -= count as u64;
                Ok(bytes)
            }
        }
    }

    /// Up to the end of the line, but no more than `limit` bytes.
    fn line(&mut self, limit: Option<usize>) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let limit = limit.map_or(u64::MAX, |limit| limit as u64);
        match self {
            Source::Memory(cursor) => cursor.take(limit).read_until(b'\n', &mut line)?,
            Source::File { file, left } => {
                let count = file.take(limit.min(*left)).read_until(b'\n', &mut line)?;
                *left -= count as u64;
                count
            }
        };
        Ok(line)
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
        self.source(py).block(py, limit(size))
    }

    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.source(py).line(limit(size))?))
    }

    /// Lines of at least `hint` bytes together, as `io.IOBase` has it.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let (lines, mut size) = (PyList::empty(py), 0);
        let hint = limit(hint).filter(|hint| *hint > 0);
        loop {
            let line = self.source(py).line(None)?;
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
        let line = self.source(py).line(None)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }
}
