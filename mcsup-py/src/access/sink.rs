//! Where lines go: a file to which several processes append, or standard output.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mcsup_core::host::own_file;

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
        /// Whether the last bytes in the file are the beginning of a line.
        is_torn: bool,
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
        Ok(Sink::File { file: open(&path)?, path, lost: 0, is_torn: false })
    }

    /// Writes whole lines in one call, so that those of several processes do not mix. A full disk loses lines, never
    /// requests; the error log says so, once when it begins and once when it is over.
    pub fn write(&mut self, lines: &[u8]) {
        match self {
            Sink::Stdout => {
                let _ = io::stdout().lock().write_all(lines).and_then(|()| io::stdout().flush());
            }
            Sink::File { file, path, lost, is_torn } => match append(file, lines, is_torn) {
                Ok(()) if *lost == 0 => {}
                Ok(()) => {
                    log::warn!("the access log {} is written again; lines lost: {lost}", path.display());
                    *lost = 0;
                }
                Err((error, count)) => {
                    if *lost == 0 {
                        log::error!(
                            "cannot write the access log {}: {error}; lines are lost",
                            path.display()
                        );
                    }
                    *lost += count;
                }
            },
        }
    }

    /// Opens the file anew; where that fails the old one goes on being used.
    pub fn reopen(&mut self) {
        if let Sink::File { file, path, is_torn, .. } = self {
            match open(path) {
                Ok(new) => (*file, *is_torn) = (new, false),
                Err(error) => log::error!("cannot open the access log {} anew: {error}", path.display()),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    own_file::append(path, 0o640)
}

/// Writes whole lines behind what is there. Where that fails, also how many of them are not there whole. A line that was
/// cut short is ended before the next one.
fn append(to: &mut impl Write, lines: &[u8], is_torn: &mut bool) -> Result<(), (io::Error, usize)> {
    let mended;
    let bytes = match *is_torn {
        // In one call, as other processes write between two.
        true => {
            mended = [b"\n", lines].concat();
            &mended
        }
        false => lines,
    };
    let mut left = bytes;
    let error = loop {
        match to.write(left) {
            Ok(0) if !left.is_empty() => break io::ErrorKind::WriteZero.into(),
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
        if left.is_empty() {
            *is_torn = false;
            return Ok(());
        }
    };
    if let Some(last) = bytes.get(..bytes.len() - left.len()).and_then(|written| written.last()) {
        *is_torn = *last != b'\n';
    }
    let left = left.get(left.len().saturating_sub(lines.len())..).unwrap_or_default();
    Err((error, left.iter().filter(|byte| **byte == b'\n').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has room for so many bytes more.
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_a_line_that_was_cut_short_the_next_one_begins_on_a_line_of_its_own() {
        let (mut disk, mut is_torn) = (Disk { content: Vec::new(), room: 8 }, false);
        let mut lost = |room, lines: &[u8]| {
            disk.room = room;
            let outcome = append(&mut disk, lines, &mut is_torn);
            (outcome.err().map_or(0, |(_, count)| count), String::from_utf8(disk.content.clone()).unwrap())
        };
        assert_eq!(lost(6, b"one\ntwo\nthree\n"), (2, "one\ntw".to_owned()));
        assert_eq!(lost(0, b"four\n"), (1, "one\ntw".to_owned()));
        // There is room for the end of the torn line only.
        assert_eq!(lost(1, b"five\n"), (1, "one\ntw\n".to_owned()));
        assert_eq!(lost(9, b"six\n"), (0, "one\ntw\nsix\n".to_owned()));
        assert_eq!(lost(9, b"seven\n"), (0, "one\ntw\nsix\nseven\n".to_owned()));
    }
}
