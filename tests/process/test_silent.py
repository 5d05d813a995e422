"""`--skip-silent`: what brings nothing is not logged, but counted."""

from twisted.internet.defer import maybeDeferred

from tests.conftest import HandReactor, Log, Running


def test_only_connections_that_bring_something_are_logged(
    running: Running, reactor: HandReactor, log: Log
) -> None:
    service = running.start("--port", "0", "--skip-silent")
    port = running.addresses[0][2]
    assert running.ask("127.0.0.1", port, b"") == b""
    assert running.ask("127.0.0.1", port, b"x\n") == b"ok\n"
    assert running.ask("127.0.0.1", port, b"torn") == b"error unterminated line\n"
    reactor.result(maybeDeferred(running.stopping, service))
    told = [text for text in log.texts if " connected" in text or " closed: " in text]
    assert [text.partition(" closed: ")[2][:17] for text in told] == [
        "lines=1 refused=0",
        "lines=1 refused=1",
    ]
    assert log.texts[-1].startswith("ended: 3 connections")
