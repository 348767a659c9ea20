//! Requests and replies, and their bytes: one JSON object a line, UTF-8, with the version of the protocol.
//!
//! Both sides ignore unknown fields, so that clients and servers of different releases understand each other.
//! Nothing here reads or writes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::Status;

/// The version of the protocol.
pub(crate) const VERSION: u64 = 1;

/// The longest line that a server accepts, in bytes.
pub(crate) const MAX_REQUEST: usize = 64 * 1024;

/// The commands, as spelled in a request.
pub(crate) const COMMANDS: [&str; 7] =
    ["status", "reload", "upgrade", "scale", "recycle", "stop", "reopen-logs"];

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// Whether the reply reports the outcome; otherwise it reports the start.
    pub wait: bool,
}

/// A command to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Report the server's status.
    Status,
    /// Boot a new generation, and retire the old one when it is ready.
    Reload,
    /// Replace the supervisor's own program in place.
    Upgrade,
    /// Serve with this many workers.
    Scale {
        /// The new target.
        workers: usize,
    },
    /// Replace the worker in this slot.
    Recycle {
        /// Its slot.
        slot: usize,
    },
    /// End the server.
    Stop {
        /// Whether to abort current requests.
        #[serde(default)]
        quick: bool,
    },
    /// Reopen log files.
    ReopenLogs,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is done.
    Done,
    /// It has begun; the client does not wait for the outcome.
    Begun,
    /// It was tried and undone: nothing has changed.
    Failed,
    /// A newer request replaced it.
    Superseded,
    /// It cannot be done, now or at all.
    Refused,
    /// The server does not understand the request.
    Mistaken,
}

/// A server's reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The outcome of the request.
    pub outcome: Outcome,
    /// One line for the operator.
    #[serde(default)]
    pub message: String,
    /// Further lines for the operator, such as the traceback of a failed boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The server's status, in the reply to a status request only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The reason why a line is no valid message, in one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake(String);

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

impl Request {
    /// A request that waits for its outcome.
    pub fn new(command: Command) -> Self {
        Self { command, wait: true }
    }

    /// Encodes the request as a line.
    pub fn to_line(&self) -> Vec<u8> {
        let mut object = object(&self.command);
        object.insert("wait".to_owned(), self.wait.into());
        line(object)
    }

    /// Parses one line.
    ///
    /// # Errors
    /// The line is no JSON object, of another version, or names an unknown command.
    pub fn from_line(bytes: &[u8]) -> Result<Self, Mistake> {
        let object = read(bytes)?;
        let wait = match object.get("wait") {
            None => true,
            Some(Value::Bool(wait)) => *wait,
            Some(_) => return Err(Mistake("'wait' is neither true nor false".to_owned())),
        };
        let known = || format!("the commands are {}", COMMANDS.join(", "));
        match object.get("command") {
            Some(Value::String(name)) if COMMANDS.contains(&name.as_str()) => {}
            // Quoted as JSON, and cut: the reply stays one short line for any input.
            Some(other) => {
                let name: String = other.to_string().chars().take(40).collect();
                return Err(Mistake(format!("unknown command {name}; {}", known())));
            }
            None => return Err(Mistake(format!("there is no 'command'; {}", known()))),
        }
        match serde_json::from_value(Value::Object(object)) {
            Ok(command) => Ok(Self { command, wait }),
            Err(error) => Err(Mistake(error.to_string())),
        }
    }
}

impl Reply {
    /// A reply of one line.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), detail: None, status: None }
    }

    /// Adds a text of several lines.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Encodes the reply as a line.
    pub fn to_line(&self) -> Vec<u8> {
        line(object(self))
    }

    /// Parses one line.
    ///
    /// # Errors
    /// The line is no JSON object, of another version, or has an unknown outcome.
    pub fn from_line(bytes: &[u8]) -> Result<Self, Mistake> {
        let object = read(bytes)?;
        serde_json::from_value(Value::Object(object)).map_err(|error| Mistake(error.to_string()))
    }
}

