//! Where lines go: a file to which several processes append, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An open place for lines.
#[derive(Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File {
        /// The open file.
        file: File,
        /// Where to open it anew.
        path: PathBuf,
        /// How many lines could not be written.
        lost: usize,
    },
}

impl Sink {
    /// `-` for standard output, otherwise the path of a file.
    pub fn open(name: &str) -> io::Result<Self> {
        if name == "-" {
            return Ok(Sink::Stdout);
        }
        // A path that still works after a change of directory.
        let path = std::path::absolute(name)?;
        Ok(Sink::File { file: open(&path)?, path, lost: 0 })
    }

    /// Writes whole lines in one call, so that those of several processes do not mix. A full disk loses lines, never
    /// requests; the error log says so, once when it begins and once when it is over.
    pub fn write(&mut self, lines: &[u8]) {
        match self {
            Sink::Stdout => {
                let _ = io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush());
            }
            Sink::File { file, path, lost } => match file.write_all(lines) {
                Ok(()) if *lost == 0 => {}
                Ok(()) => {
                    log::warn!("the access log {} is written again; lines lost: {lost}", path.display());
                    *lost = 0;
                }
                Err(error) => {
                    if *lost == 0 {
                        log::error!(
                            "cannot write the access log {}: {error}; lines are lost",
                            path.display()
                        );
                    }
                    *lost += lines.iter().filter(|byte| **byte == b'\n').count();
                }
            },
        }
    }

    /// Opens the file anew; where that fails the old one goes on being used.
    pub fn reopen(&mut self) {
        if let Sink::File { file, path, .. } = self {
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => log::error!("cannot open the access log {} anew: {error}", path.display()),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
