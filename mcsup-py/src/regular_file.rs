//! Reading small regular files, in a process that must not wait: the supervisor reads settings and certificates at a
//! reload, in its event loop.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// The largest file, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a regular file whole. Opening never blocks on a FIFO or device.
///
/// # Errors
/// It cannot be read, it is no regular file, or it is larger than 1 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other(format!("it is {}, not a regular file", kind_name(kind))));
    }
    read_bounded(file)
}

/// Reads a file to its end.
///
/// # Errors
/// It cannot be read, or has more than 1 MiB.
pub(crate) fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "a special file",
    }
}
