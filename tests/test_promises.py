"""Each sentence of four pages of docs/ that promises, and the test that holds it.

Whoever writes such a sentence adds a row; whoever changes one looks at its test.
"""

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

OPERATING = [
    (
        "`sockservice serve` is the same as `twistd -n --pidfile= sockservice`",
        "test_serve.test_it_serves_without_twistd_on_path",
    ),
    (
        "`--accept-http` takes it as a line",
        "test_web.test_a_web_page_gets_nothing_stored_unless_that_is_wanted",
    ),
    (
        "is refused at the start when there is no `--store`",
        "test_web.test_what_stores_lines_is_served_with_one",
    ),
    (
        "status 0, after `--drain-timeout` at the latest",
        "test_bound.test_what_is_not_synced_in_time_is_left_unacknowledged",
    ),
    (
        "accepts nothing more, answers what was received, closes",
        "test_stop.test_lines_that_only_the_system_has_received_are_answered",
    ),
    (
        "nobody has been told `ok` for them, their connections are cut, and the log says so",
        "test_bound.test_what_is_not_synced_in_time_is_left_unacknowledged",
    ),
    (
        "only the closing of the store is late, it has one second more",
        "test_bound.test_a_store_that_does_not_close_is_left_with_what_was_acknowledged",
    ),
    (
        "does nothing once the service is shutting down",
        "test_stop.test_a_hangup_does_not_end_what_drains",
    ),
    (
        "| SIGTERM or SIGINT before it is ready | ends with status 0 and one line on stderr |",
        "test_early.test_told_to_end_before_it_is_ready_it_ends_with_status_0_and_says_so",
    ),
    (
        "| SIGHUP before it is ready | is kept until then |",
        "test_early.test_a_hangup_is_kept_until_it_is_ready",
    ),
    (
        "It is ready when it can store lines and answer",
        "test_early.test_it_is_ready_when_lines_can_be_stored",
    ),
    (
        "Until then a TCP port that is not its own choice (`--port 0`) and not systemd's refuses "
        "connections",
        "test_early.test_nobody_can_connect_before_lines_can_be_stored",
    ),
    (
        "| a second one | ends at once |",
        "test_ready.test_a_second_signal_does_not_wait_for_that",
    ),
    (
        "a file that exists as long as the service is ready",
        "test_ready.test_it_serves_on_for_a_while_when_it_is_not_ready_any_more",
    ),
    (
        "an option that is given there replaces the file's",
        "test_configfile.test_the_command_line_wins",
    ),
    (
        "what the file says of others is told in one line, and waits for a restart",
        "test_configfile.test_a_limit_is_read_again_and_what_needs_a_restart_is_told",
    ),
    (
        "What is wrong in it is one line, which names the key",
        "test_configfile.test_what_is_wrong_is_one_line_with_its_key",
    ),
    (
        "or stays as it was, whole",
        "test_configfile.test_a_spoilt_file_changes_nothing",
    ),
    (
        "relative paths in it are found from the folder in which the service runs",
        "test_configfile.test_paths_are_found_from_where_the_service_runs",
    ),
    (
        "it is wrong without an `allow` or a `deny` that was there before",
        "test_configfile.test_a_list_of_who_may_come_never_goes_without_a_word",
    ),
    (
        "`allow = []` lets in nobody",
        "test_configfile.test_an_empty_list_that_is_asked_for_lets_in_nobody",
    ),
    (
        "It binds nothing, makes no file, opens no store, and leaves alone a service that runs",
        "test_checking.test_a_service_that_runs_is_left_alone",
    ),
    (
        "with status 0, or with 1 and one line for each error",
        "test_checking.test_each_error_is_one_line",
    ),
    (
        "Of `systemd:` sockets it is told that they would be served",
        "test_checking.test_sockets_from_systemd_are_not_missed",
    ),
    (
        "around SIGHUP: `systemctl reload` waits until files have been read again",
        "test_ready.test_systemd_is_told",
    ),
    (
        "in all workers too (30 seconds for those that hang)",
        "test_supervision.test_a_reload_waits_for_one_that_starts_but_not_for_ever",
    ),
    (
        "from a turn of the reactor, as soon as the store's thread answers as well",
        "test_systemd.test_the_watchdog_is_not_told_before_all_has_answered",
    ),
    (
        "A worker that hangs for `WatchdogSec=` is killed by its parent alone, and replaced",
        "test_ready.test_workers_leave_it_to_their_parent_which_kills_one_that_hangs",
    ),
    (
        "If systemd's socket is full, the latest of each kind waits for room",
        "test_systemd.test_a_full_socket_blocks_nothing_and_gets_the_latest_of_each_kind",
    ),
    (
        "For twistd as a daemon, systemd has to be told by its pidfile which process that is",
        "test_ready.test_a_daemon_tells_it_itself",
    ),
    (
        "the listeners close that much later: new connections are served in between",
        "test_ready.test_it_serves_on_for_a_while_when_it_is_not_ready_any_more",
    ),
    (
        "All timeouts, rates and pauses go by the monotonic clock",
        "test_clock.test_idle_limits_are_kept",
    ),
    (
        "setting the machine's clock, forward or back, changes none of them",
        "test_clock.test_a_worker_that_dies_is_replaced",
    ),
    (
        "Only the time at which a line was received is the wall clock's",
        "test_clock.test_what_is_stored_says_when_by_the_wall_clock",
    ),
    (
        "a summary stands for the rest: `98 more in 10 seconds: connected`",
        "test_stop.test_what_was_left_out_of_the_log_is_summed_up_before_the_end",
    ),
    (
        "`--skip-silent` logs no connection that comes and goes without a byte",
        "test_silent.test_only_connections_that_bring_something_are_logged",
    ),
    (
        "With `-n`, all of it is on stderr",
        "test_twistd.test_a_taken_port_is_one_line_on_stderr_and_status_1",
    ),
    (
        "the service binds every socket, then drops root privileges",
        "test_twistd.test_sockets_are_bound_before_privileges_go",
    ),
]

