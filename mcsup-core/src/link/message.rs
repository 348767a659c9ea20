//! Messages between supervisor and worker: a tag, a length (u32, little-endian), a payload.

use crate::error::ErrorKind;
use crate::policy::{BootFailure, Drain, ExitStatus, LastError};

/// The version of these messages and of fork orders.
///
/// After an upgrade the supervisor's next image talks to workers of the previous one. A change or removal of
/// a tag or a payload increments this number, and so does a new tag of a report; an upgrade between different numbers
/// is refused. A new tag that only newer workers receive needs no new number.
pub(crate) const PROTOCOL: u32 = 3;

/// A message from the supervisor to a worker or a mold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Serve: the supervisor knows that the worker is ready. Until then it may still give up the boot.
    Begin,
    /// Go on, and report the coming end to health checks.
    LameDuck,
    /// Finish the current requests and end.
    Drain(Drain),
    /// End now.
    Quit,
    /// Reopen log files.
    ReopenLogs,
    /// The next generation does not boot; the text is the reason for a developer, such as a traceback.
    Broken(String),
}

/// A message from a worker or a mold to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Boot succeeded.
    Ready,
    /// Boot failed; the exit follows.
    Failed(BootFailure),
    /// A booted worker or mold ends because of this error or panic; the exit follows.
    Error(LastError),
    /// The worker asks to be replaced, for this reason.
    Leaving(String),
    /// The worker asks for a reload of the pool, for this reason: its code has changed.
    ReloadWanted(String),
    /// The worker has served its maximum number of requests, and goes on.
    Enough {
        /// That number.
        requests: u64,
    },
    /// A worker that a mold has forked exists, and the supervisor is its parent.
    Born {
        /// Its process id.
        pid: i32,
    },
    /// A mold could not fork a worker.
    ForkFailed {
        /// The worker of the order.
        worker: u64,
        /// The reason.
        reason: String,
    },
    /// A worker that is its mold's child has ended; reported by the mold, or by the worker just before its
    /// end.
    ChildExited {
        /// Its process id.
        pid: i32,
        /// Its exit status.
        status: ExitStatus,
    },
}

/// A message of a channel.
pub(crate) trait Message: Sized {
    /// Its tag and its payload.
    fn encode(self) -> (u8, Vec<u8>);
    /// The message; `None`: unknown tag or invalid payload.
    fn decode(tag: u8, payload: &[u8]) -> Option<Self>;
}

impl Message for Order {
    fn encode(self) -> (u8, Vec<u8>) {
        let tag = match self {
            Order::Begin => b'g',
            Order::LameDuck => b'd',
            Order::Drain(Drain::Retire) => b'r',
            Order::Drain(Drain::Stop) => b's',
            Order::Quit => b'q',
            Order::ReopenLogs => b'l',
            Order::Broken(text) => return (b'b', text.into_bytes()),
        };
        (tag, Vec::new())
    }

    fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        Some(match tag {
            b'g' => Order::Begin,
            b'd' => Order::LameDuck,
            b'r' => Order::Drain(Drain::Retire),
            b's' => Order::Drain(Drain::Stop),
            b'q' => Order::Quit,
            b'l' => Order::ReopenLogs,
            b'b' => Order::Broken(String::from_utf8_lossy(payload).into_owned()),
            _ => return None,
        })
    }
}

