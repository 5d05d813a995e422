"""Each sentence of docs/operating.md and docs/workers.md that promises, and the test that holds it.

Whoever writes such a sentence adds a row; whoever changes one looks at its test.
"""

import ast
import re
from functools import cache
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
        "| a second one | ends at once |",
        "test_ready.test_a_second_signal_does_not_wait_for_that",
    ),
    (
        "a file that exists as long as the service is ready",
        "test_ready.test_it_serves_on_for_a_while_when_it_is_not_ready_any_more",
    ),
    ("`Type=notify` of systemd works as well", "test_ready.test_systemd_is_told"),
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
        "it and all workers read their files again; each logs the result",
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

ROWS = [("operating.md", *row) for row in OPERATING] + [("workers.md", *row) for row in WORKERS]


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