WORKERS = [
    (
        "Connections not yet accepted, and datagrams, wait in its socket",
        "test_workers.test_workers_serve_and_one_that_dies_is_replaced_and_all_are_summed_up",
    ),
    (
        "the delay doubles each time, up to 30 seconds",
        "test_supervision.test_another_takes_the_place_of_one_that_died_later_each_time",
    ),
    (
        "one place always comes back within a second",
        "test_supervision.test_one_place_always_comes_back_within_a_second",
    ),
    (
        "and when nobody serves",
        "test_rolling.test_workers_that_are_killed_one_after_the_other_come_back_at_once",
    ),
    (
        "the service ends with status 1 and one line on stderr",
        "test_workers.test_workers_that_cannot_start_are_one_line_on_stderr_and_status_1",
    ),
    (
        "one that has not ended 5 seconds after that is killed",
        "test_supervision.test_who_does_not_end_is_killed",
    ),
    (
        "all workers end at once",
        "test_workers.test_no_worker_stays_when_the_parent_is_gone",
    ),
    (
        "No connection is refused, reset or closed by this, and no answer is lost.",
        "test_rolling.test_workers_are_restarted_one_after_the_other_under_load",
    ),
    (
        "or drains after `--retire-timeout`",
        "test_rolling.test_how_long_they_are_served_can_be_limited",
    ),
    (
        "| a second one to the same worker | it drains at once |",
        "test_rolling.test_a_second_one_drains_at_once",
    ),
    (
        "it reads options and networks again, each worker its certificates; each logs the result",
        "test_workers.test_limits_for_each_source_hold_for_all_workers_together",
    ),
    (
        "the limit divided by N, rounded up",
        "test_workers.test_what_is_allowed_to_all_connections_is_divided",
    ),
    (
        "nothing lost that was acknowledged",
        "test_workers.test_what_was_acknowledged_is_stored_whichever_worker_dies",
    ),
    (
        "`--report` and the last line of the log are sums over all workers, including dead ones",
        "test_supervision.test_counters_are_the_sums_of_all_the_dead_included",
    ),
]

