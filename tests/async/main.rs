//! Workers on tokio and hyper, with real processes and clients. The tests run as those of `tests/core` do.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says so; it uses a part of what it shares with others"
)]

#[path = "../../examples/axum.rs"]
mod axum_example;
mod client;
mod ends;
mod inside;
mod pipelines;
#[path = "../core/pool.rs"]
mod pool;
mod reloads;
mod roles;
#[path = "../core/runner.rs"]
mod runner;

use std::process::ExitCode;

use runner::Test;

const TESTS: &[Test] = &[
    ("clients_of_axum_lose_nothing_over_reloads", reloads::clients_of_axum_lose_nothing_over_reloads),
    ("half_a_request_moves_with_its_connection", reloads::half_a_request_moves_with_its_connection),
    ("half_a_request_is_answered_at_a_stop", reloads::half_a_request_is_answered_at_a_stop),
    (
        "a_response_in_progress_ends_and_its_connection_moves",
        reloads::a_response_in_progress_ends_and_its_connection_moves,
    ),
    (
        "a_request_whose_client_leaves_does_not_hold_its_worker",
        reloads::a_request_whose_client_leaves_does_not_hold_its_worker,
    ),
    (
        "a_body_that_was_not_read_does_not_become_a_request",
        reloads::a_body_that_was_not_read_does_not_become_a_request,
    ),
    (
        "a_connection_whose_upgrade_was_refused_moves_with_half_a_request",
        reloads::a_connection_whose_upgrade_was_refused_moves_with_half_a_request,
    ),
    ("a_connection_that_always_has_a_request_moves", pipelines::a_connection_that_always_has_a_request_moves),
    (
        "a_response_leaves_before_its_connection_moves",
        pipelines::a_response_leaves_before_its_connection_moves,
    ),
    (
        "a_request_that_only_the_kernel_has_is_answered_at_a_stop",
        inside::a_request_that_only_the_kernel_has_is_answered_at_a_stop,
    ),
    (
        "a_body_that_begins_as_its_worker_ends_does_not_become_a_request",
        inside::a_body_that_begins_as_its_worker_ends_does_not_become_a_request,
    ),
    (
        "tasks_run_while_a_worker_that_drains_accepts_without_a_pause",
        inside::tasks_run_while_a_worker_that_drains_accepts_without_a_pause,
    ),
    ("a_killed_worker_loses_only_its_own", ends::a_killed_worker_loses_only_its_own),
    ("a_stop_answers_what_has_arrived", ends::a_stop_answers_what_has_arrived),
    (
        "an_upgraded_connection_holds_its_worker_until_it_ends",
        ends::an_upgraded_connection_holds_its_worker_until_it_ends,
    ),
    (
        "an_upgrade_whose_request_ends_after_the_order_to_stop_is_granted",
        ends::an_upgrade_whose_request_ends_after_the_order_to_stop_is_granted,
    ),
    ("a_worker_of_many_requests_is_replaced", ends::a_worker_of_many_requests_is_replaced),
    ("without_a_supervisor_the_port_is_free_at_once", ends::without_a_supervisor_the_port_is_free_at_once),
];

fn main() -> ExitCode {
    match std::env::var(roles::ROLE) {
        Ok(role) => roles::play(&role),
        Err(_) => runner::run(TESTS),
    }
}
