//! Findings on the kernel and the limits.

use super::{Facts, Finding, Kernel};

/// Descriptors of a supervisor without workers and sockets, with operators at its control socket.
const OWN_DESCRIPTORS: u64 = 64;

/// Descriptors of a supervisor for each worker: two generations during a reload, each with a link and a handle.
const OF_EACH_WORKER: u64 = 4;

/// Descriptors of a worker that are no connections: its own, and the reserve of the application.
const OF_A_WORKER: u64 = 64 + 32;

/// Connections of a worker below which a note is due.
const FEW_CONNECTIONS: u64 = 256;

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut findings = vec![Finding::ok(format!("kernel {}", kernel.name))];
    if kernel.is_linux {
        findings.extend(abilities(kernel));
        findings.extend(migration(facts));
    } else {
        findings.push(Finding::note(
            "this kernel has no pidfd, subreaper and EPOLLEXCLUSIVE: mcsup uses slower ways, and cannot end the \
             processes that an application starts",
        ));
    }
    findings.push(supervisors_descriptors(facts));
    findings.extend(workers_descriptors(facts));
    findings.extend(backlog(facts));
    findings.push(match &facts.temporary_files {
        None => Finding::ok("large request bodies: temporary files can be written"),
        Some(reason) => {
            Finding::problem(format!("large request bodies get 503: no temporary file: {reason}"))
                .advise("mount a writable /tmp, or name a directory by TMPDIR")
        }
    });
    findings
}

fn abilities(kernel: &Kernel) -> Vec<Finding> {
    let ability = |has: bool, name: &str, without: &str| match has {
        true => Finding::ok(name),
        false => Finding::note(format!("no {name}: {without}")),
    };
    vec![
        ability(
            kernel.has_pidfd,
            "pidfd",
            "a signal may reach a process that has reused a pid (Linux 5.3 has it)",
        ),
        ability(
            kernel.has_subreaper,
            "subreaper",
            "workers of a mold are not children of the supervisor, and orphans of workers are not found",
        ),
        ability(
            kernel.has_exclusive_wakeups,
            "EPOLLEXCLUSIVE",
            "each new connection wakes all idle workers (Linux 4.5 has it)",
        ),
        ability(kernel.has_sealed_memory, "sealed memory", "`mcsup upgrade` is refused"),
        match kernel.has_own_proc {
            true => Finding::ok("/proc of this PID namespace"),
            false => {
                Finding::problem("/proc is not that of this PID namespace: no process is found or described")
                    .advise("mount -t proc proc /proc, as `unshare --mount-proc` does")
            }
        },
    ]
}

/// The setting on the queues of closed sockets, which matters for `--reuse-port`.
fn migration(facts: &Facts) -> Option<Finding> {
    if facts.pool.reuse_port && !facts.kernel.has_reuse_port {
        return Some(Finding::problem("no SO_REUSEPORT: --reuse-port does not work"));
    }
    Some(match facts.kernel.migrates_requests? {
        true => Finding::ok("net.ipv4.tcp_migrate_req = 1"),
        // The supervisor keeps the sockets of a slot open between two workers.
        false => Finding::ok(
            "net.ipv4.tcp_migrate_req = 0: mcsup empties the queue of a socket before it closes it",
        ),
    })
}

fn supervisors_descriptors(facts: &Facts) -> Finding {
    let (pool, (_, hard)) = (&facts.pool, facts.descriptors);
    let (workers, addresses) = (pool.workers as u64, pool.addresses as u64);
    // A reload may open new addresses before it closes the old ones.
    let sockets = 2 * addresses * if pool.reuse_port { workers } else { 1 };
    let count = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    let needed = OWN_DESCRIPTORS + OF_EACH_WORKER * workers + sockets;
    match hard.filter(|limit| *limit < needed) {
        None => Finding::ok(format!("descriptors for two generations of {count}: {needed}")),
        Some(limit) => Finding::problem(format!(
            "two generations of {count} may need {needed} descriptors, and the hard limit is {limit}"
        ))
        .advise("raise it: LimitNOFILE= in a unit, `ulimit -Hn` in a shell"),
    }
}

