//! Memory shared with forked processes and with the next program: zeroed cache lines of atomics in a file
//! without a name.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mm::{MapFlags, ProtFlags};

use super::anonymous_file;

/// The name of the file in the mappings of a process.
pub(crate) const FILE_NAME: &str = "mcsup-scoreboard";

/// Sixteen words in cache lines of their own. Some processors fetch lines in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Line(pub(crate) [AtomicU64; 16]);

/// The mappings of this process: their addresses and lengths in bytes.
static MAPPED: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn mapped() -> MutexGuard<'static, Vec<(usize, usize)>> {
    MAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An array of [`Line`]s, shared over fork. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct SharedLines {
    first: NonNull<Line>,
    len: usize,
}

// SAFETY: it is a pointer to memory that this value owns, and atomics may be used from any thread.
unsafe impl Send for SharedLines {}
// SAFETY: as above.
unsafe impl Sync for SharedLines {}

impl SharedLines {
    /// Maps `len` zeroed lines; returns them with their file, for [`map`](Self::map).
    pub(crate) fn new(len: usize) -> io::Result<(Self, File)> {
        let file = anonymous_file::zeroed(FILE_NAME, bytes(len) as u64)?;
        Ok((Self::map(&file, len)?, file))
    }

    /// Maps `len` lines of `file`.
    ///
    /// # Errors
    /// The file is too short, or mmap(2) fails.
    pub(crate) fn map(file: &File, len: usize) -> io::Result<Self> {
        let needed = size_of::<Line>().checked_mul(len).and_then(|size| u64::try_from(size).ok());
        if needed.is_none_or(|needed| file.metadata().map_or(0, |file| file.len()) < needed) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the kernel chooses the place, so no existing mapping is touched; the file is as long as the
        // mapping, and of those that `new` makes, which keep their size.
        let memory = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                bytes(len),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        match NonNull::new(memory.cast::<Line>()) {
            Some(first) => {
                mapped().push((first.as_ptr().expose_provenance(), bytes(len)));
                Ok(Self { first, len })
            }
            None => Err(io::Error::other("mmap returned no memory")),
        }
    }
}

/// The mapping of [`SharedLines::is_not_for_children`], and its length; null: none.
static KEPT: AtomicPtr<Line> = AtomicPtr::new(ptr::null_mut());
static KEPT_LENGTH: AtomicUsize = AtomicUsize::new(0);

impl SharedLines {
    /// Gives processes forked by this process's own code zeroed memory in this place. One mapping at a time.
    pub(crate) fn is_not_for_children(&self) {
        KEPT_LENGTH.store(bytes(self.len), Ordering::Release);
        KEPT.store(self.first.as_ptr(), Ordering::Release);
    }
}

/// Replaces the mapping in a process forked by a worker's own code. Uses only atomics and a system call.
pub(super) fn release_in_child() {
    let (first, length) = (KEPT.swap(ptr::null_mut(), Ordering::AcqRel), KEPT_LENGTH.load(Ordering::Acquire));
    if !first.is_null() {
        // SAFETY: `is_not_for_children` has set the mapping of a value that lives: the drop takes it back.
        unsafe { replace(first, length) };
    }
}

/// Replaces all mappings by zeroed memory, in a new process with one thread that is no part of a pool.
pub(crate) fn replace_all() {
    for (first, length) in mapped().drain(..) {
        // SAFETY: the list has the mappings of values that live: the drop removes them.
        unsafe { replace(ptr::with_exposed_provenance_mut(first), length) };
    }
}

/// Replaces a mapping by zeroed memory. Uses only a system call.
///
/// # Safety
/// It is exactly what `map` has mapped, and nothing has unmapped it.
unsafe fn replace(first: *mut Line, length: usize) {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED);
    // SAFETY: by this function's contract the place is the mapping's alone. One step puts memory of the same length
    // there, which holds valid atomics.
    unsafe { libc::mmap(first.cast(), length, access, flags, -1, 0) };
}

/// Forgets the parent's mapping, in a new worker or mold.
pub(super) fn forget() {
    KEPT.store(ptr::null_mut(), Ordering::Release);
}

impl Deref for SharedLines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the mapping holds `len` lines, is page-aligned and holds integers (values of every atomic),
        // and lives as long as `self`; other processes write to it through atomics only.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl Drop for SharedLines {
    fn drop(&mut self) {
        let first = self.first.as_ptr();
        let _ = KEPT.compare_exchange(first, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        mapped().retain(|(other, _)| *other != first.addr());
        // SAFETY: exactly what `map` mapped, and no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), bytes(self.len)) };
    }
}

fn bytes(len: usize) -> usize {
    (len * size_of::<Line>()).max(1)
}
