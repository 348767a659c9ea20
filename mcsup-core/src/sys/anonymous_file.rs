//! Files without a name, which live as long as somebody has them open or mapped: in memory where the kernel has such
//! (memfd_create(2)), elsewhere in the directory for temporary files, unlinked at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file of `size` zeros, which keeps its size.
pub(crate) fn zeroed(name: &str, size: u64) -> io::Result<File> {
    let (file, _) = make(name)?;
    file.set_len(size)?;
    seal(&file, Change::Size)?;
    Ok(file)
}

/// A file that holds `bytes` and can only be read.
pub(crate) fn holding(name: &str, bytes: &[u8]) -> io::Result<File> {
    let (file, reading) = make(name)?;
    file.write_all_at(bytes, 0)?;
    seal(&file, Change::Everything)?;
    Ok(reading.unwrap_or(file))
}

/// All of a file, whose position may be somebody else's business.
pub(crate) fn contents(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// What a seal forbids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Size,
    Everything,
}

/// The file, and where it cannot be sealed another opening of it that can only be read.
#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
fn make(name: &str) -> io::Result<(File, Option<File>)> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok((file.into(), None))
}

#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
fn seal(file: &File, change: Change) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    if change == Change::Everything {
        seals |= SealFlags::WRITE;
    }
    Ok(fcntl_add_seals(file, seals)?)
}

#[cfg(not(all(target_os = "linux", not(mcsup_force_fallback))))]
fn make(name: &str) -> io::Result<(File, Option<File>)> {
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{name}-{}-{serial}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                let reading = File::open(&path);
                std::fs::remove_file(&path)?;
                return Ok((file, Some(reading?)));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(not(all(target_os = "linux", not(mcsup_force_fallback))))]
fn seal(_: &File, change: Change) -> io::Result<()> {
    // No seals here: nobody but us has it open for writing.
    let _ = change == Change::Everything || change == Change::Size;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_holds_can_be_read_again_and_never_changed() {
        let file = holding("mcsup-test", b"one\ntwo").unwrap();
        assert!(file.write_all_at(b"X", 0).is_err());
        assert_eq!(contents(&file).unwrap(), b"one\ntwo");
        assert_eq!(contents(&file).unwrap(), b"one\ntwo");
    }
}
