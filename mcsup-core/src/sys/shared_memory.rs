//! Memory that is shared by a process and those that it forks: cache lines of atomics, zeroed at the start.

use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

/// Sixteen words that share no cache line with other words, also where the processor fetches lines in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Line(pub(crate) [AtomicU64; 16]);

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
    /// Maps `len` zeroed lines.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so no existing mapping is touched.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                bytes(len),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        match NonNull::new(memory.cast::<Line>()) {
            Some(first) => Ok(Self { first, len }),
            None => Err(io::Error::other("mmap returned no memory")),
        }
    }
}

impl Deref for SharedLines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the mapping holds `len` lines, is page-aligned and zeroed (a value of every atomic), and lives as
        // long as `self`; other processes write to it through atomics only.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl Drop for SharedLines {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), bytes(self.len)) };
    }
}

fn bytes(len: usize) -> usize {
    (len * size_of::<Line>()).max(1)
}
