"""What is told of the nodes of a stream: which are there, since when, and who leads."""

from typing import Any

from twisted.internet.task import Clock

from sockservice.store.nats.nodes import Nodes, described
from tests.conftest import Log


def replica(name: str, **other: Any) -> dict[str, Any]:
    return {"name": name, "current": True, "active": 10**9} | other


def told(leader: str, *replicas: dict[str, Any]) -> dict[str, Any]:
    return {"leader": leader, "replicas": [*replicas]}


def test_all_are_there(log: Log) -> None:
    nodes = Nodes("S", Clock().seconds)
    nodes.seen(told("n1", replica("n2"), replica("n3", lag=1, current=False)))
    found = nodes.figures("n2")
    assert (found["majorityMissing"], found["leaderChanges"]) == (0.0, 0)
    assert described(found) == "n1 leads; n2 is connected; n3 lacks 1 message"
    assert log.texts == []


def test_a_node_goes_and_comes_again(log: Log) -> None:
    clock = Clock()
    clock.advance(100)
    nodes = Nodes("S", clock.seconds)
    nodes.seen(told("n1", replica("n2"), replica("n3")))
    clock.advance(10)
    nodes.seen(told("n1", replica("n2", active=7 * 10**9), replica("n3", active=4 * 10**9)))
    assert log.texts == ["the node n2 of the stream S is gone, for 7.0 s"]
    clock.advance(30)
    nodes.seen(told("n1", replica("n2", offline=True, active=0), replica("n3")))
    assert described(nodes.figures("n1")) == (
        "n1 leads, is connected; n2 is gone for 37 s, was lost 1 time; n3"
    )
    nodes.seen(told("n1", replica("n2", current=False, lag=1200), replica("n3")))
    assert log.texts[1:] == [
        "the node n2 of the stream S is there again, after 37.0 s; it lacks 1,200 messages"
    ]
    [_, second, _] = nodes.figures("n1")["nodes"]
    assert second == {
        "node": "n2",
        "leads": False,
        "connected": False,
        "gone": 0.0,
        "lag": 1200,
        "losses": 1,
        "returns": 1,
    }


def test_another_leads(log: Log) -> None:
    nodes = Nodes("S", Clock().seconds)
    nodes.seen(told("n1", replica("n2")))
    nodes.seen(told("n2", replica("n1", offline=True)))
    assert log.texts[0] == "the stream S is led by n2, no more by n1"
    assert nodes.figures("")["leaderChanges"] == 1


def test_a_majority_is_missing_and_comes_again(log: Log) -> None:
    clock = Clock()
    nodes = Nodes("S", clock.seconds)
    nodes.seen(told("n1", replica("n2"), replica("n3")))
    nodes.unanswered("no answer from NATS", [])
    clock.advance(2)
    nodes.unanswered("no answer from NATS", ["n1", "n2", "http://h:1"])
    clock.advance(120)
    nodes.unanswered("no answer from NATS", ["n1", "n2"])
    assert log.texts == [
        "the stream S has no majority for 2.0 s: no answer from NATS; n1 does not answer; "
        "n2 does not answer; http://h:1 does not answer",
        "the node n1 of the stream S is gone, for 2.0 s",
        "the node n2 of the stream S is gone, for 2.0 s",
    ]
    found = nodes.figures("n3")
    assert found["majorityMissing"] == 122.0
    assert described(found).startswith("no majority for 122 s; n1 is gone for 122 s, was lost 1 ")
    nodes.seen(told("n3", replica("n1"), replica("n2", offline=True)))
    assert log.texts[3:] == [
        "the stream S is led by n3, no more by n1",
        "the node n1 of the stream S is there again, after 122.0 s",
        "the stream S has a majority again, after 122.0 s",
    ]
    assert nodes.figures("n3")["majorityMissing"] == 0.0


def test_a_leader_that_is_alone_is_none(log: Log) -> None:
    clock = Clock()
    clock.advance(100)
    nodes = Nodes("S", clock.seconds)
    nodes.seen(told("n1", replica("n2", active=9 * 10**9), replica("n3", active=7 * 10**9)))
    assert log.texts[2:] == ["the stream S has no majority for 7.0 s: other nodes are gone"]
    assert nodes.figures("n1")["majorityMissing"] == 7.0
    clock.advance(1)
    nodes.unanswered("no leader", ["n2", "n3"])
    assert nodes.figures("n1")["majorityMissing"] == 8.0


def test_a_short_election_is_not_told(log: Log) -> None:
    nodes = Nodes("S", Clock().seconds)
    nodes.seen(told("n1"))
    nodes.unanswered("no leader", [])
    nodes.seen(told("n1"))
    assert log.texts == []


def test_who_has_become_a_node_of_another_stream_is_told_no_more() -> None:
    nodes = Nodes("S", Clock().seconds)
    nodes.seen(told("n1", replica("n2"), replica("n3")))
    nodes.seen(told("n1", replica("n2"), replica("n4")))
    assert [each["node"] for each in nodes.figures("")["nodes"]] == ["n1", "n2", "n4"]


def test_a_lone_node_has_none_to_tell_of() -> None:
    nodes = Nodes("S", Clock().seconds)
    nodes.seen({})
    assert described(nodes.figures("n1")) == ""
    assert described({}) == ""
