//! The abilities of this kernel that a pool makes use of, each determined by a trial without a lasting effect.

use std::fs;

/// The abilities of the kernel and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// Name and release, as uname(2) reports them.
    pub name: String,
    /// Whether a process can be signalled without the danger that its pid is reused (pidfd_open(2)).
    pub has_pidfd: bool,
    /// Whether a supervisor adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER).
    pub has_subreaper: bool,
    /// Whether one new connection wakes one worker (EPOLLEXCLUSIVE).
    pub has_exclusive_wakeups: bool,
    /// Whether each worker can have sockets of its own for one address (SO_REUSEPORT).
    pub has_reuse_port: bool,
    /// Whether an upgrade can pass its state in sealed memory (memfd_create(2)).
    pub has_sealed_memory: bool,
    /// `net.ipv4.tcp_migrate_req`: whether connections in the queue of a closed socket go to another one with the
    /// same address; `None`: unknown.
    pub migrates_requests: Option<bool>,
    /// `net.core.somaxconn`: the largest queue of a listening socket; `None`: unknown.
    pub backlog_limit: Option<u64>,
    /// `net.ipv4.ip_unprivileged_port_start`: the first port that each user may bind; `None`: unknown.
    pub first_free_port: Option<u16>,
    /// Whether /proc shows the processes of this PID namespace.
    pub has_own_proc: bool,
}

impl Kernel {
    /// Determines the abilities. Costs some system calls, and leaves nothing behind.
    pub fn probe() -> Self {
        let uname = rustix::system::uname();
        let name = [uname.sysname(), uname.release()].map(|part| part.to_string_lossy().into_owned());
        let setting =
            |path: &str| fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?.trim().parse::<u64>().ok();
        Self {
            name: name.join(" "),
            has_pidfd: trials::pidfd(),
            has_subreaper: crate::sys::ancestry::ADOPTS,
            has_exclusive_wakeups: trials::exclusive_wakeups(),
            has_reuse_port: reuse_port(),
            has_sealed_memory: trials::sealed_memory(),
            migrates_requests: setting("ipv4/tcp_migrate_req").map(|value| value != 0),
            backlog_limit: setting("core/somaxconn"),
            first_free_port: setting("ipv4/ip_unprivileged_port_start").and_then(|port| port.try_into().ok()),
            has_own_proc: super::processes::numbers_are_ours(),
        }
    }
}

fn reuse_port() -> bool {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    socket.is_ok_and(|socket| socket.set_reuse_port(true).is_ok())
}

#[cfg(target_os = "linux")]
mod trials {
    use rustix::event::epoll;
    use rustix::fs::{MemfdFlags, SealFlags};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    pub(super) fn pidfd() -> bool {
        pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
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
        let first = Kernel::probe();
        // Tests in other threads open and close descriptors: the numbers of many trials would add up.
        for _ in 0..2000 {
            assert_eq!(Kernel::probe(), first);
        }
        assert!(!first.name.trim().is_empty());
        if cfg!(all(target_os = "linux", not(mcsup_force_fallback))) {
            assert!(first.has_subreaper && first.has_reuse_port && first.has_own_proc);
        }
    }
}
