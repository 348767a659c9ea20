//! Requests at the control socket and of the program's handles. A request becomes an [`Ask`] with a ticket, and the
//! policy's answer to the ticket becomes the reply.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::control::handle_end::HandleEnd;
use crate::control::server::{ClientId, Server, ServerRecord};
use crate::control::{Command, Outcome, Reply};
use crate::policy::{Answer, Ask, Moment, StopMode, Ticket};

/// The control socket, and the requests that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    server: Option<Server>,
    waiting: PendingTickets,
}

/// The client that waits for each ticket; it outlives an upgrade.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PendingTickets {
    tickets: BTreeMap<Ticket, ClientId>,
    last: u64,
}

/// The [`Operators`], for the next image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct OperatorsRecord {
    server: Option<ServerRecord>,
    waiting: PendingTickets,
}

impl OperatorsRecord {
    /// All descriptors in it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.server.iter().flat_map(ServerRecord::descriptors)
    }
}

/// A request of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperatorRequest {
    /// The status of the pool.
    Status(ClientId),
    /// A change; `None`: no client waits for the outcome.
    Change(Ask, Option<Ticket>),
}

impl Operators {
    /// Listens at `path`. On an error the pool runs without a control socket.
    pub(crate) fn listen(path: Option<&Path>) -> Self {
        let server = path.and_then(|path| match Server::open(path) {
            Ok(server) => {
                log::info!("Control socket at {}", server.path().unwrap_or(path).display());
                Some(server)
            }
            Err(error) => {
                log::warn!("{error}; going on without a control socket");
                None
            }
        });
        Self { server, waiting: PendingTickets::default() }
    }

    /// Takes requests of the program's handles too.
    pub(crate) fn serve(&mut self, handles: HandleEnd) {
        self.server.get_or_insert_default().serve(handles);
    }

    /// The record for the next image.
    pub(crate) fn describe(&self) -> OperatorsRecord {
        OperatorsRecord { server: self.server.as_ref().map(Server::describe), waiting: self.waiting.clone() }
    }

    /// The recorded control socket of the last image.
    pub(crate) fn adopt(record: OperatorsRecord) -> io::Result<Self> {
        let OperatorsRecord { server, waiting } = record;
        Ok(Self { server: server.map(Server::adopt).transpose()?, waiting })
    }

    /// The descriptors to poll, and whether for writing.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.server.iter().flat_map(Server::descriptors)
    }

    /// The time to call [`receive`](Self::receive) at without an event.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.server.as_ref().and_then(Server::deadline)
    }

    /// The requests since the last call.
    pub(crate) fn receive(&mut self) -> Vec<OperatorRequest> {
        let Some(server) = &mut self.server else { return Vec::new() };
        let mut requests = Vec::new();
        for (client, request) in server.receive() {
            let Some(ask) = ask_of(&request.command) else {
                requests.push(OperatorRequest::Status(client));
                continue;
            };
            let by = if server.is_the_program(client) { "the program" } else { "an operator" };
            log::info!("Asked by {by}: {}", summary(&request.command));
            if request.wait {
                requests.push(OperatorRequest::Change(ask, Some(self.waiting.ticket(client))));
            } else {
                server.answer(client, &Reply::new(Outcome::Begun, summary(&request.command)));
                requests.push(OperatorRequest::Change(ask, None));
            }
        }
        if server.take_parents_end() {
            log::info!("The program that has spawned this pool has ended, or dropped its last handle");
            requests.push(OperatorRequest::Change(Ask::StopWithProgram, None));
        }
        requests
    }

    /// Sends a line to the program that has spawned this process, if one has.
    pub(crate) fn report(&self, line: &[u8]) {
        if let Some(parent) = self.server.as_ref().and_then(Server::parent) {
            parent.report(line);
        }
    }

    /// Sends the answer to a ticket.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: &Answer) {
        if let (Some(client), Some(server)) = (self.waiting.tickets.remove(&ticket), &mut self.server) {
            server.answer(client, &reply(answer));
        }
    }

    /// Sends a reply to a client without a ticket.
    pub(crate) fn answer_client(&mut self, client: ClientId, reply: &Reply) {
        if let Some(server) = &mut self.server {
            server.answer(client, reply);
        }
    }

    /// Sends the last replies of an ending supervisor, in bounded time.
    pub(crate) fn finish(&mut self) {
        if let Some(server) = &mut self.server {
            server.finish();
        }
    }

    /// Closes the control socket in a forked child.
    pub(crate) fn close_in_child(&mut self) {
        if let Some(server) = self.server.take() {
            server.close_in_child();
        }
    }
}

impl PendingTickets {
    fn ticket(&mut self, client: ClientId) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.tickets.insert(ticket, client);
        ticket
    }
}

/// The change that a command asks for; `None`: a status request.
fn ask_of(command: &Command) -> Option<Ask> {
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

fn summary(command: &Command) -> String {
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

/// The reply to a request with this answer.
pub(crate) fn reply(answer: &Answer) -> Reply {
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
