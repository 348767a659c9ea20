//! Where lines go: a file to which several processes append, or standard output.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mcsup_core::host::outlet::{Cut, Outlet};
use mcsup_core::host::own_file::{self, LOG_MODE};
use mcsup_core::host::patience::{Patience, RENEWED_AFTER};

/// How often the beginning of a loss is logged, and its end: a reader that is too slow makes many.
const TELL_EVERY: Duration = RENEWED_AFTER;

/// An open place for lines.
#[derive(Debug)]
pub(crate) struct Sink {
    outlet: Outlet,
    /// Where to reopen it; `None`: standard output.
    path: Option<PathBuf>,
    patience: Patience,
    /// How many lines could not be written and are not reported yet.
    lost: usize,
    /// Whether the last lines could not be written.
    is_losing: bool,
    /// When the error log last reported the beginning of a loss, and the end of one.
    told: [Option<Instant>; 2],
    /// Whether the last bytes in the file are the beginning of a line.
    is_torn: bool,
}

impl Sink {
    /// `-` for standard output, otherwise the path of a file.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let (outlet, path) = match name {
            "-" => (Outlet::of_stream(rustix::stdio::stdout()), None),
            name => {
                // A path that still works after a change of directory.
                let path = std::path::absolute(name)?;
                (Outlet::of_file(own_file::append(&path, LOG_MODE)?), Some(path))
            }
        };
        Ok(Self::with(outlet, path))
    }

    fn with(outlet: Outlet, path: Option<PathBuf>) -> Self {
        Self {
            outlet,
            path,
            patience: Patience::with_a_reader(),
            lost: 0,
            is_losing: false,
            told: [None; 2],
            is_torn: false,
        }
    }

    /// Writes whole lines, so that those of several processes do not mix. A full disk or a pipe without a reader loses
    /// lines, never requests; the error log says so when it begins and when it is over.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        static NONE: Patience = Patience::none();
        let patience = if self.is_losing { &NONE } else { &self.patience };
        let put = |bytes: &[u8]| self.outlet.write_lines(bytes, patience);
        match append(put, lines, &mut self.is_torn) {
            Ok(()) => {
                self.is_losing = false;
                if self.lost > 0 && is_due(&mut self.told[1]) {
                    log::warn!("the access log {} is written again; lines lost: {}", self.name(), self.lost);
                    self.lost = 0;
                }
            }
            Err((error, count)) => {
                let begins = !std::mem::replace(&mut self.is_losing, true);
                if begins && is_due(&mut self.told[0]) {
                    log::error!("cannot write the access log {}: {error}; lines are lost", self.name());
                }
                self.lost += count;
            }
        }
    }

    /// Opens the file again; where that fails the old one goes on being used.
    pub(crate) fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        let opened = own_file::append(path, LOG_MODE).and_then(|file| self.outlet.replace(file));
        match opened {
            Ok(()) => self.is_torn = false,
            Err(error) => log::error!("cannot reopen the access log {}: {error}", path.display()),
        }
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "on standard output".to_owned(), |path| path.display().to_string())
    }
}

impl Drop for Sink {
    /// Reports the losses that are not reported yet.
    fn drop(&mut self) {
        if self.lost > 0 {
            log::warn!("the access log {} ends; lines lost: {}", self.name(), self.lost);
        }
    }
}

/// Whether a message of `last` may be logged again; then it counts as logged now.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// Writes whole lines behind what is there. Where that fails, also how many of them are not there whole. A line that was
/// cut short is ended before the next one.
fn append(
    put: impl FnOnce(&[u8]) -> Result<(), Cut>,
    lines: &[u8],
    is_torn: &mut bool,
) -> Result<(), (io::Error, usize)> {
    let mended;
    let bytes = match *is_torn {
        // In one call, as other processes write between two.
        true => {
            mended = [b"\n", lines].concat();
            &mended
        }
        false => lines,
    };
    let Err(Cut { error, written }) = put(bytes) else {
        *is_torn = false;
        return Ok(());
    };
    if let Some(last) = bytes.get(..written).and_then(|written| written.last()) {
        *is_torn = *last != b'\n';
    }
    let left = bytes.get(written..).unwrap_or_default();
    let left = left.get(left.len().saturating_sub(lines.len())..).unwrap_or_default();
    Err((error.into(), left.iter().filter(|byte| **byte == b'\n').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a limited number of free bytes.
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Disk {
        fn write(&mut self, bytes: &[u8]) -> Result<(), Cut> {
            let written = bytes.len().min(self.room);
            self.content.extend_from_slice(&bytes[..written]);
            self.room -= written;
            if written == bytes.len() {
                Ok(())
            } else {
                Err(Cut { error: rustix::io::Errno::NOSPC, written })
            }
        }
    }

    #[test]
    fn after_a_line_that_was_cut_short_the_next_one_begins_on_a_line_of_its_own() {
        let (mut disk, mut is_torn) = (Disk { content: Vec::new(), room: 8 }, false);
        let mut lost = |room, lines: &[u8]| {
            disk.room = room;
            let outcome = append(|bytes| disk.write(bytes), lines, &mut is_torn);
            (outcome.err().map_or(0, |(_, count)| count), String::from_utf8(disk.content.clone()).unwrap())
        };
        assert_eq!(lost(6, b"one\ntwo\nthree\n"), (2, "one\ntw".to_owned()));
        assert_eq!(lost(0, b"four\n"), (1, "one\ntw".to_owned()));
        // There is room for the end of the torn line only.
        assert_eq!(lost(1, b"five\n"), (1, "one\ntw\n".to_owned()));
        assert_eq!(lost(9, b"six\n"), (0, "one\ntw\nsix\n".to_owned()));
        assert_eq!(lost(9, b"seven\n"), (0, "one\ntw\nsix\nseven\n".to_owned()));
    }

    /// Empties a full pipe some time after each line was begun.
    fn write_to_a_slow_reader(sink: &mut Sink, mut reader: std::fs::File, rounds: usize) {
        use std::io::Read;
        for _ in 0..rounds {
            while sink.outlet.write(&[b'x'; 4096], &Patience::none()).is_ok() {}
            let slow = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                reader.read_exact(&mut [0; 16384]).unwrap();
                reader
            });
            sink.write(b"a line\n");
            reader = slow.join().unwrap();
            // There is room again: the next line may be waited for.
            sink.write(b"a line\n");
        }
    }

    #[test]
    fn a_slow_reader_is_not_waited_for_at_each_line() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut sink = Sink::with(Outlet::of_file(writer), None);
        write_to_a_slow_reader(&mut sink, reader.into(), 20);
        assert!(sink.lost > 10, "all but {} of 20 lines waited", sink.lost);
        assert!(!sink.is_losing);
    }
}
