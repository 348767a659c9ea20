//! Files without a name: in memory if the kernel supports that (memfd_create(2)), otherwise unlinked
//! temporary files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Creates a file of `size` zeros with a fixed size.
pub(crate) fn zeroed(name: &str, size: u64) -> io::Result<File> {
    let (file, _) = make(name)?;
    check_limit(size, rustix::process::getrlimit(rustix::process::Resource::Fsize).current)?;
    file.set_len(size)?;
    seal(&file, Change::Size)?;
    Ok(file)
}

/// Creates a read-only file with the contents `bytes`.
pub(crate) fn holding(name: &str, bytes: &[u8]) -> io::Result<File> {
    let (file, reading) = make(name)?;
    check_limit(bytes.len() as u64, rustix::process::getrlimit(rustix::process::Resource::Fsize).current)?;
    file.write_all_at(bytes, 0)?;
    seal(&file, Change::Everything)?;
    Ok(reading.unwrap_or(file))
}

/// Reads a whole file, independent of its position.
pub(crate) fn contents(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Refuses a file beyond the limit of file sizes: the kernel would end the process by SIGXFSZ (setrlimit(2)).
fn check_limit(size: u64, limit: Option<u64>) -> io::Result<()> {
    match limit {
        Some(limit) if limit < size => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "the limit of file sizes is {limit} bytes, and {size} are needed (ulimit -f, RLIMIT_FSIZE)"
            ),
        )),
        _ => Ok(()),
    }
}

/// The change that a seal forbids.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Size,
    Everything,
}

/// Creates the file, and a read-only opening of it if it cannot be sealed.
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
    // There are no seals here: only this process has it open for writing.
    let _ = change == Change::Everything || change == Change::Size;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_the_limit_of_file_sizes_is_refused_and_not_begun() {
        assert!(check_limit(4096, None).is_ok());
        assert!(check_limit(4096, Some(4096)).is_ok());
        let refused = check_limit(4096, Some(1024)).unwrap_err().to_string();
        assert!(refused.contains("1024 bytes, and 4096 are needed (ulimit -f"), "{refused}");
    }

    #[test]
    fn its_contents_can_be_read_and_never_changed() {
        let file = holding("mcsup-test", b"one\ntwo").unwrap();
        assert!(file.write_all_at(b"X", 0).is_err());
        assert_eq!(contents(&file).unwrap(), b"one\ntwo");
        assert_eq!(contents(&file).unwrap(), b"one\ntwo");
    }
}
