//! The library with real processes: forks, signals, descriptors, privileges.
//!
//! A supervisor forks, and refuses to beside other threads, which libtest has. So this target has no harness: it runs
//! each test in its own process of one thread. It answers nextest (`--list`, `--exact NAME`) and runs all by itself.
//!
//! A test is a function that starts this program again in a role (see `roles`), which is a pool of the kind that it
//! needs, and watches it from outside. Add one to [`TESTS`].

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says so"
)]

mod early;
mod embedding;
mod errors;
mod external;
mod hosts;
mod lives;
mod molds;
mod pool;
mod preparations;
mod programs;
mod roles;
mod runner;
mod services;
mod signals;
mod sockets;
mod spawned;
mod spawners;
mod stepping;
mod upgrades;

use std::process::ExitCode;

use runner::Test;

const TESTS: &[Test] = &[
    ("a_pool_serves_and_stops_when_asked", lives::a_pool_serves_and_stops_when_asked),
    (
        "a_worker_has_nothing_of_its_supervisors_but_what_it_needs",
        lives::a_worker_has_nothing_of_its_supervisors,
    ),
    (
        "a_worker_starts_with_no_signal_blocked_and_child_at_its_default",
        lives::a_worker_starts_with_clean_signals,
    ),
    (
        "workers_have_the_limit_of_descriptors_that_their_supervisor_was_given",
        lives::workers_have_the_limit_given,
    ),
    (
        "a_pool_serves_and_replaces_workers_while_a_reload_is_prepared",
        preparations::a_pool_serves_and_replaces_workers_while_a_reload_is_prepared,
    ),
    (
        "a_newer_reload_ends_the_preparation_of_the_one_before",
        preparations::a_newer_reload_ends_the_preparation_of_the_one_before,
    ),
    (
        "a_failed_preparation_leaves_the_serving_generation",
        preparations::a_failed_preparation_leaves_the_serving_generation,
    ),
    ("a_stop_does_not_wait_for_a_preparation", preparations::a_stop_does_not_wait_for_a_preparation),
    ("privileges_are_dropped_completely", lives::privileges_are_dropped_completely),
    ("a_worker_that_panics_is_replaced_and_the_others_go_on", lives::a_worker_that_panics_is_replaced),
    ("a_boot_that_panics_ends_the_start", lives::a_boot_that_panics_ends_the_start),
    (
        "a_supervisor_with_threads_refuses_to_fork_and_names_them",
        lives::a_supervisor_with_threads_refuses_to_fork,
    ),
    ("a_killed_supervisor_takes_its_pool_along", lives::a_killed_supervisor_takes_its_pool_along),
    (
        "a_port_is_free_though_a_worker_has_no_descriptor_left",
        lives::a_port_is_free_though_a_worker_has_no_descriptor_left,
    ),
    ("an_inherited_listener_is_served", lives::an_inherited_listener_is_served),
    (
        "each_kind_of_socket_is_served_by_the_workers_of_a_mold_and_of_the_next_image",
        sockets::each_kind_of_socket_is_served_by_a_mold_and_the_next_image,
    ),
    (
        "each_kind_of_socket_is_free_when_the_supervisor_is_killed_although_workers_are_busy",
        sockets::each_kind_of_socket_is_free_although_workers_are_busy,
    ),
    (
        "a_process_that_a_worker_has_forked_holds_no_duplicate_of_a_listener",
        sockets::a_process_that_a_worker_has_forked_holds_no_duplicate_of_a_listener,
    ),
    (
        "a_new_image_without_a_listener_that_the_pool_has_is_refused",
        sockets::a_new_image_without_a_listener_that_the_pool_has_is_refused,
    ),
    ("a_pool_that_names_no_listener_does_not_start", sockets::a_pool_that_names_no_listener_does_not_start),
    (
        "no_datagram_is_unanswered_while_all_workers_are_replaced",
        sockets::no_datagram_is_unanswered_while_all_workers_are_replaced,
    ),
    (
        "datagrams_that_have_arrived_are_answered_before_a_pool_ends",
        sockets::datagrams_that_have_arrived_are_answered_before_a_pool_ends,
    ),
    (
        "each_job_of_a_queue_is_done_once_although_workers_are_killed_and_replaced",
        sockets::each_job_of_a_queue_is_done_once,
    ),
    ("a_worker_that_is_stopped_is_noticed_and_replaced", lives::a_worker_that_is_stopped_is_noticed),
    ("what_is_queued_for_a_slot_outlives_its_worker", lives::what_is_queued_for_a_slot_outlives_its_worker),
    (
        "clients_of_a_slot_that_is_scaled_away_are_answered",
        lives::clients_of_a_slot_that_is_scaled_away_are_answered,
    ),
    ("a_pool_outlives_a_lowered_limit_of_descriptors", lives::a_pool_outlives_a_lowered_limit_of_descriptors),
    (
        "workers_without_free_descriptors_serve_when_there_are_some_again",
        lives::workers_without_free_descriptors_serve_when_there_are_some_again,
    ),
    ("a_drain_hands_out_what_is_queued", lives::a_drain_hands_out_what_is_queued),
    (
        "workers_share_what_a_mold_has_loaded_and_are_their_supervisors_children",
        molds::workers_share_what_a_mold_has_loaded,
    ),
    ("a_worker_from_a_mold_has_nothing_but_what_it_needs", molds::a_worker_from_a_mold_has_what_it_needs),
    ("a_mold_holds_no_listener", molds::a_mold_holds_no_listener),
    ("a_worker_from_a_mold_serves_its_slots_own_sockets", molds::a_worker_from_a_mold_serves_its_slot),
    ("a_worker_from_a_mold_has_no_privileges_left", molds::a_worker_from_a_mold_has_no_privileges),
    ("a_dead_worker_is_replaced_from_the_mold", molds::a_dead_worker_is_replaced_from_the_mold),
    ("a_dead_mold_is_replaced_and_its_workers_serve_on", molds::a_dead_mold_is_replaced),
    ("a_mold_that_is_asked_to_end_ends_and_is_replaced", molds::a_mold_that_is_asked_to_end_is_replaced),
    ("a_stopped_mold_does_not_stop_the_pool", molds::a_stopped_mold_does_not_stop_the_pool),
    ("a_mold_that_does_not_fork_is_replaced", molds::a_mold_that_does_not_fork_is_replaced),
    ("no_process_outlives_a_killed_supervisor_with_a_mold", molds::no_process_outlives_a_killed_supervisor),
    ("a_mold_that_loads_does_not_outlive_its_supervisor", molds::a_mold_that_loads_dies_with_its_supervisor),
    ("a_mold_that_cannot_load_ends_the_start_with_its_reason", molds::a_mold_that_cannot_load_ends_the_start),
    ("threads_in_a_mold_are_refused_by_name", molds::threads_in_a_mold_are_refused_by_name),
    ("threads_in_a_mold_are_left_behind_where_that_is_wanted", molds::threads_in_a_mold_are_left_behind),
    ("a_reload_has_a_mold_of_its_own", molds::a_reload_has_a_mold_of_its_own),
    ("orphans_of_workers_leave_no_zombie", molds::orphans_of_workers_leave_no_zombie),
    (
        "an_upgrade_keeps_everything_and_serves_what_is_queued",
        upgrades::an_upgrade_keeps_everything_and_serves_what_is_queued,
    ),
    (
        "a_worker_of_a_new_image_knows_nothing_of_the_upgrade",
        upgrades::a_worker_of_a_new_image_knows_nothing_of_the_upgrade,
    ),
    ("clients_notice_nothing_of_ten_upgrades", upgrades::clients_notice_nothing_of_ten_upgrades),
    (
        "a_second_supervisor_is_refused_before_during_and_after_an_upgrade",
        upgrades::a_second_supervisor_is_refused_before_during_and_after_an_upgrade,
    ),
    (
        "an_image_that_crashes_hangs_or_is_of_another_version_is_refused",
        upgrades::an_image_that_crashes_hangs_or_is_of_another_version_is_refused,
    ),
    (
        "an_image_that_fails_or_panics_after_the_exec_gives_the_pool_back",
        upgrades::an_image_that_fails_or_panics_after_the_exec_gives_the_pool_back,
    ),
    (
        "signals_that_arrive_during_the_exec_wait_for_the_new_image",
        upgrades::signals_that_arrive_during_the_exec_wait_for_the_new_image,
    ),
    (
        "a_worker_that_dies_during_the_exec_is_replaced",
        upgrades::a_worker_that_dies_during_the_exec_is_replaced,
    ),
    (
        "a_supervisor_that_is_killed_after_an_upgrade_leaves_no_orphan",
        upgrades::a_supervisor_that_is_killed_after_an_upgrade_leaves_no_orphan,
    ),
    (
        "an_operator_gets_the_result_of_the_upgrade_from_the_new_image",
        upgrades::an_operator_gets_the_result_of_the_upgrade_from_the_new_image,
    ),
    ("twenty_upgrades_leave_no_descriptor_open", upgrades::twenty_upgrades_leave_no_descriptor_open),
    (
        "a_supervisor_that_is_asked_to_stop_ends_the_dry_run",
        upgrades::a_supervisor_that_is_asked_to_stop_ends_the_dry_run,
    ),
    ("a_mold_outlives_an_upgrade", upgrades::a_mold_outlives_an_upgrade),
    (
        "signals_between_the_last_look_and_the_exec_reach_the_new_image",
        upgrades::signals_between_the_last_look_and_the_exec_reach_the_new_image,
    ),
    ("signals_that_a_parent_has_blocked_are_handled", signals::signals_that_a_parent_has_blocked_are_handled),
    ("signals_that_a_parent_ignores_are_handled", signals::signals_that_a_parent_ignores_are_handled),
    (
        "a_mold_and_its_workers_are_free_of_what_a_parent_has_done_to_signals",
        signals::a_mold_and_its_workers_are_free_of_what_a_parent_has_done_to_signals,
    ),
    (
        "a_second_run_in_one_process_is_as_good_as_the_first",
        signals::a_second_run_in_one_process_is_as_good_as_the_first,
    ),
    ("a_host_has_its_own_handlers_back_after_a_run", signals::a_host_has_its_own_handlers_back_after_a_run),
    (
        "handlers_that_a_worker_registers_run_and_those_of_its_host_do_not",
        signals::handlers_that_a_worker_registers_run_and_those_of_its_host_do_not,
    ),
    (
        "handlers_of_a_worker_run_though_its_host_has_registered_every_signal",
        signals::handlers_of_a_worker_run_though_its_host_has_registered_every_signal,
    ),
    (
        "the_caller_hears_why_the_first_workers_could_not_boot",
        lives::the_caller_hears_why_the_first_workers_could_not_boot,
    ),
    (
        "an_inherited_listener_outlives_a_start_that_fails",
        lives::an_inherited_listener_outlives_a_start_that_fails,
    ),
    (
        "a_pool_of_a_program_reports_its_state_to_the_service_manager",
        services::a_pool_of_a_program_reports_its_state_to_the_service_manager,
    ),
    ("an_image_with_threads_gives_the_pool_back", upgrades::an_image_with_threads_gives_the_pool_back),
    (
        "the_text_of_a_workers_error_is_in_the_log_and_in_the_status",
        errors::the_text_of_a_workers_error_is_in_the_log_and_in_the_status,
    ),
    (
        "a_panic_before_a_worker_is_ready_is_reported_by_its_call",
        errors::a_panic_before_a_worker_is_ready_is_reported_by_its_call,
    ),
    (
        "an_error_of_any_type_ends_a_start_with_its_text",
        errors::an_error_of_any_type_ends_a_start_with_its_text,
    ),
    (
        "a_worker_is_dropped_at_its_orderly_end_and_not_after_a_panic",
        errors::a_worker_is_dropped_at_its_orderly_end_and_not_after_a_panic,
    ),
    (
        "a_panic_in_a_destructor_is_reported_by_its_call",
        errors::a_panic_in_a_destructor_is_reported_by_its_call,
    ),
    (
        "a_panic_in_a_hook_of_the_supervisor_is_logged_by_its_name_and_the_pool_goes_on",
        errors::a_panic_in_a_hook_of_the_supervisor_is_logged_by_its_name_and_the_pool_goes_on,
    ),
    (
        "a_panic_before_a_fork_refuses_that_fork_and_the_next_one_is_tried",
        errors::a_panic_before_a_fork_refuses_that_fork_and_the_next_one_is_tried,
    ),
    (
        "a_reload_refuses_the_settings_that_a_start_refuses",
        errors::a_reload_refuses_the_settings_that_a_start_refuses,
    ),
    (
        "a_main_that_returns_its_ending_prints_the_reason",
        errors::a_main_that_returns_its_ending_prints_the_reason,
    ),
    ("without_an_image_an_upgrade_is_refused", upgrades::without_an_image_an_upgrade_is_refused),
    ("a_program_serves_and_stops_gracefully", external::a_program_serves_and_stops_gracefully),
    (
        "a_program_finds_its_listeners_under_every_contract",
        external::a_program_finds_its_listeners_under_every_contract,
    ),
    (
        "a_program_that_reports_for_another_is_not_believed",
        external::a_program_that_reports_for_another_is_not_believed,
    ),
    (
        "a_program_that_ends_early_ends_the_start_with_its_output",
        external::a_program_that_ends_early_ends_the_start_with_its_output,
    ),
    ("a_program_that_is_not_there_ends_the_start", external::a_program_that_is_not_there_ends_the_start),
    ("descendants_end_with_their_worker", external::descendants_end_with_their_worker),
    (
        "a_dead_program_is_replaced_and_its_end_is_named",
        external::a_dead_program_is_replaced_and_its_end_is_named,
    ),
    ("a_program_does_not_outlive_its_supervisor", external::a_program_does_not_outlive_its_supervisor),
    (
        "the_lines_of_a_program_are_logged_and_never_block_it",
        external::the_lines_of_a_program_are_logged_and_never_block_it,
    ),
    (
        "a_program_is_ready_when_it_accepts_or_answers",
        external::a_program_is_ready_when_it_accepts_or_answers,
    ),
    ("a_timer_of_a_program_is_called_one", external::a_timer_of_a_program_is_called_one),
    (
        "a_program_has_the_attributes_that_its_settings_name",
        external::a_program_has_the_attributes_that_its_settings_name,
    ),
    (
        "a_program_that_ignores_its_stop_signal_is_killed_in_time",
        external::a_program_that_ignores_its_stop_signal_is_killed_in_time,
    ),
    (
        "no_descendant_of_a_program_outlives_a_supervisor_that_is_killed",
        early::no_descendant_of_a_program_outlives_a_supervisor_that_is_killed,
    ),
    (
        "a_program_that_serves_before_it_is_ready_finishes_its_requests",
        early::a_program_that_serves_before_it_is_ready_finishes_its_requests,
    ),
    (
        "a_program_with_any_time_to_finish_retires_gracefully",
        early::a_program_with_any_time_to_finish_retires_gracefully,
    ),
    (
        "a_program_that_never_ends_its_report_is_stopped_by_its_signal",
        early::a_program_that_never_ends_its_report_is_stopped_by_its_signal,
    ),
    (
        "a_program_whose_first_process_ends_with_its_report_is_ready",
        early::a_program_whose_first_process_ends_with_its_report_is_ready,
    ),
    ("a_program_has_one_variable_for_its_pid", early::a_program_has_one_variable_for_its_pid),
    (
        "a_log_that_blocks_does_not_delay_the_end_of_a_program",
        early::a_log_that_blocks_does_not_delay_the_end_of_a_program,
    ),
    (
        "a_program_that_dies_is_named_although_its_descendants_end_late",
        early::a_program_that_dies_is_named_although_its_descendants_end_late,
    ),
    (
        "a_program_steps_its_pool_and_changes_it_by_a_handle",
        embedding::a_program_steps_its_pool_and_changes_it_by_a_handle,
    ),
    (
        "a_programs_observer_sees_all_that_the_log_tells",
        embedding::a_programs_observer_sees_all_that_the_log_tells,
    ),
    (
        "workers_cannot_use_the_handles_of_their_program",
        embedding::workers_cannot_use_the_handles_of_their_program,
    ),
    (
        "a_program_with_own_signals_ends_its_pool_by_a_handle_and_nothing_of_it_is_changed",
        embedding::a_program_with_own_signals_ends_its_pool_by_a_handle_and_nothing_of_it_is_changed,
    ),
    (
        "two_pools_in_one_program_have_their_own_workers",
        embedding::two_pools_in_one_program_have_their_own_workers,
    ),
    (
        "a_signal_reaches_both_pools_of_a_program_and_no_worker_outlives_it",
        embedding::a_signal_reaches_both_pools_of_a_program_and_no_worker_outlives_it,
    ),
    (
        "a_program_with_threads_commands_a_pool_that_it_has_spawned",
        embedding::a_program_with_threads_commands_a_pool_that_it_has_spawned,
    ),
    (
        "a_spawned_pool_ends_with_its_program_also_with_a_killed_one",
        embedding::a_spawned_pool_ends_with_its_program_also_with_a_killed_one,
    ),
    (
        "a_program_learns_of_the_death_of_a_supervisor_that_it_has_spawned",
        embedding::a_program_learns_of_the_death_of_a_supervisor_that_it_has_spawned,
    ),
    (
        "a_pool_that_cannot_start_is_an_error_of_its_spawn",
        embedding::a_pool_that_cannot_start_is_an_error_of_its_spawn,
    ),
    (
        "a_handle_outlives_an_upgrade_of_the_supervisor_that_it_has_spawned",
        embedding::a_handle_outlives_an_upgrade_of_the_supervisor_that_it_has_spawned,
    ),
    (
        "the_end_of_a_program_does_not_hurry_a_stop_that_has_begun",
        spawned::the_end_of_a_program_does_not_hurry_a_stop_that_has_begun,
    ),
    (
        "a_program_learns_of_the_death_of_its_supervisor_although_a_worker_is_busy",
        spawned::a_program_learns_of_the_death_of_its_supervisor_although_a_worker_is_busy,
    ),
    (
        "workers_of_a_spawned_pool_have_no_descriptor_of_its_program",
        spawned::workers_of_a_spawned_pool_have_no_descriptor_of_its_program,
    ),
    (
        "an_upgrade_of_the_second_pool_of_a_program_has_its_code",
        spawned::an_upgrade_of_the_second_pool_of_a_program_has_its_code,
    ),
    ("an_upgrade_beside_a_spawned_pool_is_refused", spawned::an_upgrade_beside_a_spawned_pool_is_refused),
    (
        "each_of_two_pools_one_after_the_other_is_upgraded_to_itself",
        spawned::each_of_two_pools_one_after_the_other_is_upgraded_to_itself,
    ),
    (
        "workers_have_nothing_of_a_pool_that_starts_later",
        spawned::workers_have_nothing_of_a_pool_that_starts_later,
    ),
    (
        "a_long_reason_does_not_hide_the_outcome_of_a_spawned_pool",
        spawned::a_long_reason_does_not_hide_the_outcome_of_a_spawned_pool,
    ),
    (
        "a_spawned_supervisor_leaves_the_messages_to_the_service_manager_to_its_program",
        spawned::a_spawned_supervisor_leaves_the_messages_to_the_service_manager_to_its_program,
    ),
    (
        "a_pool_whose_descriptors_cannot_be_watched_is_stepped_after_a_time",
        stepping::a_pool_whose_descriptors_cannot_be_watched_is_stepped_after_a_time,
    ),
    ("a_deadline_stays_until_the_next_step", stepping::a_deadline_stays_until_the_next_step),
    (
        "a_supervisor_is_called_again_after_the_time_that_it_wants",
        stepping::a_supervisor_is_called_again_after_the_time_that_it_wants,
    ),
    (
        "a_handle_after_a_time_without_events_is_no_stall",
        stepping::a_handle_after_a_time_without_events_is_no_stall,
    ),
    (
        "a_pool_ends_what_its_worker_has_left_and_no_process_of_its_program",
        stepping::a_pool_ends_what_its_worker_has_left_and_no_process_of_its_program,
    ),
    (
        "a_death_is_noticed_with_its_cause_although_the_parent_has_ignored_the_ends_of_children",
        stepping::a_death_is_noticed_with_its_cause_although_the_parent_has_ignored_the_ends_of_children,
    ),
    (
        "a_death_is_noticed_although_the_program_has_reaped_the_worker",
        stepping::a_death_is_noticed_although_the_program_has_reaped_the_worker,
    ),
    ("a_start_that_fails_leaves_no_process", stepping::a_start_that_fails_leaves_no_process),
    ("the_example_with_an_own_loop_obeys_its_input", embedding::the_example_with_an_own_loop_obeys_its_input),
];

fn main() -> ExitCode {
    match std::env::var(roles::ROLE) {
        Ok(role) => roles::play(&role),
        Err(_) => runner::run(TESTS),
    }
}