DURABILITY = [
    (
        "A line that was acknowledged with `ok` was synced to disk (fdatasync) before the "
        "`ok` was sent",
        "test_crash.test_every_ok_leaves_after_the_sync_that_covers_its_line",
    ),
    (
        "kill the process or cut the power, and it is still there",
        "test_crash.test_what_was_acknowledged_survives_kill_9",
    ),
    (
        "cut the power, and it is still there",
        "test_crash.test_what_was_acknowledged_survives_a_power_failure",
    ),
    (
        "It stays there, byte for byte",
        "test_sqlite.test_every_byte_is_kept",
    ),
    (
        "nothing is ever removed",
        "test_sqlite.test_without_retention_nothing_is_ever_removed",
    ),
    (
        "for each line of a connection, and for each datagram if you serve datagrams with `ack`",
        "test_keep.test_a_datagram_is_acknowledged_when_it_is_durable",
    ),
    (
        "The lines of a connection are stored in order, each as a whole or not at all",
        "test_crash.test_what_was_acknowledged_survives_kill_9",
    ),
    (
        "it is not in the store, and no restart brings it back",
        "test_outcomes.test_what_failed_to_sync_does_not_come_back_after_kill_9_before_the_close",
    ),
    (
        "The connection goes on, and a later line may be stored",
        "test_keep.test_lines_that_cannot_be_stored_are_refused_and_the_connection_goes_on",
    ),
    (
        "A line of which the server cannot say whether it is stored gets `error unknown: REASON`",
        "test_outcomes.test_what_cannot_be_spoilt_either_is_said_to_be_unknown",
    ),
    (
        "it first stores and acknowledges what it has received",
        "test_crash.test_what_was_received_is_stored_and_acknowledged_before_it_ends",
    ),
    (
        "is found when it is read, which may be at the next start, or [in the background]",
        "test_inspection.test_damage_in_the_middle_is_found_and_where_it_is",
    ),
    (
        "only lines of the commit that was under way get it, and lines behind it are `not stored`",
        "test_store.test_only_the_lines_of_the_commit_are_told_that_their_outcome_is_unknown",
    ),
    (
        "`sockservice send` says how many lines may be stored all the same, and "
        "`--unacked` keeps them",
        "test_cli.test_lines_that_may_be_stored_all_the_same_are_refused_kept_and_told",
    ),
    (
        "a `ReliableSender` hands the reply to its caller, as any other, and does not "
        "send the line again by itself",
        "test_sending.test_an_unknown_outcome_is_a_reply_and_the_line_is_not_sent_again",
    ),
    (
        "What was written is made invalid, and that is synced. If that works, `error not stored`",
        "test_outcomes.test_what_failed_to_sync_is_spoilt_and_then_said_not_to_be_stored",
    ),
    (
        "if not, `error unknown`, since a restart may find it",
        "test_outcomes.test_what_cannot_be_spoilt_either_is_said_to_be_unknown",
    ),
    (
        "`error unknown`: the lines are in the file that was moved",
        "test_outcomes.test_lines_of_a_file_that_was_moved_are_said_to_be_unknown",
    ),
    (
        "`error not stored` if it had not received the lines as a whole",
        "test_remote.test_without_the_process_that_stores_lines_are_refused",
    ),
    (
        "an engine of your own raised something else than a `StoreError` | `error unknown`",
        "test_store.test_an_error_that_no_engine_should_raise_is_for_good_and_its_outcome_unknown",
    ),
    (
        "The log says so once, not for each line",
        "test_keep.test_the_log_says_it_once_and_not_for_each_line",
    ),
    (
        "once more when storing has worked for a second",
        "test_store.test_what_works_only_now_and_then_is_not_said_to_work_again",
    ),
    (
        "the lines are refused, all those of a commit or none",
        "test_sqlite.test_a_full_disk_rolls_a_commit_back_whole_and_freed_space_is_used",
    ),
    (
        "storing is tried again after 50 ms at first and a second at most",
        "test_store.test_after_a_failure_lines_are_refused_at_once_until_it_is_time_to_try_again",
    ),
    (
        "so it resumes as soon as there is space",
        "test_crash.test_a_full_disk_refuses_lines_and_room_on_it_accepts_them_again",
    ),
    (
        "the lines are refused in the same way, before the disk is full",
        "test_space.test_a_server_leaves_the_reserve_and_goes_on_when_there_is_more",
    ),
    (
        "The log warns when four times as much is free",
        "test_space.test_the_log_warns_once_before_lines_are_refused_and_again_when_there_was_more",
    ),
    (
        "there is no memory to store with | the lines are refused in the same way",
        "test_store.test_an_engine_that_finds_no_memory_is_tried_again",
    ),
    (
        "the server waits for it for 2 seconds",
        "test_sqlite.test_a_lock_held_too_long_fails_a_commit_and_when_it_is_gone_all_is_well",
    ),
    (
        "nothing more is acknowledged; the process ends with status 1. A failed sync is "
        "never tried again",
        "test_crash.test_a_sync_that_failed_ends_it_and_is_never_tried_again",
    ),
    (
        "its `-shm` renamed, replaced or deleted | the same",
        "test_sqlite.test_what_goes_to_a_file_nobody_will_find_is_not_stored",
    ),
    (
        "The beginning and length of the `-wal` are checked around each commit",
        "test_sqlite.test_what_was_truncated_is_not_written_to",
    ),
    (
        "when another program that uses SQLite, as it may, has written to it",
        "test_sqlite.test_another_program_may_change_the_database",
    ),
    (
        "new lines are stored all the same",
        "test_inspection.test_a_service_says_of_its_store_what_was_found",
    ),
    (
        "the file is no database, a folder or a device",
        "test_sqlite.test_a_pipe_and_a_device_are_no_store_and_are_left_alone",
    ),
    (
        "another server uses the file | one line on stderr, status 1",
        "test_crash.test_a_second_server_on_the_same_file_does_not_start_and_the_first_goes_on",
    ),
    (
        "prints the lines as exact bytes, whether or not the server is running",
        "test_lines_command.test_lines_are_printed_in_order_as_the_bytes_they_are",
    ),
    (
        "It writes nothing, so permission to read the files is enough",
        "test_lines_command.test_reading_takes_no_right_to_write",
    ),
    (
        "SQLite has to create the index, and the message says so",
        "test_lines_command.test_a_log_without_its_index_is_told",
    ),
    (
        "Every line is examined, since the clock may have been set back",
        "test_lines_command.test_since_finds_every_line_though_ids_have_gaps_and_the_clock_was_set_back",
    ),
    (
        "even if the server is restarted on the same file",
        "test_lines_command.test_following_begins_before_anything_is_stored_and_goes_on_over_a_restart",
    ),
    (
        "with `--until`, two seconds after that time",
        "test_lines_command.test_following_ends_when_the_time_is_past",
    ),
    (
        "when nobody reads its output any more",
        "test_lines_command.test_a_quiet_follower_ends_when_its_reader_has_gone",
    ),
    (
        "with status 1, when the file is renamed, deleted or replaced",
        "test_lines_command.test_a_store_that_is_deleted_while_it_is_followed_is_told",
    ),
    (
        "If something can't be read or printed, one line says so, and the status is 1",
        "test_lines_command.test_a_full_disk_is_told",
    ),
    (
        "The server's log warns when it holds 256 MiB, and at each doubling",
        "test_space.test_the_log_warns_of_a_long_log_at_each_doubling",
    ),
    (
        "only grows, and is never used twice",
        "test_sqlite.test_an_id_is_never_used_twice_though_its_line_is_removed",
    ),
    (
        "copies the lines that are there when it begins, while the server goes on "
        "writing. It takes as long as those lines take, however many come in",
        "test_backup.test_a_copy_is_made_under_full_load_in_bounded_time",
    ),
    (
        "if the command is interrupted, repeat it, and it goes on where it was",
        "test_backup.test_what_was_interrupted_goes_on_where_it_was",
    ),
    (
        "adds to a copy what it lacks, from the store or from an increment",
        "test_backup.test_increments_are_put_together_again",
    ),
    (
        "if lines are missing between the two it refuses",
        "test_backup.test_an_increment_that_leaves_a_gap_is_not_appended",
    ),
    (
        "if [retention](#retention) has removed them it says how many",
        "test_backup.test_what_has_been_removed_before_it_was_appended_is_told",
    ),
    (
        "A copy holds the ids of the lines, and never uses one again either",
        "test_backup.test_an_id_is_not_used_again_in_a_copy",
    ),
    (
        "A copy is a store",
        "test_backup.test_a_copy_holds_all_lines_and_is_a_store",
    ),
    (
        "and again when another program has written to the file",
        "test_inspection.test_every_line_is_looked_at_and_again_when_another_program_has_written",
    ),
    (
        "So a start takes as long for 20 GB as for none, and nothing waits for the result",
        "test_inspection.test_a_start_and_what_others_write_take_as_long_whatever_the_size_of_the_file",
    ),
    (
        "says what is wrong with it, and exits with status 1 if anything is",
        "test_backup.test_a_store_that_is_damaged_is_told_so",
    ),
    (
        "gives the space of removed lines back to the file system, and says how much; no "
        "server may be using the store",
        "test_backup.test_the_space_of_removed_lines_is_given_back",
    ),
    (
        "It can be killed at any time",
        "test_outcomes.test_a_compacting_that_is_killed_at_any_step_leaves_all_lines",
    ),
    (
        "`--retain-age 30d` removes lines older than that",
        "test_sqlite.test_lines_are_removed_when_they_are_too_old_and_not_before",
    ),
    (
        "removes the oldest when all together take up more",
        "test_sqlite.test_the_oldest_lines_are_removed_when_they_take_up_too_much",
    ),
    (
        "Lines are removed in small steps between commits",
        "test_sqlite.test_old_lines_go_in_small_steps",
    ),
    (
        "Their space is used again",
        "test_sqlite.test_the_space_of_removed_lines_is_used_again",
    ),
    (
        "While another program holds the write lock nothing is removed",
        "test_sqlite.test_removing_does_not_wait_for_a_lock_and_is_done_later",
    ),
    (
        "ages no line at once",
        "test_plausible.test_a_clock_two_hours_ahead_removes_nothing_that_is_not_half_as_old_as_it_may_be",
    ),
    (
        "lines grow old twice as fast as time passes",
        "test_plausible.test_a_clock_that_leaps_ahead_is_caught_up_with_in_as_much_time",
    ),
    (
        "or is ahead of the last line at the start",
        "test_plausible.test_a_start_with_a_clock_ahead_removes_nothing",
    ),
    (
        "if you let it propagate, the line gets `error not stored: REASON` or `error "
        "unknown: REASON`",
        "test_keep.test_a_subclass_stores_what_it_chooses",
    ),
    (
        "anything else is a TypeError",
        "test_store.test_what_is_no_line_of_bytes_is_refused_and_harms_nobody",
    ),
    (
        "is an engine that keeps lines in a list, and fails on demand",
        "test_store.test_the_memory_engine_fails_and_works_again_as_a_test_says",
    ),
    (
        "all called in one thread, where they may block",
        "test_store.test_the_engine_is_called_in_one_thread_that_is_not_the_reactors",
    ),
    (
        "If it can't be opened it raises `CannotStart`",
        "test_store.test_what_keeps_an_engine_from_opening_keeps_the_store_from_starting",
    ),
    (
        "After any other exception the outcome is unknown, and the service does not try again",
        "test_store.test_an_error_that_no_engine_should_raise_is_for_good_and_its_outcome_unknown",
    ),
    (
        "forms the next (group commit)",
        "test_store.test_what_arrives_during_a_commit_forms_the_next",
    ),
    (
        "there is no timer, and a lone line is committed at once",
        "test_store.test_a_lone_line_is_committed_at_the_end_of_its_turn_without_a_timer",
    ),
    (
        "as many as can be written in the time that a sync takes, 262,144 at most",
        "test_turns.test_a_commit_is_as_large_as_what_can_be_written_while_it_is_synced",
    ),
    (
        "a lone line is in the next commit, however many lines others have sent",
        "test_store.test_a_lone_line_does_not_wait_behind_all_that_others_have_sent",
    ),
    (
        "the server stops reading a connection while too many of its lines are not yet "
        "durable, and all connections while 64 MiB are not",
        "test_keep.test_nothing_more_is_read_while_the_store_is_full",
    ),
]