fn workers_descriptors(facts: &Facts) -> Option<Finding> {
    // Workers keep the soft limit.
    let limit = facts.descriptors.0?;
    let most = limit.saturating_sub(OF_A_WORKER);
    let advice = "raise the soft limit: LimitNOFILE= in a unit, `ulimit -n` in a shell";
    let wanted = facts.pool.connections;
    Some(if wanted > most {
        let text = format!(
            "--worker-connections {wanted} is more than the {most} that {limit} descriptors allow to each worker"
        );
        Finding::problem(text).advise(advice)
    } else if most < FEW_CONNECTIONS {
        Finding::note(format!("{limit} descriptors allow {most} connections to each worker")).advise(advice)
    } else {
        Finding::ok(format!("{limit} descriptors: {most} connections for each worker"))
    })
}

fn backlog(facts: &Facts) -> Option<Finding> {
    let (limit, wanted) = (facts.kernel.backlog_limit?, facts.pool.backlog);
    Some(match wanted > limit {
        false => Finding::ok(format!("net.core.somaxconn = {limit}: a backlog of {wanted}")),
        true => Finding::note(format!("the kernel shortens the backlog of {wanted} to {limit}"))
            .advise(format!("sysctl net.core.somaxconn={wanted}")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::facts;
    use super::super::{Level, Pool};
    use super::*;

    /// The texts above `Level::Ok`.
    fn faults(facts: &Facts) -> Vec<(Level, String)> {
        let faults = examine(facts).into_iter().filter(|finding| finding.level != Level::Ok);
        faults.map(|finding| (finding.level, finding.text)).collect()
    }

    #[test]
    fn each_ability_that_is_missing_is_found_with_its_effect() {
        let kernel = Kernel { has_pidfd: false, has_exclusive_wakeups: false, ..facts().kernel };
        let found = faults(&Facts { kernel, ..facts() });
        assert_eq!(found.len(), 2);
        assert!(found[0].1.starts_with("no pidfd: ") && found[1].1.starts_with("no EPOLLEXCLUSIVE: "));
        let kernel = Kernel { has_own_proc: false, ..facts().kernel };
        assert_eq!(faults(&Facts { kernel, ..facts() })[0].0, Level::Problem);
        let kernel = Kernel { is_linux: false, has_pidfd: false, ..facts().kernel };
        assert_eq!(faults(&Facts { kernel, ..facts() }).len(), 1);
    }

    #[test]
    fn descriptors_have_to_suffice_for_two_generations_of_workers_and_their_sockets() {
        let pool = Pool { workers: 100, addresses: 2, ..facts().pool };
        let descriptors = (Some(1024), Some(467));
        let found = faults(&Facts { pool: pool.clone(), descriptors, ..facts() });
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("may need 468 descriptors, and the hard limit is 467"), "{found:?}");
        let descriptors = (Some(1024), Some(468));
        assert_eq!(faults(&Facts { pool: pool.clone(), descriptors, ..facts() }), []);
        let pool = Pool { reuse_port: true, ..pool };
        assert!(faults(&Facts { pool, descriptors, ..facts() })[0].1.contains("864"));
        assert_eq!(faults(&Facts { descriptors: (None, None), ..facts() }), []);
    }

    #[test]
    fn more_connections_than_descriptors_are_a_problem_and_few_are_a_note() {
        let pool = Pool { connections: 1000, ..facts().pool };
        assert_eq!(faults(&Facts { pool, ..facts() })[0].0, Level::Problem);
        let found = faults(&Facts { descriptors: (Some(256), None), ..facts() });
        assert_eq!(found, [(Level::Note, "256 descriptors allow 160 connections to each worker".to_owned())]);
    }

    #[test]
    fn a_backlog_that_the_kernel_shortens_is_noted() {
        let kernel = Kernel { backlog_limit: Some(128), ..facts().kernel };
        let found = faults(&Facts { kernel, ..facts() });
        assert_eq!(found, [(Level::Note, "the kernel shortens the backlog of 2048 to 128".to_owned())]);
    }

    #[test]
    fn a_host_without_temporary_files_is_a_problem() {
        let found = faults(&Facts { temporary_files: Some("read-only".to_owned()), ..facts() });
        assert_eq!(found[0].0, Level::Problem);
    }
}
