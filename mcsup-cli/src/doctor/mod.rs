//! Decisions of `mcsup doctor`: facts of a host in, findings out.

mod host;
pub(crate) mod mistakes;
mod ports;
pub(crate) mod unit;

#[cfg(test)]
mod fixture;

use std::fmt::Write;

use serde::Serialize;

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, with a restriction or a risk.
    Note,
    /// A server does not start, or loses requests.
    Problem,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Problem => "problem",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Its weight.
    pub level: Level,
    /// One line.
    pub text: String,
    /// A remedy, one line.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Self { level: Level::Ok, text: text.into(), advice: None }
    }

    fn note(text: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::ok(text) }
    }

    fn problem(text: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::ok(text) }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// All facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The kernel.
    pub kernel: Kernel,
    /// Soft and hard limit of open descriptors; `None`: unlimited.
    pub descriptors: (Option<u64>, Option<u64>),
    /// Why no file can be written for large request bodies; `None`: it can.
    pub temporary_files: Option<String>,
    /// Whether this process may bind each port.
    pub may_bind_all_ports: bool,
    /// The settings of the server.
    pub pool: Pool,
    /// Addresses of the server that a process listens at.
    pub taken: Vec<Taken>,
    /// Processes of other servers that were left behind with a listening socket.
    pub left_behind: Vec<LeftBehind>,
    /// Units of systemd.
    pub units: Vec<mistakes::Unit>,
}

/// Abilities of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Name and release.
    pub name: String,
    /// Whether it is Linux: the other fields are of Linux.
    pub is_linux: bool,
    /// pidfd_open(2).
    pub has_pidfd: bool,
    /// PR_SET_CHILD_SUBREAPER.
    pub has_subreaper: bool,
    /// EPOLLEXCLUSIVE.
    pub has_exclusive_wakeups: bool,
    /// SO_REUSEPORT.
    pub has_reuse_port: bool,
    /// memfd_create(2) with seals.
    pub has_sealed_memory: bool,
    /// `net.ipv4.tcp_migrate_req`; `None`: unknown.
    pub migrates_requests: Option<bool>,
    /// `net.core.somaxconn`; `None`: unknown.
    pub backlog_limit: Option<u64>,
    /// `net.ipv4.ip_unprivileged_port_start`; `None`: unknown.
    pub first_free_port: Option<u16>,
    /// Whether /proc shows the processes of this PID namespace.
    pub has_own_proc: bool,
}

/// Settings of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Worker processes.
    pub workers: usize,
    /// Addresses to listen on.
    pub addresses: usize,
    /// Those among them that are not examined: of another kind, or names that do not resolve.
    pub unexamined: Vec<String>,
    /// TCP ports to listen on.
    pub ports: Vec<u16>,
    /// Whether each worker has its own listening sockets.
    pub reuse_port: bool,
    /// Length of the queue of a listening socket.
    pub backlog: u64,
    /// Connections of a worker; 0: as many as possible.
    pub connections: u64,
}

/// An address that a process listens at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The address of the server.
    pub address: String,
    /// The processes that hold it, described; empty: this user may not see them.
    pub holders: Vec<(i32, String)>,
    /// Whether it is a server of mcsup.
    pub is_ours: bool,
    /// Whether all of them were left behind by their server.
    pub is_left_behind: bool,
    /// Whether they are a daemon, or were left behind by their server.
    pub may_be_left_behind: bool,
}

/// A process that its server has left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftBehind {
    /// Its pid.
    pub pid: i32,
    /// Pid, command line and user.
    pub description: String,
    /// The addresses that it listens at.
    pub addresses: Vec<String>,
}

/// Examines the facts.
pub(crate) fn examine(facts: &Facts) -> Vec<Finding> {
    let units = facts.units.iter().flat_map(mistakes::examine);
    host::examine(facts).into_iter().chain(ports::examine(facts)).chain(units).collect()
}

/// The findings as text, and a line that counts them.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { level, text: line, advice } in findings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:8} {line}", level.name());
        if let Some(advice) = advice {
            let _ = writeln!(text, "{:8} -> {advice}", "");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (problems, notes) = (count(Level::Problem), count(Level::Note));
    text + &format!("{}, {}", plural(problems, "problem"), plural(notes, "note"))
}

/// The findings as one JSON object.
pub(crate) fn json(findings: &[Finding]) -> String {
    serde_json::json!({ "version": 1, "findings": findings }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_and_a_remedy_stands_below_its_finding() {
        let findings = [Finding::ok("a"), Finding::note("b"), Finding::problem("c").advise("d")];
        let expected = "ok       a\nnote     b\nproblem  c\n         -> d\n1 problem, 1 note";
        assert_eq!(text(&findings), expected);
        assert_eq!(text(&[]), "0 problems, 0 notes");
        let expected = r#"{"findings":[{"advice":"d","level":"problem","text":"c"}],"version":1}"#;
        assert_eq!(json(&findings[2..]), expected);
    }

    #[test]
    fn a_host_that_has_all_gives_no_problem_and_no_note() {
        let findings = examine(&fixture::facts());
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
    }
}
