//! The first reason of a start that fails, for the caller of the library.

use std::time::Duration;

use super::journal;
use crate::error::ErrorKind;
use crate::policy::{BootFailure, Event, Exit, KillReason, MoldNotice, Notice, Outcome, WorkerNotice};

/// The first failure. One after the start is no [reason](Self::reason_of) of the end.
#[derive(Debug, Default)]
pub(crate) struct FailedStart {
    first: Option<BootFailure>,
    /// Whether the log has a line about a failure.
    is_logged: bool,
}

impl FailedStart {
    /// Keeps the failure in a notice, if it is the first.
    pub(super) fn note(&mut self, notice: &Notice) {
        if let Some(failure) = failure_in(notice) {
            self.first.get_or_insert(failure);
            self.is_logged = true;
        }
    }

    /// Keeps a refused fork of a mold, if it is the first failure: at a start no notice reports it.
    pub(super) fn note_mold(&mut self, event: &Event) {
        if let Event::SpawnFailed { reason, .. } = event {
            self.first.get_or_insert_with(|| of_boot(format!("cannot fork a mold: {reason}")));
        }
    }

    /// The reason of a failed start; `None`: the start has not failed.
    pub(super) fn reason_of(&mut self, outcome: Outcome) -> Option<BootFailure> {
        let failure = self.first.take().filter(|_| matches!(outcome, Outcome::BootFailed(_)))?;
        if !self.is_logged {
            log::error!("{}", failure.summary);
        }
        Some(failure)
    }
}

fn failure_in(notice: &Notice) -> Option<BootFailure> {
    let summary = match notice {
        Notice::Worker(notice) => match notice {
            WorkerNotice::BootFailed { failure, .. } => return Some(failure.clone()),
            WorkerNotice::BootTimeout { pid, after } => timed_out(*pid, *after),
            WorkerNotice::SpawnFailed { slot, reason, .. } => {
                format!("cannot fork a worker for slot {slot}: {reason}")
            }
            WorkerNotice::Died { pid, exit, killed, .. } => {
                return Some(of_exit("worker", *pid, exit, *killed));
            }
            WorkerNotice::Unkillable { pid, .. } => unkillable(*pid),
            WorkerNotice::Booting { .. }
            | WorkerNotice::Ready { .. }
            | WorkerNotice::Silent { .. }
            | WorkerNotice::Overdue { .. }
            | WorkerNotice::Retired { .. }
            | WorkerNotice::Gone { .. }
            | WorkerNotice::Leaving { .. } => return None,
        },
        Notice::Mold(notice) => match notice {
            MoldNotice::Died { pid, exit, killed, .. } => return Some(of_exit("mold", *pid, exit, *killed)),
            MoldNotice::BootFailed { failure, .. } => return Some(failure.clone()),
            MoldNotice::BootTimeout { pid, after } => timed_out(*pid, *after),
            MoldNotice::Failed { reason, .. } => format!("no mold: {reason}"),
            MoldNotice::Unkillable { pid, .. } => unkillable(*pid),
            MoldNotice::Booting { .. } | MoldNotice::Ready { .. } | MoldNotice::Gone { .. } => return None,
        },
        Notice::Recycle(_) | Notice::Reload(_) | Notice::Scale(_) | Notice::Upgrade(_) | Notice::Pool(_) => {
            return None;
        }
    };
    Some(of_boot(summary))
}

fn of_process(pid: i32) -> String {
    match pid {
        0 => "a worker that its mold has not forked".to_owned(),
        pid => format!("process {pid}"),
    }
}

fn timed_out(pid: i32, after: Duration) -> String {
    let process = of_process(pid);
    format!("{process} was not ready within the boot timeout of {}", journal::seconds(after))
}

fn unkillable(pid: i32) -> String {
    format!("{} was sent SIGKILL and is still there", of_process(pid))
}

fn of_exit(role: &str, pid: i32, exit: &Exit, killed: Option<KillReason>) -> BootFailure {
    let detail = exit.evidence.error.as_ref().and_then(|error| error.detail.clone());
    BootFailure {
        detail,
        ..of_boot(format!("{} {}", journal::named(role, pid), journal::cause(exit, killed)))
    }
}

fn of_boot(summary: String) -> BootFailure {
    BootFailure { kind: ErrorKind::Boot, summary, detail: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Evidence, ExitStatus, WorkerId};

    const FAILED: Outcome = Outcome::BootFailed(ErrorKind::Boot);

    fn reason(failed: &mut FailedStart) -> String {
        failed.reason_of(FAILED).unwrap().summary
    }

    #[test]
    fn the_first_reason_of_a_failed_start_is_kept_whatever_its_kind() {
        let second = Duration::from_secs(1);
        let exit = Exit { status: ExitStatus::Code(7), evidence: Evidence::default() };
        let mold_exit = exit.clone();
        let notices = [
            (Notice::Worker(WorkerNotice::BootTimeout { pid: 5, after: second }), "boot timeout of 1.000 s"),
            (
                Notice::Worker(WorkerNotice::SpawnFailed {
                    slot: 0,
                    reason: "why".into(),
                    retry_in: Some(second),
                }),
                "cannot fork a worker",
            ),
            (
                Notice::Worker(WorkerNotice::Died { pid: 5, slot: 0, exit, killed: None, respawn_in: None }),
                "worker 5 exited with code 7",
            ),
            (
                Notice::Mold(MoldNotice::Died { pid: 5, generation: 1, exit: mold_exit, killed: None }),
                "mold 5 exited with code 7",
            ),
            (
                Notice::Mold(MoldNotice::Failed { generation: 1, reason: "why".into(), again_in: second }),
                "no mold: why",
            ),
        ];
        for (notice, expected) in notices {
            let mut failed = FailedStart::default();
            failed.note(&Notice::Worker(WorkerNotice::Booting { slot: 0, generation: 1, pid: 5 }));
            failed.note(&notice);
            failed.note(&Notice::Mold(MoldNotice::Failed {
                generation: 1,
                reason: "later".into(),
                again_in: second,
            }));
            let reason = reason(&mut failed);
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn a_mold_that_cannot_be_forked_is_the_reason_of_a_failed_start() {
        let mut failed = FailedStart::default();
        failed.note_mold(&Event::SpawnFailed { worker: WorkerId(1), reason: "2 threads".into() });
        assert_eq!(reason(&mut failed), "cannot fork a mold: 2 threads");
    }

    #[test]
    fn a_failure_after_the_start_is_no_reason_of_a_stop() {
        let mut failed = FailedStart::default();
        failed.note(&Notice::Mold(MoldNotice::Failed {
            generation: 1,
            reason: "why".into(),
            again_in: Duration::ZERO,
        }));
        assert!(failed.reason_of(Outcome::Stopped).is_none());
    }
}
