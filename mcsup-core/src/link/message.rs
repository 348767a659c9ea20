//! What supervisor and worker say to each other, and its bytes: a tag, a length (u32, little-endian), a payload.

use crate::error::ErrorKind;
use crate::policy::{BootFailure, Drain, ExitStatus};

/// The version of what follows, and of the orders to fork. A supervisor's next image talks to workers of the last one: whoever changes what a tag
/// or its payload means, or takes one away, counts this up, and an upgrade between the two is refused. A new tag that is
/// said to newer workers only needs no new number.
pub(crate) const PROTOCOL: u32 = 2;

/// From the supervisor to a worker or a mold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// The worker is known to be ready: serve. Not before, since until then it may be given up like any that boots.
    Begin,
    /// Go on, but say to whoever asks that this will end.
    LameDuck,
    /// Finish what there is and end.
    Drain(Drain),
    /// End now.
    Quit,
    /// Open log files anew.
    ReopenLogs,
    /// What should have followed this worker does not boot, and why: a traceback, for whoever develops it.
    Broken(String),
}

/// From a worker or a mold to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Boot succeeded.
    Ready,
    /// Boot failed; the exit follows.
    Failed(BootFailure),
    /// It wants to be replaced, and why.
    Leaving(String),
    /// The whole pool should be replaced, and why: what it was loaded from has changed.
    ReloadWanted(String),
    /// It has done as many requests as it was born for, and goes on.
    Enough {
        /// How many that is.
        requests: u64,
    },
    /// A worker that a mold has forked exists, and its supervisor can see it.
    Born {
        /// Its process id.
        pid: i32,
    },
    /// A mold could not fork a worker.
    ForkFailed {
        /// Which.
        worker: u64,
        /// Why.
        reason: String,
    },
    /// A worker that is its mold's child has ended, as the mold says; or is about to, as it says itself.
    ChildExited {
        /// Its process id.
        pid: i32,
        /// How.
        status: ExitStatus,
    },
}

/// A message that travels over a channel.
pub(crate) trait Message: Sized {
    /// The tag and the payload.
    fn encode(self) -> (u8, Vec<u8>);
    /// `None`: no such message.
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
                let mut payload = failure.summary.replace('\n', " ").into_bytes();
                if let Some(detail) = failure.detail {
                    payload.push(b'\n');
                    payload.extend_from_slice(detail.as_bytes());
                }
                (tag, payload)
            }
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Option<Self> {
        let kind = match tag {
            b'R' => return Some(Report::Ready),
            b'L' => return Some(Report::Leaving(String::from_utf8_lossy(payload).into_owned())),
            b'W' => return Some(Report::ReloadWanted(String::from_utf8_lossy(payload).into_owned())),
            b'E' => return Some(Report::Enough { requests: u64::from_le_bytes(payload.try_into().ok()?) }),
            b'N' => return Some(Report::Born { pid: i32::from_le_bytes(payload.try_into().ok()?) }),
            b'F' => {
                let (worker, reason) = payload.split_first_chunk()?;
                let (worker, reason) = (u64::from_le_bytes(*worker), String::from_utf8_lossy(reason));
                return Some(Report::ForkFailed { worker, reason: reason.into_owned() });
            }
            b'C' | b'S' => {
                let (pid, number) = payload.split_first_chunk()?;
                let (pid, number) = (i32::from_le_bytes(*pid), i32::from_le_bytes(number.try_into().ok()?));
                let status = if tag == b'C' { ExitStatus::Code(number) } else { ExitStatus::Signal(number) };
                return Some(Report::ChildExited { pid, status });
            }
            b'A' => ErrorKind::Application,
            b'B' => ErrorKind::Boot,
            _ => return None,
        };
        let text = String::from_utf8_lossy(payload);
        let (summary, detail) = match text.split_once('\n') {
            Some((summary, detail)) => (summary, Some(detail.to_owned())),
            None => (&*text, None),
        };
        Some(Report::Failed(BootFailure { kind, summary: summary.to_owned(), detail }))
    }
}

/// A message's bytes.
pub(crate) fn frame(message: impl Message) -> Vec<u8> {
    let (tag, payload) = message.encode();
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// The bytes before the payload: its tag and its length.
pub(crate) const HEAD: usize = 5;

/// The length of the payload that follows this head.
pub(crate) fn announced(head: &[u8; HEAD]) -> Result<usize, Garbled> {
    let [_, length @ ..] = *head;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PAYLOAD { Err(Garbled) } else { Ok(length) }
}

/// The first whole message in `bytes`, and how many bytes it has; `Ok(None)`: not all of it is there yet.
pub(crate) fn first<M: Message>(bytes: &[u8]) -> Result<Option<(M, usize)>, Garbled> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let length = announced(head)?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let message = M::decode(head[0], payload).ok_or(Garbled)?;
    Ok(Some((message, HEAD + length)))
}

/// The other end said something that is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// More than any traceback; a longer one is cut by whoever sends it.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// More than any reason that somebody reads.
const MAX_REASON: usize = 4 * 1024;

impl Report {
    /// As much of it as is said: a reason may be of any length, since an application may give it.
    pub(crate) fn cut(mut self) -> Self {
        match &mut self {
            Report::Failed(failure) => cut(&mut failure.summary),
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
        let failures = [failure(None), failure(Some("Traceback:\n  line\n"))];
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
    fn garbage_is_an_error_and_never_a_panic() {
        assert_eq!(first::<Order>(&[b'?', 0, 0, 0, 0]), Err(Garbled));
        for tag in *b"ENFCS" {
            assert_eq!(first::<Report>(&[tag, 1, 0, 0, 0, 7]), Err(Garbled));
        }
        assert_eq!(first::<Order>(&[b'q', 255, 255, 255, 255]), Err(Garbled));
    }
}