SESSIONS = [
    (
        "it tells a sender, at each connection, how many of its lines are stored",
        "server/test_session.test_lines_behind_a_hello_are_acknowledged_and_counted",
    ),
    (
        "A word that the server does not know is refused, for it might matter",
        "wire/test_session.test_what_is_wrong_with_a_hello_is_told",
    ),
    (
        "always the third word. Retention changes nothing of it",
        "store/test_sessions.test_what_is_removed_by_age_changes_no_position",
    ),
    (
        "each followed by an LF whatever it ended in",
        "store/test_sessions.test_position_and_checksum_are_those_of_the_lines",
    ),
    (
        "its longest line in bytes; fixed when the session was made",
        "server/test_session.test_the_limit_of_a_line_is_that_of_the_sessions_beginning",
    ),
    (
        "another one knows nothing of the session",
        "store/test_sessions.test_another_store_has_another_identity",
    ),
    (
        "A client ignores what stands behind these words",
        "client/test_session.test_what_is_written_is_read",
    ),
    (
        "then the server closes, and **stores no line behind it**",
        "server/test_session.test_behind_a_line_that_is_refused_nothing_is_stored",
    ),
    (
        "stops: to connect again does not help",
        "client/test_session.test_a_hello_that_is_refused_for_good_is_not_repeated",
    ),
    (
        "connects again and sends the hello; the reply says what is stored",
        "client/test_session.test_any_other_refusal_is_met_by_asking_again",
    ),
    (
        "the next hello makes it anew",
        "process/test_sessions.test_a_session_is_forgotten_when_it_is_not_used",
    ),
    (
        "which is told `error session: it is not kept any more` at its next line",
        "process/test_session_limits.test_a_sender_whose_session_has_expired_is_told",
    ),
    (
        "at once if the same process serves both, otherwise (`--workers`) at its next line",
        "process/test_sessions.test_across_workers_the_older_is_told_at_its_next_line",
    ),
    (
        "the subject of its verified client certificate",
        "process/test_sessions.test_the_subject_of_a_certificate_owns_its_sessions",
    ),
    (
        "or the user at the other end of a UNIX socket",
        "process/test_sessions.test_unix_users_own_their_sessions",
    ),
    (
        "which is not looked at behind `haproxy:`",
        "process/test_sessions.test_behind_a_proxy_the_peer_is_the_one_it_names",
    ),
    (
        "The stored lines have the session's name behind their peer",
        "store/test_sessions.test_the_peer_of_a_line_names_its_session",
    ),
    (
        "sends nothing before the server has said where the session is",
        "client/test_session.test_nothing_is_sent_before_the_server_has_said_where_it_is",
    ),
    (
        "has up to 512 bytes kept with the position, which come back as `opened.note`",
        "client/test_session.test_a_note_is_kept_with_the_position",
    ),
    (
        "an older program refuses it then",
        "store/test_sessions.test_the_schema_is_the_first_until_sessions_are_kept",
    ),
    (
        "beyond it a new session is refused: `error busy: 100000 sessions, the limit`",
        "server/test_session.test_more_sessions_than_may_be_are_refused_for_now",
    ),
    (
        "`--forget NAME` removes one, but not its lines",
        "cli/test_sessions_command.test_a_session_is_forgotten_and_its_lines_are_not",
    ),
    (
        "both want the server stopped",
        "cli/test_sessions_command.test_no_server_may_be_using_what_is_written",
    ),
    (
        "`sockservice backup` copies sessions as they are at its last line",
        "store/test_sessions.test_lines_that_come_during_a_backup_are_in_no_position_of_it",
    ),
]

