//! The abilities of this kernel that a pool makes use of, each determined by a trial without an effect, and its
//! settings. A trial costs some system calls, and leaves nothing behind.

use std::fs;

/// Name and release, as uname(2) reports them.
pub fn name() -> String {
    let uname = rustix::system::uname();
    [uname.sysname(), uname.release()].map(|part| part.to_string_lossy().into_owned()).join(" ")
}

/// Whether a process can be signalled without the danger that its pid is reused (pidfd_open(2)).
pub fn has_pidfd() -> bool {
    trials::pidfd()
}

/// Whether a supervisor adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)): the kernel
/// answers whether this process does.
pub fn has_subreaper() -> bool {
    trials::subreaper()
}

/// Whether one new connection wakes one worker (EPOLLEXCLUSIVE, epoll_ctl(2)).
pub fn has_exclusive_wakeups() -> bool {
    trials::exclusive_wakeups()
}

/// Whether each worker can have sockets of its own for one address (SO_REUSEPORT, socket(7)).
pub fn has_reuse_port() -> bool {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    socket.is_ok_and(|socket| socket.set_reuse_port(true).is_ok())
}

/// Whether an upgrade can pass its state in sealed memory (memfd_create(2)).
pub fn has_sealed_memory() -> bool {
    trials::sealed_memory()
}

/// `net.ipv4.tcp_migrate_req`: whether connections in the queue of a closed socket go to another one with the same
/// address; `None`: unknown.
pub fn migrates_requests() -> Option<bool> {
    setting("ipv4/tcp_migrate_req").map(|value| value != 0)
}

/// `net.core.somaxconn`: the largest queue of a listening socket; `None`: unknown.
pub fn backlog_limit() -> Option<u64> {
    setting("core/somaxconn")
}

/// `net.ipv4.ip_unprivileged_port_start`: the first port that each user may bind; `None`: unknown.
pub fn first_free_port() -> Option<u16> {
    setting("ipv4/ip_unprivileged_port_start").and_then(|port| port.try_into().ok())
}

/// Whether /proc shows the processes of this PID namespace.
pub fn has_own_proc() -> bool {
    super::processes::numbers_are_ours()
}

/// A setting of the network.
fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?.trim().parse().ok()
}

#[cfg(target_os = "linux")]
mod trials {
    use rustix::event::epoll;
    use rustix::fs::{MemfdFlags, SealFlags};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    pub(super) fn pidfd() -> bool {
        pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
    }

    pub(super) fn subreaper() -> bool {
        crate::sys::ancestry::ADOPTS && rustix::process::child_subreaper().is_ok()
    }

    pub(super) fn exclusive_wakeups() -> bool {
        let Ok(poller) = epoll::create(epoll::CreateFlags::CLOEXEC) else { return false };
        let Ok((reader, _writer)) = crate::sys::descriptor::pipe(true) else { return false };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&poller, &reader, epoll::EventData::new_u64(0), flags).is_ok()
    }

    pub(super) fn sealed_memory() -> bool {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("mcsup-trial", flags);
        file.is_ok_and(|file| rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE).is_ok())
    }
}

#[cfg(not(target_os = "linux"))]
mod trials {
    pub(super) fn pidfd() -> bool {
        false
    }

    pub(super) fn subreaper() -> bool {
        false
    }

    pub(super) fn exclusive_wakeups() -> bool {
        false
    }

    pub(super) fn sealed_memory() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_finds_the_same_twice_and_leaves_no_descriptor() {
        let all = || {
            [
                has_pidfd(),
                has_subreaper(),
                has_exclusive_wakeups(),
                has_reuse_port(),
                has_sealed_memory(),
                has_own_proc(),
            ]
        };
        let (first, before) = (all(), crate::sys::ancestry::is_subreaper());
        // Tests in other threads open and close descriptors: the numbers of many trials would add up.
        for _ in 0..2000 {
            assert_eq!(all(), first);
        }
        assert_eq!(crate::sys::ancestry::is_subreaper(), before);
        assert!(!name().trim().is_empty());
        if cfg!(all(target_os = "linux", not(mcsup_force_fallback))) {
            assert!(has_subreaper() && has_reuse_port() && has_own_proc());
            assert!(backlog_limit().is_some());
        }
    }
}
