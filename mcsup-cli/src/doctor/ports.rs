//! Findings on ports and on processes that other servers have left behind.

use super::{Facts, Finding, LeftBehind, Taken};

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.taken.iter().map(taken).collect();
    findings.extend(privileged(facts));
    let unexamined = &facts.pool.unexamined;
    if findings.is_empty() && facts.pool.addresses > unexamined.len() {
        let which = if unexamined.is_empty() { "the" } else { "the other" };
        findings.push(Finding::ok(format!("{which} addresses of the server are free")));
    }
    findings.extend(unexamined.iter().map(|address| {
        Finding::note(format!("{address}: not examined: this is no TCP address that resolves, and no path"))
    }));
    // A holder of an address of the server is named already.
    let is_named =
        |pid: i32| facts.taken.iter().any(|taken| taken.holders.iter().any(|(other, _)| *other == pid));
    findings.extend(facts.left_behind.iter().filter(|process| !is_named(process.pid)).map(left_behind));
    findings
}

fn taken(taken: &Taken) -> Finding {
    let Taken { address, holders, is_ours, is_left_behind, may_be_left_behind } = taken;
    let Some((first, description)) = holders.first() else {
        return Finding::problem(format!("{address}: a process of another user listens there"))
            .advise("run mcsup doctor as root to see it");
    };
    let more = match holders.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let holder = format!("{description}{more}");
    if *is_ours {
        return Finding::problem(format!("{address}: a server of mcsup listens there: {holder}"))
            .advise("`mcsup stop -p PIDFILE`, or `mcsup reload` to serve new code");
    }
    if *is_left_behind {
        let text = format!("{address}: processes of a server that is gone listen there: {holder}");
        return Finding::problem(text).advise(kill(holders.iter().map(|(pid, _)| *pid)));
    }
    let advice =
        format!("stop it by its own service or command, or select another address; its pid is {first}");
    let kind = match may_be_left_behind {
        true => ": a daemon, or a process that its server has left behind",
        false => "",
    };
    Finding::problem(format!("{address}: {holder} listens there{kind}")).advise(advice)
}

fn left_behind(process: &LeftBehind) -> Finding {
    let addresses = process.addresses.join(" and ");
    Finding::note(format!("{} listens at {addresses}, and its server is gone", process.description))
        .advise(kill([process.pid].into_iter()))
}

/// The commands that end processes: gracefully at first.
fn kill(pids: impl Iterator<Item = i32>) -> String {
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    let pids = pids.join(" ");
    format!("kill {pids}; if that does not end it: kill -9 {pids}")
}

/// Ports that this user may not bind.
fn privileged(facts: &Facts) -> Vec<Finding> {
    let Some(first) = facts.kernel.first_free_port.filter(|_| !facts.may_bind_all_ports) else {
        return Vec::new();
    };
    let refused = facts.pool.ports.iter().filter(|port| **port != 0 && **port < first);
    refused
        .map(|port| {
            Finding::problem(format!("port {port}: only root may listen below {first}")).advise(
                "start as root with --user, pass the socket by systemd, or lower net.ipv4.ip_unprivileged_port_start",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::facts;
    use super::super::{Level, Pool};
    use super::*;

    fn of(holders: &[i32]) -> Taken {
        Taken {
            address: "0.0.0.0:8000".to_owned(),
            holders: holders.iter().map(|pid| (*pid, format!("pid {pid} (gunicorn)"))).collect(),
            is_ours: false,
            is_left_behind: false,
            may_be_left_behind: false,
        }
    }

    #[test]
    fn the_holder_of_a_port_is_named_with_the_way_to_end_it() {
        for (taken, text, advice) in [
            (of(&[]), "a process of another user", "as root"),
            (of(&[7]), "pid 7 (gunicorn) listens there", "its own service"),
            (Taken { is_ours: true, ..of(&[7, 8]) }, "pid 7 (gunicorn) (and 1 more)", "mcsup stop"),
            (Taken { is_left_behind: true, ..of(&[7, 8]) }, "a server that is gone", "kill 7 8; "),
            (
                Taken { may_be_left_behind: true, ..of(&[7]) },
                "listens there: a daemon, or",
                "its own service",
            ),
        ] {
            let found = examine(&Facts { taken: vec![taken], ..facts() });
            assert_eq!((found.len(), found[0].level), (1, Level::Problem));
            assert!(found[0].text.contains(text), "{found:?}");
            assert!(found[0].advice.as_ref().is_some_and(|line| line.contains(advice)), "{found:?}");
            let may_kill = found[0].advice.as_ref().is_some_and(|line| line.contains("kill -9"));
            assert_eq!(may_kill, text == "a server that is gone");
        }
    }

    #[test]
    fn a_process_that_was_left_behind_is_named_once() {
        let left = |pid| LeftBehind {
            pid,
            description: format!("pid {pid} (gunicorn)"),
            addresses: vec!["127.0.0.1:9".to_owned()],
        };
        let left_behind = vec![left(7), left(9)];
        let found = examine(&Facts { taken: vec![of(&[7])], left_behind, ..facts() });
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[1].level, found[1].advice.as_deref()),
            (Level::Note, Some("kill 9; if that does not end it: kill -9 9"))
        );
    }

    #[test]
    fn an_address_that_is_not_examined_is_not_called_free() {
        let udp = || vec!["udp://127.0.0.1:53".to_owned()];
        for (addresses, free) in [(1, None), (2, Some("the other addresses of the server are free"))] {
            let pool = Pool { addresses, unexamined: udp(), ..facts().pool };
            let found = examine(&Facts { pool, ..facts() });
            let (ok, notes): (Vec<_>, Vec<_>) = found.iter().partition(|finding| finding.level == Level::Ok);
            assert_eq!(ok.iter().map(|finding| finding.text.as_str()).next(), free);
            assert_eq!(notes.len(), 1);
            assert!(notes[0].text.starts_with("udp://127.0.0.1:53: not examined"), "{notes:?}");
        }
    }

    #[test]
    fn a_port_that_this_user_may_not_bind_is_a_problem() {
        let pool = Pool { ports: vec![80, 0, 8000], ..facts().pool };
        let found = examine(&Facts { pool: pool.clone(), ..facts() });
        assert_eq!(found.len(), 1);
        assert!(found[0].text.starts_with("port 80: "), "{found:?}");
        let found = examine(&Facts { pool, may_bind_all_ports: true, ..facts() });
        assert!(found.iter().all(|finding| finding.level == Level::Ok));
    }
}
