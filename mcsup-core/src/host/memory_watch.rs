//! Notices an out-of-memory condition of a cgroup at once: a descriptor to wait on, where the kernel has one.

use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;

use super::out_of_memory::Counter;

/// A wait for the news of one [`Counter`].
#[derive(Debug)]
pub(crate) struct Watch {
    #[cfg(target_os = "linux")]
    inner: linux::Inner,
    #[cfg(not(target_os = "linux"))]
    inner: std::convert::Infallible,
}

impl Watch {
    /// `None`: the kernel has no such news, or not for this user.
    pub(crate) fn new(counter: &Counter) -> Option<Self> {
        #[cfg(target_os = "linux")]
        return Some(Self { inner: linux::Inner::new(counter)? });
        #[cfg(not(target_os = "linux"))]
        {
            let _ = counter;
            None
        }
    }

    /// What to wait on, and for what.
    pub(crate) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        #[cfg(target_os = "linux")]
        return self.inner.source();
        #[cfg(not(target_os = "linux"))]
        match self.inner {}
    }

    /// Whether there is news; clears it. The news may come shortly before the kill is counted.
    pub(crate) fn take(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.inner.take();
        #[cfg(not(target_os = "linux"))]
        match self.inner {}
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::os::unix::fs::FileExt;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    use super::Counter;

    /// v2: the file itself has an exceptional condition after each change until it is read (cgroups(7)). v1: an eventfd
    /// that was registered for memory.oom_control.
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
            inner.take();
            Some(inner)
        }

        pub(super) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
            match &self.event {
                Some(event) => (event.as_fd(), PollFlags::IN),
                None => (self.file.as_fd(), PollFlags::PRI),
            }
        }

        pub(super) fn take(&self) -> bool {
            let (fd, flags) = self.source();
            let mut sources = [PollFd::from_borrowed_fd(fd, flags)];
            let is_new = matches!(poll(&mut sources, Some(&Timespec::default())), Ok(1..));
            if is_new {
                let mut bytes = [0; 512];
                let _ = match &self.event {
                    Some(event) => rustix::io::read(event, &mut bytes[..8]).map_err(Into::into),
                    None => self.file.read_at(&mut bytes, 0),
                };
            }
            is_new
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
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A new cgroup of v2, with a process in it.
    struct Inhabited {
        directory: tempfile::TempDir,
        process: Child,
    }

    impl Inhabited {
        fn new() -> Option<Self> {
            let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
            let top = places.into_iter().find(|place| place.join("cgroup.controllers").exists())?;
            let directory = tempfile::tempdir_in(top).ok()?;
            let process = Command::new("sleep").arg("60").spawn().unwrap();
            let inhabited = Self { directory, process };
            let procs = inhabited.directory.path().join("cgroup.procs");
            fs::write(procs, inhabited.process.id().to_string()).ok()?;
            Some(inhabited)
        }

        fn end(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
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

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn a_changed_file_of_a_unified_hierarchy_is_news_once() {
        let Some(mut cgroup) = Inhabited::new() else {
            println!("SKIPPED: no cgroup of v2 can be made here");
            return;
        };
        // The kernel gives notice of this file in the same way as of memory.events.
        let file = cgroup.directory.path().join("cgroup.events");
        let watch = Watch::new(&Counter { file, is_unified: true }).unwrap();
        assert!(!watch.take());
        cgroup.end();
        let (fd, flags) = watch.source();
        let mut sources = [rustix::event::PollFd::from_borrowed_fd(fd, flags)];
        let second = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut sources, Some(&second)), Ok(1));
        assert!(watch.take() && !watch.take());
    }
}
