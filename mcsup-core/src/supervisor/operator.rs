//! Operators at the control socket: what they ask becomes an [`Ask`] with a ticket, and what the policy answers to the
//! ticket goes back to them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::control::server::{ClientId, Server, ServerRecord};
use crate::control::{Command, Outcome, Reply};
use crate::policy::{Answer, Ask, Moment, StopMode, Ticket};

/// The control socket, and the requests that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    server: Option<Server>,
    waiting: Waiting,
}

/// The client that waits for each ticket; it outlives an upgrade.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Waiting {
    tickets: BTreeMap<Ticket, ClientId>,
    last: u64,
}

/// All of it, over an upgrade.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct OperatorsRecord {
    server: Option<ServerRecord>,
    waiting: Waiting,
}

impl OperatorsRecord {
    /// All descriptors in it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.server.iter().flat_map(ServerRecord::descriptors)
    }
}

/// Something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// How everything is.
    Status(ClientId),
    /// A change; `None`: no client waits for the outcome.
    Change(Ask, Option<Ticket>),
}

impl Operators {
    /// Listens at `path`. Where that cannot be, the pool goes without.
    pub(crate) fn listen(path: Option<&Path>) -> Self {
        let server = path.and_then(|path| match Server::open(path) {
            Ok(server) => {
                log::info!("Control socket at {}", server.path().display());
                Some(server)
            }
            Err(error) => {
                log::warn!("{error}; going on without a control socket");
                None
            }
        });
        Self { server, waiting: Waiting::default() }
    }

    /// What the next image needs.
    pub(crate) fn describe(&self) -> OperatorsRecord {
        OperatorsRecord { server: self.server.as_ref().map(Server::describe), waiting: self.waiting.clone() }
    }

    /// Goes on where the last image stopped.
    pub(crate) fn adopt(record: OperatorsRecord) -> io::Result<Self> {
        let OperatorsRecord { server, waiting } = record;
        Ok(Self { server: server.map(Server::adopt).transpose()?, waiting })
    }

    /// What to wait on, and whether for room to write.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.server.iter().flat_map(Server::descriptors)
    }

    /// When to look again though nothing has come.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.server.as_ref().and_then(Server::deadline)
    }

    /// What has been asked for since the last call.
    pub(crate) fn hear(&mut self) -> Vec<Wish> {
        let Some(server) = &mut self.server else { return Vec::new() };
        let mut wishes = Vec::new();
        for (client, request) in server.receive() {
            let Some(ask) = meant(&request.command) else {
                wishes.push(Wish::Status(client));
                continue;
            };
            log::info!("Asked by an operator: {}", words(&request.command));
            if request.wait {
                wishes.push(Wish::Change(ask, Some(self.waiting.ticket(client))));
            } else {
                server.answer(client, &Reply::new(Outcome::Begun, words(&request.command)));
                wishes.push(Wish::Change(ask, None));
            }
        }
        wishes
    }

    /// The answer to a ticket.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        if let (Some(client), Some(server)) = (self.waiting.tickets.remove(&ticket), &mut self.server) {
            server.answer(client, &reply(answer));
        }
    }

    /// The answer to a question.
    pub(crate) fn tell(&mut self, client: ClientId, reply: &Reply) {
        if let Some(server) = &mut self.server {
            server.answer(client, reply);
        }
    }

    /// The supervisor ends: last answers leave, within bounds.
    pub(crate) fn finish(&mut self) {
        if let Some(server) = &mut self.server {
            server.finish();
        }
    }

    /// In a forked child: none of it is the child's.
    pub(crate) fn close_in_child(&mut self) {
        if let Some(server) = self.server.take() {
            server.close_in_child();
        }
    }
}

impl Waiting {
    fn ticket(&mut self, client: ClientId) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.tickets.insert(ticket, client);
        ticket
    }
}

/// What a command asks the policy for; `None`: nothing, it only wants to know.
fn meant(command: &Command) -> Option<Ask> {
    Some(match command {
        Command::Status => return None,
        Command::Reload => Ask::Reload,
        Command::Upgrade => Ask::Upgrade,
        Command::Scale { workers } => Ask::Scale(*workers),
        Command::Recycle { slot } => Ask::Recycle(*slot),
        Command::Stop { quick: false } => Ask::Stop(StopMode::Graceful),
        Command::Stop { quick: true } => Ask::Stop(StopMode::Quick),
        Command::ReopenLogs => Ask::ReopenLogs,
    })
}

fn words(command: &Command) -> String {
    match command {
        Command::Status => "status".to_owned(),
        Command::Reload => "reload".to_owned(),
        Command::Upgrade => "upgrade".to_owned(),
        Command::Scale { workers } => format!("scale to {workers} workers"),
        Command::Recycle { slot } => format!("recycle slot {slot}"),
        Command::Stop { quick } => if *quick { "stop at once" } else { "stop" }.to_owned(),
        Command::ReopenLogs => "reopen logs".to_owned(),
    }
}

fn reply(answer: &Answer) -> Reply {
    match answer {
        Answer::Done(message) => Reply::new(Outcome::Done, message),
        Answer::Failed { reason, detail } => {
            let reply = Reply::new(Outcome::Failed, reason);
            match detail {
                Some(detail) => reply.with_detail(detail),
                None => reply,
            }
        }
        Answer::Superseded => Reply::new(Outcome::Superseded, "a newer request took its place"),
        Answer::Refused(reason) => Reply::new(Outcome::Refused, reason),
    }
}
