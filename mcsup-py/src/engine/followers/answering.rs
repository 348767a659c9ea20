//! The work of a follower between two rounds: it answers requests, and gives queued connections their turns.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::super::coalescing::Holding;
use super::super::connection::{Connection, HeadBytes};
use super::super::exchange::{Answered, Asked, Exchange};
use super::super::jobs::Job;
use super::super::turns::Queued;
use super::{Follower, Guard, Leader, Locked, Shared};
use crate::access::Entry;
use crate::app::{Body, Left, Request};

/// An application that takes longer than this on average is not worth waiting for, with other permits free.
const SLOW: Duration = Duration::from_micros(200);

impl<'a> Shared<'a> {
    /// Answers one request, without the lock.
    pub(super) fn answer<'g>(
        &'g self,
        mut state: Guard<'g, 'a>,
        mut job: Job,
        follower: &mut Follower<'_>,
    ) -> Guard<'g, 'a> {
        state.budget = state.budget.saturating_sub(1);
        let (began, permit) = (follower.take_now(), follower.permit);
        // The application looks for signals too.
        (follower.worked, follower.looked_for_signals) = (true, Some(began));
        let has_deadline = self.config.timeouts.request.is_some();
        if has_deadline || self.permits.len() > 1 || job.head().delimited().asks_upgrade {
            state.running[permit].begin(&job, has_deadline, began);
        }
        let is_led = state.leader == Leader::Permit;
        self.wake_helpers(&mut state, is_led);
        let coalesce = state.service < SLOW && state.table.may_coalesce(began);
        drop(state);
        self.permits[permit].race.start();
        if !is_led {
            self.leave_lead(began);
        }
        let answered = self.call(&mut job, follower, began, coalesce);
        let left = if self.logs { follower.app.left() } else { Left::default() };
        let ended = Instant::now();
        follower.now = Some(ended);
        let mut state = self.lock();
        if let Some(access) = &mut state.table.access {
            let (head, remote) = (Some(job.head()), job.connection.peer.remote);
            let (response, bytes, took) = (&follower.sent, answered.bytes, ended - began);
            access.note(&Entry { head, remote, response, bytes, took, left: &left });
        }
        state.running[permit].end();
        if answered.taken {
            // A permit that hangs behind a conversation is one that hangs.
            self.permits[permit].race.start();
        } else {
            state.service = (state.service * 7 + (ended - began)) / 8;
        }
        state.table.give_back(job, answered, coalesce, ended);
        if !coalesce {
            state.table.send_coalesced(ended);
        }
        state
    }

    /// Calls the application.
    fn call(&self, job: &mut Job, follower: &mut Follower<'_>, began: Instant, coalesce: bool) -> Answered {
        let Job { connection, head, body } = job;
        let asks_upgrade = connection.heads.delimited().asks_upgrade;
        if asks_upgrade && std::mem::take(&mut connection.registered) {
            // The poller would report each byte of the other protocol. It gets the connection back behind the answer.
            let _ = self.poller.delete(connection.stream.as_fd());
        }
        let Connection { stream, outgoing, heads, incoming, peer, secured, .. } = &mut **connection;
        let received = match head {
            _ if !asks_upgrade => &[],
            HeadBytes::InPlace(length) => &incoming.bytes()[*length..],
            HeadBytes::Own(_) => incoming.bytes(),
        };
        let head = Connection::view(heads, incoming, head);
        let permit = &self.permits[follower.permit];
        let asked = Asked {
            method: head.method(),
            version: head.version(),
            received,
            keep_alive: head.delimited().keep_alive && !self.config.timeouts.keep_alive.is_zero(),
            host: self.host,
            gave_up: &self.gave_up,
            stamp: follower.date.at(began),
            write_timeout: self.config.timeouts.write,
            race: &permit.race,
            coalesce,
            handles_signals: follower.permit == 0 && follower.app.handles_signals(),
            holding: Holding { held: &permit.held, watch: &self.watch, waker: &self.waker },
        };
        let mut exchange = Exchange::new(stream, outgoing, asked, self.logs.then_some(&mut follower.sent));
        self.host.request_began();
        let body = std::mem::replace(body, Body::Empty);
        let verdict =
            follower.app.call(Request { head, body, peer, secured: secured.as_deref() }, &mut exchange);
        let answered = exchange.finish(verdict);
        self.host.request_ended();
        answered
    }

    /// The connection whose turn it is, if there is time for one.
    pub(super) fn next_in_queue(&self, state: &mut Locked<'a>) -> Option<Queued> {
        // If another thread leads, the queue can wait: that thread polls meanwhile.
        let has_time = state.leader == Leader::Permit || !state.queue_time.is_zero();
        if has_time { state.table.next_in_queue() } else { None }
    }

    /// Gives one turn, and counts it; returns its end. `is_led`: another thread leads, or this one leads on.
    pub(super) fn give_turn<'g>(
        &'g self,
        state: Guard<'g, 'a>,
        next: Queued,
        began: Instant,
        is_led: bool,
    ) -> (Guard<'g, 'a>, Instant) {
        let ready = state.table.ready.len();
        let mut state = self.have_turn(state, next, began, is_led);
        // A request that has become complete need not wait for the next poll.
        state.budget += state.table.ready.len().saturating_sub(ready);
        let now = Instant::now();
        state.queue_time = state.queue_time.saturating_sub(now - began);
        (state, now)
    }

    /// One turn, without the lock during a large transfer.
    pub(super) fn have_turn<'g>(
        &'g self,
        mut state: Guard<'g, 'a>,
        next: Queued,
        began: Instant,
        is_led: bool,
    ) -> Guard<'g, 'a> {
        let Some(mut work) = state.table.begin_turn(next, began) else { return state };
        drop(state);
        if !is_led {
            self.leave_lead(began);
        }
        work.take_turn(&self.config, began);
        state = self.lock();
        state.table.end_turn(work, began);
        state
    }

    /// Wakes others for the waiting requests, if the application is slow, and for the poller.
    pub(super) fn wake_helpers(&self, state: &mut Locked<'a>, is_led: bool) {
        let wanted = match state.service >= SLOW {
            true => state.table.ready.len() + usize::from(!is_led),
            // Otherwise the spare replaces this thread when it is missed.
            false => usize::from(!is_led && state.spare_works),
        };
        self.wake_parked(state, wanted);
    }

    /// Leaves the queue to another thread, since this one has something else to do.
    pub(super) fn leave_queue(&self, state: &mut Locked<'a>, is_led: bool) {
        self.wake_helpers(state, is_led);
        if is_led && state.table.has_work() {
            self.waker.wake();
        }
    }
}
