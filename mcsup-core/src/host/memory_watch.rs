//! Immediate notice of a cgroup's out-of-memory condition, by a descriptor to poll.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;

use super::out_of_memory::Counter;

/// A watch on one [`Counter`].
#[derive(Debug)]
pub(crate) struct Watch {
    #[cfg(target_os = "linux")]
    inner: linux::Inner,
    #[cfg(not(target_os = "linux"))]
    inner: std::convert::Infallible,
}

impl Watch {
    /// Starts to watch; `None`: the kernel gives no notice, or not to this user.
    pub(crate) fn new(counter: &Counter) -> Option<Self> {
        #[cfg(target_os = "linux")]
        return Some(Self { inner: linux::Inner::new(counter)? });
        #[cfg(not(target_os = "linux"))]
        {
            let _ = counter;
            None
        }
    }

    /// The descriptor to poll, and the events.
    pub(crate) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        #[cfg(target_os = "linux")]
        return self.inner.source();
        #[cfg(not(target_os = "linux"))]
        match self.inner {}
    }

    /// Whether there is news; clears it. It may arrive shortly before the kill is counted.
    ///
    /// # Errors
    /// The cgroup was removed: no further news comes, and poll(2) would return at once forever.
    pub(crate) fn take(&self) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        return self.inner.take();
        #[cfg(not(target_os = "linux"))]
        match self.inner {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::os::unix::fs::FileExt;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    use super::Counter;

    /// cgroup v2: the file has an exceptional condition after each change until it is read (cgroups(7)). v1:
    /// an eventfd, registered for memory.oom_control.
    #[derive(Debug)]
    pub(super) struct Inner {
        file: File,
        event: Option<OwnedFd>,
    }

    impl Inner {
        pub(super) fn new(counter: &Counter) -> Option<Self> {
            let file = File::open(&counter.file).ok()?;
            let event = if counter.is_unified { None } else { Some(register(&file, counter)?) };
            let inner = Self { file, event };
            inner.take().ok()?;
            Some(inner)
        }

        pub(super) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
            match &self.event {
                Some(event) => (event.as_fd(), PollFlags::IN),
                None => (self.file.as_fd(), PollFlags::PRI),
            }
        }

        pub(super) fn take(&self) -> io::Result<bool> {
            let (fd, flags) = self.source();
            let mut sources = [PollFd::from_borrowed_fd(fd, flags)];
            let is_new = matches!(poll(&mut sources, Some(&Timespec::default())), Ok(1..));
            if is_new {
                let mut bytes = [0; 512];
                if let Some(event) = &self.event {
                    let _ = rustix::io::read(event, &mut bytes[..8]);
                }
                // The end of a cgroup is an event as well (v1), or a permanent error (v2); a read detects it.
                self.file.read_at(&mut bytes, 0)?;
            }
            Ok(is_new)
        }
    }

    fn register(file: &File, counter: &Counter) -> Option<OwnedFd> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let control = counter.file.with_file_name("cgroup.event_control");
        let mut control = File::options().write(true).open(control).ok()?;
        let line = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
        control.write_all(line.as_bytes()).ok()?;
        Some(event)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A new cgroup with a process in it.
    pub(crate) struct Inhabited {
        directory: tempfile::TempDir,
        process: Child,
        is_unified: bool,
    }

    impl Inhabited {
        /// A cgroup of v2; `None`: none can be made here.
        fn unified() -> Option<Self> {
            let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
            let top = places.into_iter().find(|place| place.join("cgroup.controllers").exists())?;
            Self::below(top, true)
        }

        /// A cgroup of each version that is available here.
        pub(crate) fn all() -> Vec<Self> {
            let first_version = Path::new("/sys/fs/cgroup/memory");
            let first_version = first_version.join("memory.oom_control").exists().then_some(first_version);
            let first_version = first_version.and_then(|top| Self::below(top, false));
            Self::unified().into_iter().chain(first_version).collect()
        }

        fn below(top: &Path, is_unified: bool) -> Option<Self> {
            let directory = tempfile::tempdir_in(top).ok()?;
            let process = Command::new("sleep").arg("60").spawn().unwrap();
            let inhabited = Self { directory, process, is_unified };
            let procs = inhabited.directory.path().join("cgroup.procs");
            fs::write(procs, inhabited.process.id().to_string()).ok()?;
            Some(inhabited)
        }

        /// A counter whose file changes with the processes. For v2 the kernel reports that like a change of
        /// memory.events.
        pub(crate) fn counter(&self) -> Counter {
            let name = if self.is_unified { "cgroup.events" } else { "memory.oom_control" };
            Counter { file: self.directory.path().join(name), is_unified: self.is_unified }
        }

        fn end(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }

        /// Ends the process, and removes the group.
        pub(crate) fn remove(&mut self) {
            self.end();
            // The kernel may still be busy with the process.
            while let Err(error) = fs::remove_dir(self.directory.path()) {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
                std::thread::yield_now();
            }
        }
    }

    impl Drop for Inhabited {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            // Files of a cgroup cannot be removed one by one, which the temporary directory would try.
            let _ = fs::remove_dir(self.directory.path());
        }
    }

    /// Waits for an event of `watch`.
    pub(crate) fn wait_on(watch: &Watch) {
        let (fd, flags) = watch.source();
        let mut sources = [rustix::event::PollFd::from_borrowed_fd(fd, flags)];
        let patience = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut sources, Some(&patience)), Ok(1));
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn a_changed_file_of_a_unified_hierarchy_is_news_once() {
        let Some(mut cgroup) = Inhabited::unified() else {
            println!("SKIPPED: no cgroup of v2 can be made here");
            return;
        };
        let watch = Watch::new(&cgroup.counter()).unwrap();
        assert!(!watch.take().unwrap());
        cgroup.end();
        wait_on(&watch);
        assert!(watch.take().unwrap() && !watch.take().unwrap());
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn the_end_of_a_cgroup_is_an_error_and_no_news() {
        let groups = Inhabited::all();
        if groups.is_empty() {
            println!("SKIPPED: no cgroup can be made here");
        }
        for mut cgroup in groups {
            let watch = Watch::new(&cgroup.counter()).unwrap();
            cgroup.remove();
            wait_on(&watch);
            watch.take().unwrap_err();
        }
    }
}
