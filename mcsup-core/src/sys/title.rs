//! The command line of this process in process listings (/proc/PID/cmdline).
//!
//! On Linux the kernel takes another block of memory for it (PR_SET_MM_MAP in prctl(2)), without privileges where it has
//! CONFIG_CHECKPOINT_RESTORE. The arguments and the environment of the process stay as they are in its memory. An exec ends
//! the title. Elsewhere nothing changes.

/// Sets the words of the command line. Without an effect where the system has no way to do so, and in a process with
/// other threads.
#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
pub(crate) fn set(words: &[&[u8]]) {
    // Another thread could move the end of the heap between the look at it and the call.
    if !super::fork::has_one_thread() {
        return;
    }
    let Some(places) = std::fs::read("/proc/self/stat").ok().and_then(|stat| Places::read(&stat)) else {
        return;
    };
    // The kernel reads it until the next title, and a process has few of them.
    let block: &'static [u8] = Box::leak(block_of(words).into_boxed_slice());
    places.apply(block);
}

#[cfg(not(all(target_os = "linux", not(mcsup_force_fallback))))]
pub(crate) fn set(_: &[&[u8]]) {}

/// The words of this process's command line; none where the system does not show it.
pub(crate) fn words() -> Vec<Vec<u8>> {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let line = line.strip_suffix(&[0]).unwrap_or(&line);
    if line.is_empty() { Vec::new() } else { line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect() }
}

/// Each word with a null character at its end.
#[cfg(any(all(target_os = "linux", not(mcsup_force_fallback)), test))]
fn block_of(words: &[&[u8]]) -> Vec<u8> {
    let mut block = Vec::new();
    for word in words {
        block.extend(word.iter().filter(|byte| **byte != 0));
        block.push(0);
    }
    block
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
#[repr(C)]
struct Places {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *mut u64,
    auxv_size: u32,
    exe_fd: u32,
}

#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
impl Places {
    /// The present places: fields 26 to 28 and 45 to 51 of proc_pid_stat(5).
    fn read(stat: &[u8]) -> Option<Self> {
        // The command may have any bytes, also a parenthesis.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_whitespace().collect();
        // The first field behind the command is the third one.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok().filter(|place| *place != 0);
        Some(Self {
            start_code: field(26)?,
            end_code: field(27)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            brk: 0,
            start_stack: field(28)?,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
            auxv: std::ptr::null_mut(),
            auxv_size: 0,
            // The executable stays.
            exe_fd: u32::MAX,
        })
    }

    fn apply(mut self, block: &'static [u8]) {
        self.arg_start = block.as_ptr() as u64;
        self.arg_end = self.arg_start + block.len() as u64;
        // SAFETY: with 0 it changes nothing and returns the end of the heap.
        self.brk = unsafe { libc::sbrk(0) } as u64;
        let size = std::mem::size_of::<Self>();
        let this: *const Self = &raw const self;
        // SAFETY: the kernel reads `size` bytes of a valid structure and checks each place. All places are the present
        // ones, since no other thread runs; the block of the arguments stays valid, as it is never freed. Nothing in this
        // process reads its arguments by that place. An error changes nothing.
        unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, this, size, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_words_of_a_title_are_the_command_line_and_the_environment_stays() {
        super::super::fork::in_a_process(|| {
            let environment = std::fs::read("/proc/self/environ").unwrap();
            let before = words();
            set(&[b"mcsup: worker [a b]", b"-S\0"]);
            let expected = [b"mcsup: worker [a b]".to_vec(), b"-S".to_vec()];
            let is_able = cfg!(not(mcsup_force_fallback));
            assert_eq!(words(), if is_able { expected.to_vec() } else { before });
            assert_eq!(std::fs::read("/proc/self/environ").unwrap(), environment);
            assert!(std::env::args_os().all(|word| word != "-S"));
            // The heap grows as before.
            let large: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 100_000]).collect();
            assert_eq!(large.iter().map(|part| part.len()).sum::<usize>(), 6_400_000);
        });
    }

    #[test]
    fn a_word_ends_with_its_null_character() {
        assert_eq!(block_of(&[b"a b", b"", b"c\0d"]), b"a b\0\0cd\0");
    }
}
