//! The macro that makes tests of the suites.

/// Makes a named test of every suite, on stores from `$harness`, an `async fn() -> Harness` in the same module that
/// opens an empty store each time. The caller depends on tokio with the feature `macros`.
///
/// `depth` bounds the exhaustive model: 4 or 5 where every write is synced to disk, 6 to 8 in memory.
///
/// ```
/// # mod tests {
/// use crosspoint_core::Memory;
/// use crosspoint_testkit::{Harness, ManualClock};
/// use std::sync::Arc;
///
/// async fn memory() -> Harness {
///     let clock = Arc::new(ManualClock::new());
///     Harness::new(Memory::with_clock(clock.clone()), clock)
/// }
/// crosspoint_testkit::conformance!(memory, depth = 6);
/// # }
/// ```
#[macro_export]
macro_rules! conformance {
    ($harness:ident, depth = $depth:expr) => {
        $crate::__suites! { $harness
            queue: a_call_comes_back_as_it_was_stored, a_flow_comes_back_with_its_reference,
                the_status_follows_a_call, an_unknown_id_is_nothing, an_id_is_stored_once, a_batch_answers_in_order,
                a_race_for_an_id_stores_it_once, a_race_for_work_leases_each_call_once, a_lease_keeps_to_its_request,
                a_delayed_call_waits_for_its_time, a_waiting_worker_is_woken_by_new_work,
                a_waiting_worker_is_woken_by_a_freed_order, a_waiting_worker_is_woken_by_others,
                a_wait_without_work_ends_empty;
            leases: fences_rise, a_late_settle_is_stale, a_repeated_settle_is_stale,
                a_batch_of_settles_is_answered_one_by_one, a_lease_lasts_as_long_as_it_says,
                a_heartbeat_keeps_the_lease, lost_repeatable_work_is_ready_again, lost_begun_work_is_unknown,
                lost_unbegun_work_is_ready_again, begin_makes_prefetched_work_begun, lost_leases_use_up_the_attempts,
                a_worker_may_settle_as_unknown, a_start_is_leased_and_begun_at_once, a_start_waits_behind_its_lane,
                a_start_waits_behind_its_ordering_key, a_delayed_start_waits, an_expired_start_is_not_leased;
            retries: a_retry_waits_for_its_time, a_retry_may_be_due_at_once, a_release_does_not_count,
                used_up_attempts_make_a_dead_letter, a_dead_letter_keeps_the_last_failure, losses_are_counted_apart_from_failures, a_worker_may_give_up, a_service_expires_in_the_queue,
                begun_work_does_not_expire, a_later_attempt_may_succeed;
            order: a_lane_is_served_in_order, customers_take_turns, a_batch_is_shared_between_customers,
                an_idle_customer_saves_nothing_up, turns_are_charged_at_the_lease, starts_are_charged,
                priority_counts_within_a_customer, an_ordering_key_runs_one_at_a_time,
                a_retrying_head_keeps_its_place, a_lost_head_keeps_its_place, every_end_of_a_head_frees_its_order, a_head_that_expires_at_the_lease_frees_the_next,
                an_adopted_call_does_not_wait_for_its_order;
            bounds: no_more_than_the_maximum_run, others_pass_those_who_wait,
                a_start_needs_room_and_an_adoption_takes_it, several_bounds_hold_together,
                room_is_passed_on_by_those_who_cannot_use_it, every_end_makes_room,
                a_cancelled_call_passes_its_room_on, a_raised_maximum_is_used, a_rate_spreads_starts,
                bounds_survive_reopening;
            keys: a_repeat_attaches, another_request_is_refused, another_scope_is_another_key, an_expired_key_is_free,
                a_key_outlives_its_call, a_known_id_is_a_duplicate_first, a_batch_attaches_to_its_own_first,
                a_race_for_a_key_makes_one_call;
            cancel: a_waiting_call_is_cancelled, a_delayed_call_is_cancelled, a_worker_is_told,
                a_reply_wins_over_a_cancel, a_retry_after_a_cancel_ends_it, a_release_after_a_cancel_ends_it,
                a_worker_lost_after_a_cancel_ends_it;
            adoption: it_is_leased_whatever_waits, its_reply_is_kept, lost_it_ends_as_unknown,
                lost_repeatable_work_is_ready_again, its_key_is_recorded;
            retention: stats_count_the_queue, a_lane_counts_what_waits, dead_letters_are_listed, a_redrive_is_a_new_id,
                a_failed_flow_is_redriven, unknown_work_is_redriven, only_what_ended_badly_is_redriven,
                a_purge_takes_what_ended_long_ago, ended_calls_are_told, notes_are_kept;
            held: held_calls_go_first, a_queue_can_be_asked_for_alone, the_hold_is_kept_with_the_call, hopeless_calls_go_to_the_sideline, hopeless_calls_come_in_the_sidelines_turn, a_hold_that_is_over_is_sidelined, the_newest_held_call_goes_first, priority_counts_within_a_queue, a_hold_outlasts_retry_and_release, a_lost_call_comes_back_to_its_queue, a_start_goes_past_the_sideline, the_head_of_an_order_decides, flows_are_held_too, a_held_call_expires, many_hopeless_calls_hide_no_other, stats_tell_what_is_held, a_restart_keeps_both_queues;
            turns: a_hopeless_call_costs_no_turn, a_skipped_customer_is_passed_over, only_skipped_customers_are_no_work, a_dear_call_costs_more_turns, both_queues_are_fair, an_idle_customer_saves_nothing_up, nor_does_one_that_was_passed_over, the_queues_count_apart;
            executions: the_record_follows_an_attempt, the_record_follows_the_next_attempt, begin_under_the_current_lease_runs,
                begin_under_an_older_lease_is_stale, begin_after_the_end_answers_the_reply,
                begin_of_an_unknown_id_is_stale, an_execution_ends_once, completing_needs_a_finish,
                giving_up_does_not_end_an_execution, a_released_attempt_does_not_count,
                a_postponed_attempt_lets_others_go_first,
                a_failed_execution_says_why, a_service_has_no_execution, the_envelope_can_be_read,
                executions_are_listed, active_executions_are_counted;
            state: it_starts_empty, a_write_moves_it_on, a_conflict_writes_nothing, a_stale_worker_cannot_write_it,
                a_retry_may_write_it, flows_do_not_share_it, a_checkpoint_is_kept_before_the_end,
                a_checkpoint_replaces_what_was_read, a_checkpoint_outlives_its_attempt,
                a_stale_worker_cannot_checkpoint, a_call_of_a_service_has_no_state;
            logs: lines_are_kept_in_order, a_line_is_kept_whole, a_stale_worker_leaves_no_line,
                progress_is_told_while_it_runs, a_stale_worker_tells_no_progress;
            starts: they_come_with_the_finish, a_stale_finish_starts_nothing, a_known_start_is_not_made_twice,
                they_keep_their_terms, an_announced_start_is_a_duplicate;
            close: exhausted_by_failures, exhausted_by_lost_workers, a_lost_close_comes_again, expired,
                cancelled_while_waiting, cancelled_while_delayed, a_success_wins_over_a_cancel,
                a_stopped_attempt_ends_it, a_failure_after_a_cancel_closes, giving_up_after_a_cancel_closes,
                giving_up_a_close_keeps_its_reason, a_worker_lost_after_a_cancel,
                a_close_is_an_ordinary_lease, a_prefetched_close_can_be_begun;
            installations: a_record_is_kept_whole, a_stale_save_writes_nothing, a_save_knows_whether_it_creates,
                a_race_has_one_winner, starts_come_with_the_save, schedules_are_replaced_with_it,
                removing_takes_what_belongs_to_it, installations_are_listed;
            past: each_revision_is_kept_whole, what_changes_nothing_is_the_same, a_draft_has_no_past,
                it_goes_with_the_installation, it_is_kept_while_an_execution_refers_to_it,
                it_is_kept_for_what_is_to_run, the_record_says_what_it_ran_with, there_is_an_end_to_it,
                the_terms_of_a_replay_are_kept;
            schedules: the_soonest_are_due_first, a_schedule_is_kept_whole, a_tick_is_fired_once,
                a_stale_tick_starts_nothing, a_tick_may_be_skipped, a_paused_one_rests,
                a_save_lets_it_rest, a_tick_has_one_identity;
            connections: a_record_is_kept_whole, a_stale_credential_is_refused, a_race_has_one_winner,
                health_makes_no_save_stale, removing_says_whether_it_existed, connections_are_listed;
            customers: a_customer_is_made_once, customers_are_listed_by_id;
            data_keys: keys_are_kept_by_number, a_race_for_a_number_has_one_winner, a_key_is_wrapped_anew_once,
                customers_do_not_share_keys;
            pages: a_foreign_cursor_is_refused;
            scopes: calls, dead_letters, executions, logs_and_state, state_without_an_installation, installations,
                schedules, connections, customers, a_cancel_stays_at_home;
            chaos: every_execution_ends_once;
            crash: a_queued_flow_survives_every_crash, a_leased_flow_survives_every_crash,
                a_prefetched_flow_survives_every_crash, a_retried_flow_survives_every_crash,
                a_flow_with_checkpoints_survives_every_crash,
                a_cancelled_flow_survives_every_crash, a_repeatable_call_survives_every_crash,
                an_adopted_call_survives_every_crash, a_held_call_survives_every_crash, a_lost_answer_is_asked_for_again;
        }
        mod model {
            use super::$harness as harness;
            $crate::__models! { $depth;
                a_queued_flow: queued_flow, a_prefetched_flow: prefetched_flow, a_started_flow: started_flow,
                a_call: call, a_prefetched_call: prefetched_call, a_repeatable_call: repeatable_call, an_adopted_call: adopted_call,
                a_held_call: held_call, a_held_flow: held_flow,
            }
        }
    };
}

/// One module of tests for each module of suites.
#[doc(hidden)]
#[macro_export]
macro_rules! __suites {
    ($harness:ident $($module:ident: $($suite:ident),+;)+) => {
        $crate::__suites! { @each [$harness] $($module [$($suite)+])+ }
    };
    (@each $harness:tt $($module:ident $suites:tt)+) => { $( $crate::__suites! { @module $harness $module $suites } )+ };
    (@module [$harness:ident] $module:ident [$($suite:ident)+]) => {
        mod $module {
            use super::$harness as harness;
            $(
                #[tokio::test]
                async fn $suite() {
                    let harness = Box::pin(harness()).await;
                    Box::pin($crate::suites::$module::$suite(&harness)).await;
                }
            )+
        }
    };
}

/// One test for each case of the model.
#[doc(hidden)]
#[macro_export]
macro_rules! __models {
    ($depth:expr; $($name:ident: $case:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                Box::pin($crate::model::check(harness, $crate::model::Case::$case(), $depth)).await;
            }
        )+
    };
}
