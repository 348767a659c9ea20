use super::super::fixture::{obey, turn};
use super::super::protocol::Outcome;
use super::super::server::Server;
use super::*;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

const PATIENCE: Duration = Duration::from_secs(5);

/// A server without a control socket, and a handle on it.
fn server() -> (Server, Handle) {
    let (handle, end) = pair().unwrap();
    let mut server = Server::default();
    server.serve(end);
    (server, handle)
}

/// Turns the loop until the ticket resolves.
fn outcome(server: &mut Server, ticket: &mut Ticket) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        turn(server, Duration::from_millis(5), &mut obey);
        if let Some(outcome) = ticket.try_outcome() {
            return outcome.unwrap();
        }
        assert!(Instant::now() < deadline, "no outcome came in time");
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&clock::wait_of(Duration::ZERO))).unwrap()
        > 0
}

#[test]
fn each_method_sends_its_request_and_its_ticket_has_the_outcome() {
    let (mut server, handle) = server();
    let tickets = [
        (handle.status(), "Status"),
        (handle.reload(), "Reload"),
        (handle.scale(3), "Scale { workers: 3 }"),
        (handle.recycle(1), "Recycle { slot: 1 }"),
        (handle.upgrade(), "Upgrade"),
        (handle.reopen_logs(), "ReopenLogs"),
        (handle.stop(), "Stop { quick: false }"),
        (handle.stop_now(), "Stop { quick: true }"),
    ];
    for (ticket, command) in tickets {
        let mut ticket = ticket.unwrap();
        let reply = outcome(&mut server, &mut ticket);
        assert_eq!((reply.outcome, reply.message.as_str()), (Outcome::Done, command));
        // It is there once.
        assert!(matches!(ticket.try_outcome(), Some(Err(AskError::Ended))));
    }
}

#[test]
fn a_ticket_is_readable_when_its_outcome_is_there_and_not_before() {
    let (mut server, handle) = server();
    let mut ticket = handle.reload().unwrap();
    assert!(ticket.try_outcome().is_none() && !is_readable(ticket.as_fd()));
    assert!(matches!(ticket.wait(Some(Duration::from_millis(1))), Err(AskError::TimedOut)));
    let (client, _) = server.receive().pop().unwrap();
    assert!(server.is_the_program(client));
    server.answer(client, &Reply::new(Outcome::Failed, "no"));
    assert!(is_readable(ticket.as_fd()));
    assert_eq!(ticket.wait(None).unwrap().outcome, Outcome::Failed);
}

#[test]
fn clones_of_a_handle_work_in_other_threads() {
    let (mut server, handle) = server();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let handle = handle.clone();
            std::thread::spawn(move || handle.status().unwrap().wait(Some(PATIENCE)).unwrap())
        })
        .collect();
    while threads.iter().any(|thread| !thread.is_finished()) {
        turn(&mut server, Duration::from_millis(5), &mut obey);
    }
    for thread in threads {
        assert_eq!(thread.join().unwrap().status.unwrap().pid, Some(1));
    }
}

#[test]
fn the_end_of_the_supervisor_is_an_error_of_old_tickets_and_of_new_requests() {
    let (mut server, handle) = server();
    let (mut taken, mut sent) = (handle.reload().unwrap(), handle.reload().unwrap());
    assert_eq!(server.receive().len(), 2);
    drop(server);
    for ticket in [&mut taken, &mut sent] {
        assert!(matches!(ticket.wait(Some(PATIENCE)), Err(AskError::Ended)));
    }
    assert!(is_readable(handle.as_fd()));
    assert!(matches!(handle.reload(), Err(AskError::Ended)));
}

#[test]
fn a_request_whose_ticket_is_dropped_is_carried_out_and_a_dropped_handle_is_no_event() {
    let (mut server, handle) = server();
    drop(handle.reload().unwrap());
    drop(handle);
    let received = server.receive();
    assert!(received.len() == 1 && server.is_the_program(received[0].0));
    server.flush();
    assert_eq!(server.descriptors().filter(|(fd, _)| is_readable(*fd)).count(), 0);
}

#[test]
fn more_requests_than_there_is_room_for_are_an_error_and_the_others_are_answered() {
    let (mut server, handle) = server();
    let mut tickets = Vec::new();
    let refused = loop {
        match handle.status() {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
        assert!(tickets.len() < 10_000);
    };
    assert!(matches!(&refused, AskError::System(_)), "{refused}");
    assert!(tickets.len() > 64, "{}", tickets.len());
    for ticket in &mut tickets {
        assert_eq!(outcome(&mut server, ticket).outcome, Outcome::Done);
    }
    let mut later = handle.status().unwrap();
    assert_eq!(outcome(&mut server, &mut later).outcome, Outcome::Done);
}

#[test]
fn a_ticket_that_has_resolved_holds_no_descriptor_of_the_supervisor() {
    let (mut server, handle) = server();
    let mut tickets: Vec<_> = (0..3).map(|_| handle.status().unwrap()).collect();
    for ticket in &mut tickets {
        assert_eq!(outcome(&mut server, ticket).outcome, Outcome::Done);
    }
    assert_eq!(server.describe().descriptors().count(), 1);
    assert!(matches!(tickets[0].wait(Some(PATIENCE)), Err(AskError::Ended)));
}

#[test]
fn a_request_waits_while_the_supervisor_has_no_free_descriptor() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let (mut server, handle) = server();
    let mut ticket = handle.status().unwrap();
    let before = getrlimit(Resource::Nofile);
    let lowest_free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let limit = Rlimit { current: u64::try_from(lowest_free).ok(), ..before };
    setrlimit(Resource::Nofile, limit).unwrap();
    let received = server.receive();
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(received.is_empty() && ticket.try_outcome().is_none());
    assert_eq!(outcome(&mut server, &mut ticket).outcome, Outcome::Done);
}