/// A message's fields. Every message type serializes to an object with text keys, so this cannot fail.
fn object(message: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(message) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn line(mut object: Map<String, Value>) -> Vec<u8> {
    object.insert("version".to_owned(), VERSION.into());
    let mut bytes = Value::Object(object).to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

fn read(bytes: &[u8]) -> Result<Map<String, Value>, Mistake> {
    let value = serde_json::from_slice(bytes).map_err(|error| Mistake(format!("not JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(Mistake("not a JSON object".to_owned()));
    };
    match object.get("version") {
        Some(version) if version.as_u64() == Some(VERSION) => Ok(object),
        Some(Value::Number(other)) => {
            Err(Mistake(format!("version {other} of the protocol is not spoken here, only {VERSION}")))
        }
        _ => Err(Mistake(format!("there is no 'version'; {VERSION} is spoken here"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::{Death, MoldStatus, SlotStatus, WorkerStatus};
    use super::*;

    const ALL: [Command; 7] = [
        Command::Status,
        Command::Reload,
        Command::Upgrade,
        Command::Scale { workers: 4 },
        Command::Recycle { slot: 2 },
        Command::Stop { quick: true },
        Command::ReopenLogs,
    ];

    #[test]
    fn every_request_survives_its_line() {
        for (command, name) in ALL.into_iter().zip(COMMANDS) {
            for wait in [true, false] {
                let request = Request { command: command.clone(), wait };
                let line = request.to_line();
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                assert!(
                    String::from_utf8(line.clone()).unwrap().contains(&format!("\"command\":\"{name}\""))
                );
                assert_eq!(Request::from_line(&line), Ok(request));
            }
        }
    }

    #[test]
    fn a_request_may_omit_defaults_and_have_unknown_fields() {
        let request = Request::from_line(br#"{"version": 1, "command": "stop", "colour": "red"}"#);
        assert_eq!(request, Ok(Request::new(Command::Stop { quick: false })));
    }

    #[test]
    fn a_mistake_names_its_reason() {
        for (line, expected) in [
            (&b"reload"[..], "not JSON: expected value at line 1 column 1"),
            (b"\xff", "not JSON: expected value at line 1 column 1"),
            (b"[1]", "not a JSON object"),
            (br#"{"command": "reload"}"#, "there is no 'version'; 1 is spoken here"),
            (
                br#"{"version": 2, "command": "reload"}"#,
                "version 2 of the protocol is not spoken here, only 1",
            ),
            (
                br#"{"version": 1, "command": "dance"}"#,
                "unknown command \"dance\"; the commands are status, reload, upgrade, scale, recycle, stop, reopen-logs",
            ),
            (br#"{"version": 1, "command": "scale"}"#, "missing field `workers`"),
            (br#"{"version": 1, "command": "reload", "wait": 1}"#, "'wait' is neither true nor false"),
        ] {
            assert_eq!(Request::from_line(line).unwrap_err().to_string(), expected);
        }
        assert!(
            Request::from_line(br#"{"version": 1}"#).unwrap_err().to_string().starts_with("there is no 'co")
        );
    }

    #[test]
    fn a_reply_survives_its_line_whole() {
        let status = Status {
            pid: Some(7),
            phase: Some("serving".to_owned()),
            workers: vec![WorkerStatus { slot: 1, in_flight: Some(3), ..WorkerStatus::default() }],
            slots: vec![SlotStatus {
                slot: 1,
                restarts: 2,
                last_death: Some(Death { seconds_ago: 0.5, cause: "exit code 1".to_owned() }),
                next_start_seconds: Some(2.5),
                waits_because: Some("its worker died".to_owned()),
            }],
            mold: Some(MoldStatus { pid: Some(9), ..MoldStatus::default() }),
            ..Status::default()
        };
        let reply =
            Reply::new(Outcome::Done, "so it is").with_detail("Traceback:\n  x\n").with_status(status);
        let line = reply.to_line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Reply::from_line(&line), Ok(reply));
    }

    #[test]
    fn a_reply_of_another_release_is_read_as_far_as_it_is_known() {
        let line = br#"{"version":1,"outcome":"done","mood":"fine","status":{"pid":7,"workers":[{"slot":0,"shoes":2}]}}"#;
        let status = Reply::from_line(line).unwrap().status.unwrap();
        assert_eq!((status.pid, status.workers[0].slot), (Some(7), 0));
        assert!(Reply::from_line(br#"{"version":1,"outcome":"hm"}"#).is_err());
    }

    #[test]
    fn the_documented_examples_are_valid() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONTROL.md");
        // The packaged crate does not contain the documentation.
        let Ok(document) = std::fs::read_to_string(path) else { return };
        let examples: Vec<&str> = document.lines().filter(|line| line.starts_with('{')).collect();
        let (requests, replies): (Vec<&str>, Vec<&str>) =
            examples.into_iter().partition(|line| line.contains("\"command\":"));
        let commands: Vec<&str> = requests
            .iter()
            .map(|line| Request::from_line(line.as_bytes()).unwrap().command)
            .map(|command| COMMANDS[ALL.iter().position(|other| same_kind(other, &command)).unwrap()])
            .collect();
        assert_eq!(commands, COMMANDS);
        let replies: Vec<Reply> =
            replies.iter().map(|line| Reply::from_line(line.as_bytes()).unwrap()).collect();
        assert_eq!(replies.len(), 7);
        // The document shows every field of a status, and no other.
        let shown = document.lines().find(|line| line.contains("\"status\":{")).unwrap();
        let read = Reply::from_line(shown.as_bytes()).unwrap();
        let shown: Value = serde_json::from_str(shown).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&read.to_line()).unwrap(), shown);
    }

    fn same_kind(one: &Command, other: &Command) -> bool {
        std::mem::discriminant(one) == std::mem::discriminant(other)
    }
}
