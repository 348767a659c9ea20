//! Facts for tests.

use super::{Facts, Kernel, Pool};

/// A host that has all that a server needs.
pub(super) fn facts() -> Facts {
    Facts {
        kernel: Kernel {
            name: "Linux 6.12".to_owned(),
            is_linux: true,
            has_pidfd: true,
            has_subreaper: true,
            has_exclusive_wakeups: true,
            has_reuse_port: true,
            has_sealed_memory: true,
            migrates_requests: Some(true),
            backlog_limit: Some(4096),
            first_free_port: Some(1024),
            has_own_proc: true,
        },
        descriptors: (Some(1024), Some(524_288)),
        temporary_files: None,
        may_bind_all_ports: false,
        pool: Pool {
            workers: 4,
            addresses: 1,
            unexamined: Vec::new(),
            ports: vec![8000],
            reuse_port: false,
            backlog: 2048,
            connections: 0,
        },
        taken: Vec::new(),
        left_behind: Vec::new(),
        units: Vec::new(),
    }
}