ROWS = [
    (page, *row)
    for page, rows in (
        ("operating.md", OPERATING),
        ("workers.md", WORKERS),
        ("durability.md", DURABILITY),
        ("sessions.md", SESSIONS),
    )
    for row in rows
]


@cache
def words(page: str) -> str:
    return " ".join((ROOT / "docs" / page).read_text().split())


@cache
def held(module: str) -> set[str]:
    (path,) = (ROOT / "tests").rglob(f"{module}.py")
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and re.match("test_", node.name)
    }


@pytest.mark.parametrize(("page", "sentence", "test"), ROWS)
def test_what_is_promised_is_tested(page: str, sentence: str, test: str) -> None:
    module, _, name = test.partition(".")
    assert sentence in words(page)
    assert name in held(module)


def test_each_row_of_the_table_of_sessions_names_its_tests() -> None:
    page = (ROOT / "docs/sessions.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)
    named = {
        number: re.findall(r"`(\w+/test_\w+)\.py::(test_\w+)`", tests)
        for number, tests in re.findall(
            r"^(\d+)\. ((?:`\w+/test_\w+\.py::test_\w+`,?\s+)+)", page, re.MULTILINE
        )
    }
    assert len(rows) > 10
    assert [*named] == rows
    for module, name in chain.from_iterable(named.values()):
        assert name in held(module)
