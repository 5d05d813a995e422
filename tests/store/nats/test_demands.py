"""What is demanded of nodes and streams."""

from typing import Any

import pytest

from sockservice.store.engine import Retention
from sockservice.store.nats import demands
from sockservice.store.nats.place import Place, parsed

PLACE: Place = parsed("nats://h/LINES")
RIGHT: dict[str, Any] = demands.configuration(parsed("nats://h/LINES?create&max_bytes=1G"))


def unfit(place: Place = PLACE, **other: Any) -> str:
    return demands.unfit({"config": RIGHT | other}, place)


def test_what_create_makes_is_right() -> None:
    assert unfit() == ""


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"storage": "memory"}, "has storage memory; it has to be file"),
        ({"retention": "workqueue"}, "has retention workqueue; it has to be limits"),
        ({"discard": "old"}, "has discard old; it has to be new"),
        ({"subjects": ["LINES.>", "x"]}, "has subjects LINES.>,x; it has to be LINES.>"),
        ({"allow_direct": False}, "has allow_direct false; it has to be true"),
        ({"mirror": {"name": "X"}}, "has mirror; it must not"),
        ({"sources": [{"name": "X"}]}, "has sources; it must not"),
        ({"sealed": True}, "has sealed; it must not"),
        ({"no_ack": True}, "has no_ack; it must not"),
        ({"persist_mode": "async"}, "has persist_mode async; it has to be default"),
        ({"duplicate_window": 10**9}, "has duplicate_window 1s; it has to be 120s or more"),
        ({"max_msg_size": 1000}, "has max_msg_size 1000; it has to be -1, or 1048576 or more"),
        ({"max_msgs_per_subject": 5}, "has max_msgs_per_subject 5; it has to be -1"),
        ({"num_replicas": 1}, "has num_replicas 1; 3 are needed"),
    ],
)
def test_what_breaks_the_promise_is_told(other: dict[str, Any], why: str) -> None:
    assert f"the stream LINES {why}" in unfit(**other)


def test_it_may_have_a_limit_of_age_of_its_own() -> None:
    assert unfit(max_age=10**12) == ""


@pytest.mark.parametrize(
    ("other", "retention", "why"),
    [
        ({}, Retention(60.0, 900 << 20), ""),
        ({"max_bytes": -1}, Retention(size=1 << 40), ""),
        ({"deny_purge": True}, Retention(), ""),
        ({"deny_purge": True}, Retention(60.0), "the stream LINES has deny_purge; it must not, to"),
        ({}, Retention(size=1 << 30), "--retain-size is 1073741824, and the stream's max_bytes 1"),
    ],
)
def test_what_is_not_retained_has_to_be_removable(
    other: dict[str, Any], retention: Retention, why: str
) -> None:
    said = demands.unremovable({"config": RIGHT | other}, retention)
    assert said.startswith(why) and bool(said) == bool(why)


def test_one_replica_is_enough_where_that_is_said() -> None:
    assert unfit(parsed("nats://h/LINES?replicas=1"), num_replicas=1) == ""


def test_an_old_server_or_one_without_jetstream_is_told() -> None:
    right = {"jetstream": True, "version": "2.15.1", "api_lvl": 5, "max_payload": 1 << 20}
    assert demands.outdated(right) == ""
    assert "no JetStream" in demands.outdated(right | {"jetstream": False})
    assert "is nats-server 2.11.9; 2.12 is needed" in demands.outdated(
        right | {"version": "2.11.9"}
    )
    assert "max_payload 1000" in demands.outdated(right | {"max_payload": 1000})


def test_a_node_that_does_not_sync_is_told() -> None:
    seen = {"server_name": "n2", "version": "2.12.0-RC.1"}
    config = {"jetstream": {"config": {"sync_always": True}}}
    assert demands.unsynced(seen | config) == ""
    assert demands.unsynced(seen) == "n2 has no JetStream"
    late = seen | {"jetstream": {"config": {"sync_interval": 120}}}
    assert demands.unsynced(late).startswith("n2 does not sync what it acknowledges")


def test_a_stream_made_anew_has_another_identity() -> None:
    found = {"config": RIGHT, "created": "2026-01-01T00:00:00Z", "cluster": {"name": "c"}}
    same = demands.identity(found)
    assert len(bytes.fromhex(same)) == 16
    assert same == demands.identity(dict(found))
    assert same != demands.identity(found | {"created": "2026-01-01T00:00:01Z"})
