//! Each situation of `duraft_interleavings::schedules` as a test.

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                duraft_interleavings::schedules::$name();
            }
        )*
    };
}

tests!(
    queue_hands_everything_over_once_and_in_order,
    closed_queue_keeps_nobody_waiting,
    client_hears_exactly_once,
    every_write_that_was_taken_is_reported_once_it_is_durable,
    shutdown_in_the_middle_finishes_what_was_taken,
    abandoned_log_has_reported_nothing_that_is_not_durable,
    failed_sync_poisons_the_log_for_everybody,
    log_of_its_own_answers_every_ticket,
);