impl Message for Report {
    fn encode(self) -> (u8, Vec<u8>) {
        match self {
            Report::Ready => (b'R', Vec::new()),
            Report::Leaving(reason) => (b'L', reason.into_bytes()),
            Report::ReloadWanted(reason) => (b'W', reason.into_bytes()),
            Report::Enough { requests } => (b'E', requests.to_le_bytes().to_vec()),
            Report::Born { pid } => (b'N', pid.to_le_bytes().to_vec()),
            Report::ForkFailed { worker, reason } => {
                (b'F', [&worker.to_le_bytes(), reason.as_bytes()].concat())
            }
            Report::ChildExited { pid, status } => {
                let (tag, number) = match status {
                    ExitStatus::Code(code) => (b'C', code),
                    ExitStatus::Signal(signal) => (b'S', signal),
                };
                (tag, [pid.to_le_bytes(), number.to_le_bytes()].concat())
            }
            Report::Failed(failure) => {
                let tag = if failure.kind == ErrorKind::Application { b'A' } else { b'B' };
                (tag, join_lines(&failure.summary, failure.detail.as_deref()))
            }
            Report::Error(error) => (b'X', join_lines(&error.summary, error.detail.as_deref())),
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        let kind = match tag {
            b'R' => return Some(Report::Ready),
            b'L' => return Some(Report::Leaving(line(payload))),
            b'W' => return Some(Report::ReloadWanted(line(payload))),
            b'E' => return Some(Report::Enough { requests: u64::from_le_bytes(payload.try_into().ok()?) }),
            b'N' => return Some(Report::Born { pid: i32::from_le_bytes(payload.try_into().ok()?) }),
            b'F' => {
                let (worker, reason) = payload.split_first_chunk()?;
                return Some(Report::ForkFailed {
                    worker: u64::from_le_bytes(*worker),
                    reason: line(reason),
                });
            }
            b'C' | b'S' => {
                let (pid, number) = payload.split_first_chunk()?;
                let (pid, number) = (i32::from_le_bytes(*pid), i32::from_le_bytes(number.try_into().ok()?));
                let status = if tag == b'C' { ExitStatus::Code(number) } else { ExitStatus::Signal(number) };
                return Some(Report::ChildExited { pid, status });
            }
            b'X' => return Some(Report::Error(split_lines(payload))),
            b'A' => ErrorKind::Application,
            b'B' => ErrorKind::Boot,
            _ => return None,
        };
        let LastError { summary, detail } = split_lines(payload);
        Some(Report::Failed(BootFailure { kind, summary, detail }))
    }
}

/// One line, and perhaps a detail of several lines behind it.
fn join_lines(summary: &str, detail: Option<&str>) -> Vec<u8> {
    let mut payload = summary.replace('\n', " ").into_bytes();
    if let Some(detail) = detail {
        payload.push(b'\n');
        payload.extend_from_slice(detail.as_bytes());
    }
    payload
}

/// The parts of [`join_lines`], without control characters: an error may quote a client.
fn split_lines(payload: &[u8]) -> LastError {
    let is_odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    let text = String::from_utf8_lossy(payload);
    let (summary, detail) = match text.split_once('\n') {
        Some((summary, detail)) => (summary, Some(detail.replace(is_odd, " "))),
        None => (&*text, None),
    };
    LastError { summary: line(summary.as_bytes()), detail }
}

/// A text of one line, without control characters.
fn line(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).replace(char::is_control, " ")
}

/// Encodes a message with its header.
pub(crate) fn frame(message: impl Message) -> Vec<u8> {
    let (tag, payload) = message.encode();
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The size of the header: the tag and the length.
pub(crate) const HEAD: usize = 5;

/// The length of the payload after this header.
pub(crate) fn announced(head: &[u8; HEAD]) -> Result<usize, Garbled> {
    let [_, length @ ..] = *head;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PAYLOAD { Err(Garbled) } else { Ok(length) }
}

/// The first message in `bytes` and its size; `Ok(None)`: it is incomplete.
pub(crate) fn first<M: Message>(bytes: &[u8]) -> Result<Option<(M, usize)>, Garbled> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let length = announced(head)?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let message = M::decode(head[0], payload).ok_or(Garbled)?;
    Ok(Some((message, HEAD + length)))
}

/// The other end sent bytes that are no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// The largest payload, above the size of any traceback. The sender cuts longer ones.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// The longest reason in a report.
const MAX_REASON: usize = 4 * 1024;

impl Report {
    /// Cuts a reason or a detail, as an application may give one of any length.
    pub(crate) fn cut(mut self) -> Self {
        match &mut self {
            Report::Failed(BootFailure { summary, detail, .. })
            | Report::Error(LastError { summary, detail }) => {
                cut(summary);
                detail.as_mut().map(keep_end);
            }
            Report::Leaving(reason) | Report::ReloadWanted(reason) | Report::ForkFailed { reason, .. } => {
                cut(reason);
            }
            Report::Ready | Report::Enough { .. } | Report::Born { .. } | Report::ChildExited { .. } => {}
        }
        self
    }
}

fn cut(reason: &mut String) {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(end.unwrap_or(0));
}

/// Cuts a detail. The end of a traceback names the error.
fn keep_end(detail: &mut String) {
    let start = detail.len().saturating_sub(MAX_PAYLOAD / 2);
    let start = (start..detail.len()).find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
    detail.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_its_bytes_in_any_pieces() {
        let failure = |detail: Option<&str>| {
            Report::Failed(BootFailure {
                kind: ErrorKind::Application,
                summary: "no module named server".to_owned(),
                detail: detail.map(str::to_owned),
            })
        };
        let leaving = Report::Leaving("tired".to_owned());
        let wanted = Report::ReloadWanted("app.py has changed".to_owned());
        let enough = Report::Enough { requests: 10_000 };
        let error = |detail: Option<&str>| {
            let summary = "the queue is gone".to_owned();
            Report::Error(LastError { summary, detail: detail.map(str::to_owned) })
        };
        let detail = Some("Traceback:\n  line\n");
        let failures = [failure(None), failure(detail), error(None), error(detail)];
        let fork_failed = Report::ForkFailed { worker: 7, reason: "no memory".to_owned() };
        let exits = [ExitStatus::Code(3), ExitStatus::Signal(9)];
        let exits = exits.map(|status| Report::ChildExited { pid: 4712, status });
        let others = [Report::Ready, leaving, wanted, enough, Report::Born { pid: 4711 }, fork_failed];
        for report in others.into_iter().chain(exits).chain(failures) {
            let bytes = frame(report.clone());
            for cut in 0..bytes.len() {
                let mut received = bytes[..cut].to_vec();
                assert_eq!(first::<Report>(&received), Ok(None));
                received.extend_from_slice(&bytes[cut..]);
                assert_eq!(first(&received), Ok(Some((report.clone(), bytes.len()))));
            }
        }
        let drains = [Drain::Retire, Drain::Stop].map(Order::Drain);
        let broken = Order::Broken("Traceback:\n  line\n".to_owned());
        let others = [Order::Begin, Order::LameDuck, Order::Quit, Order::ReopenLogs, broken];
        for order in drains.into_iter().chain(others) {
            let bytes = frame(order.clone());
            assert_eq!(first(&bytes), Ok(Some((order, bytes.len()))));
        }
    }

    #[test]
    fn a_reason_of_any_length_is_cut_between_two_characters() {
        let long = || "x".to_owned() + &"\u{fc}".repeat(MAX_PAYLOAD);
        let failure = BootFailure { kind: ErrorKind::Boot, summary: long(), detail: None };
        let reports = [
            Report::Failed(failure),
            Report::Error(LastError { summary: long(), detail: None }),
            Report::Leaving(long()),
            Report::ReloadWanted(long()),
            Report::ForkFailed { worker: 7, reason: long() },
        ];
        for report in reports {
            let (_, payload) = report.cut().encode();
            let length = payload.len() - payload.iter().position(|byte| *byte == b'x').unwrap();
            assert_eq!(length, MAX_REASON - 1);
            assert!(payload.ends_with("\u{fc}".as_bytes()));
        }
        let short = Report::Leaving("tired".to_owned());
        assert_eq!(short.clone().cut(), short);
    }

    #[test]
    fn a_text_of_a_worker_reaches_the_supervisor_without_control_characters() {
        let text = || "a\x1b[2Jb\rc".to_owned();
        let expected = || "a [2Jb c".to_owned();
        let received = |report: Report| first::<Report>(&frame(report.cut())).unwrap().unwrap().0;
        let error = |summary, detail| Report::Error(LastError { summary, detail });
        assert_eq!(
            received(error(text() + "\nd", Some(text() + "\n\td"))),
            error(expected() + " d", Some(expected() + "\n\td"))
        );
        for report in [Report::Leaving, Report::ReloadWanted] {
            assert_eq!(received(report(text() + "\n")), report(expected() + " "));
        }
        let failed = |reason| Report::ForkFailed { worker: 7, reason };
        assert_eq!(received(failed(text())), failed(expected()));
    }

    #[test]
    fn a_detail_of_any_length_keeps_its_end() {
        let detail = || Some("x".to_owned() + &"\u{fc}".repeat(MAX_PAYLOAD) + "ValueError");
        let summary = || "why".to_owned();
        let error = LastError { summary: summary(), detail: detail() };
        let failure = BootFailure { kind: ErrorKind::Boot, summary: summary(), detail: detail() };
        for report in [Report::Error(error), Report::Failed(failure)] {
            let bytes = frame(report.cut());
            assert!(bytes.len() <= MAX_PAYLOAD && bytes.ends_with(b"\xc3\xbcValueError"));
            assert!(matches!(first::<Report>(&bytes), Ok(Some(_))));
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        assert_eq!(first::<Order>(&[b'?', 0, 0, 0, 0]), Err(Garbled));
        for tag in *b"ENFCS" {
            assert_eq!(first::<Report>(&[tag, 1, 0, 0, 0, 7]), Err(Garbled));
        }
        assert_eq!(first::<Order>(&[b'q', 255, 255, 255, 255]), Err(Garbled));
    }
}
