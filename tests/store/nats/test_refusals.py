"""Each way to start wrong ends in one line, with real nodes."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from sockservice.errors import CannotStart
from sockservice.store.engine import Retention
from sockservice.store.nats import demands, link, watching
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import Place, parsed
from tests.conftest import SCRIPTS, ClosedNumber
from tests.soak.clustered import caughtUp
from tests.store.nats.test_cluster import asked


def refused(place: Place, retention: Retention | None = None) -> str:
    """Give the line, without the store's name, that `open` and `check` both end with."""
    said = []
    for how in ("open", "check"):
        engine = JetStream(place, retention or Retention())
        engine.keepSessions()
        with pytest.raises(CannotStart) as ended:
            getattr(engine, how)()
            engine.close()
        assert ended.value.code == 1
        said.append(str(ended.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    assert said[0].startswith(f"{place}: ")
    return said[0].removeprefix(f"{place}: ")


STREAMS: list[tuple[dict[str, Any], str]] = [
    ({"storage": "memory"}, "has storage memory; it has to be file"),
    ({"retention": "workqueue"}, "has retention workqueue; it has to be limits"),
    ({"retention": "interest"}, "has retention interest; it has to be limits"),
    ({"discard": "old"}, "has discard old; it has to be new"),
    ({"subjects": ["WRONG.l"]}, "has subjects WRONG.l; it has to be WRONG.>"),
    ({"subjects": ["WRONG.>", "x"]}, "has subjects WRONG.>,x; it has to be WRONG.>"),
    ({"allow_direct": False}, "has allow_direct false; it has to be true"),
    ({"subjects": [], "mirror": {"name": "TESTS"}}, "has mirror; it must not"),
    ({"sources": [{"name": "TESTS"}]}, "has sources; it must not"),
    (
        {"subject_transform": {"src": ">", "dest": "y.>"}},
        "has subject_transform; it must not",
    ),
    ({"no_ack": True}, "has no_ack; it must not"),
    (
        {"persist_mode": "async", "num_replicas": 1},
        "has persist_mode async; it has to be default",
    ),
    ({"duplicate_window": 10**9}, "has duplicate_window 1s; it has to be 120s or more"),
    ({"max_msg_size": 1000}, "has max_msg_size 1000; it has to be -1, or 1048576 or more"),
    ({"max_msgs_per_subject": 5}, "has max_msgs_per_subject 5; it has to be -1"),
    (
        {"num_replicas": 1},
        "has num_replicas 1; 3 are needed, so that it outlives a machine (?replicas=1 does "
        "without)",
    ),
    ({"sealed": True}, "has sealed; it must not"),
]


def test_a_stream_that_would_break_the_promise(stream: Place) -> None:
    wrong = stream._replace(stream="WRONG", create=False, maxBytes=1 << 20)
    right = demands.configuration(wrong)
    for other, why in STREAMS:
        asked(stream, "STREAM.DELETE.WRONG")
        first = {key: value for key, value in other.items() if key != "sealed"}
        made = asked(stream, "STREAM.CREATE.WRONG", **right | first)
        assert "error" not in made, made
        if "sealed" in other:
            asked(stream, "STREAM.UPDATE.WRONG", **right | other)
        assert refused(wrong) == f"the stream WRONG {why}"
    asked(stream, "STREAM.DELETE.WRONG")
    asked(stream, "STREAM.CREATE.WRONG", **right | {"deny_purge": True})
    assert "has deny_purge; it must not" in refused(wrong, Retention(age=60.0))


@contextmanager
def lone(folder: Path, more: str = "", without: str = "") -> Iterator[Place]:
    """Start one node, with more in its configuration, or less."""
    made = Cluster(folder, 1)
    config = made.nodes[0].folder / "config"
    text = config.read_text()
    assert without in text
    config.write_text(text.replace(without, "") + more)
    try:
        made.start()
        yield parsed(made.url(options="create&max_bytes=1M"))
    finally:
        made.stop()


NODES = [
    (
        "",
        "sync_interval: always",
        "n1 does not sync what it acknowledges: set jetstream { sync_interval: always }",
    ),
    ("max_payload: 65536\n", "", "n1 has max_payload 65536; 1048576 is needed"),
    (
        "authorization { user: a, password: b }\n",
        "",
        "Authorization Violation: the nodes do not let us in",
    ),
]


@pytest.mark.parametrize(("more", "without", "why"), NODES)
def test_a_node_that_is_not_right(tmp_path: Path, more: str, without: str, why: str) -> None:
    with lone(tmp_path, more, without) as place:
        engine = JetStream(place)
        with pytest.raises(CannotStart) as ended:
            engine.open()
        assert str(ended.value).lower() == f"{place}: {why}".lower()


def test_a_node_without_jetstream(tmp_path: Path) -> None:
    made = Cluster(tmp_path, 1)
    config = made.nodes[0].folder / "config"
    config.write_text(config.read_text().partition("jetstream")[0])
    try:
        made.start()
        assert refused(parsed(made.url())) == "n1 has no JetStream"
    finally:
        made.stop()


class _Page(BaseHTTPRequestHandler):
    """A web server that is no monitoring."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: Any) -> None:
        pass


class _Torn(_Page):
    """One whose node is killed while it answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"{")


@contextmanager
def serving(page: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve a page; gives where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), page)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_monitoring_that_breaks_off_is_no_answer_and_no_failure(stream: Place) -> None:
    with serving(_Torn) as torn:
        said = refused(stream._replace(create=False, monitors=(torn,)))
    assert said.startswith(f"cannot see whether its nodes sync: {torn}: ")


def test_monitoring_that_is_not_that_of_the_nodes(
    stream: Place, tmp_path: Path, closed_number: ClosedNumber
) -> None:
    there = stream._replace(create=False)
    assert refused(there._replace(monitors=())) == (
        "cannot see whether its nodes sync what they acknowledge: name the monitoring of each, as "
        "?monitor=http://HOST:8222,…, or do without, as ?unchecked"
    )
    first, second, _ = there.monitors
    assert refused(there._replace(monitors=(first,))).startswith("monitor= names none of n2, n3")
    assert refused(there._replace(monitors=(first, second))) == "monitor= does not name n3"
    nobody = f"http://127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    said = refused(there._replace(monitors=(first, nobody, nobody)))
    assert said.startswith(f"cannot see whether its nodes sync: {nobody}: ")
    with serving(_Page) as other:
        said = refused(there._replace(monitors=(other,)))
    assert said.startswith(f"cannot see whether its nodes sync: {other}: ")
    with lone(tmp_path) as elsewhere:
        said = refused(there._replace(monitors=elsewhere.monitors))
        assert said.startswith("monitor= names none of n")


def test_what_is_not_there(
    stream: Place, monkeypatch: pytest.MonkeyPatch, closed_number: ClosedNumber
) -> None:
    monkeypatch.setattr(link, "FIRST", 1.0)
    missing = stream._replace(stream="NONE", create=False)
    assert refused(missing) == "there is no stream NONE; ?create&max_bytes=20G makes it"
    nobody = f"127.0.0.1:{closed_number(socket.SOCK_STREAM)}"
    assert "Connection refused" in refused(stream._replace(nodes=(nobody,)))
    said = refused(stream._replace(nodes=("no-such-host.invalid:4222",)))
    assert said


def test_no_majority_at_the_start(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ELECTION", 1.0)
    monkeypatch.setattr(link, "FIRST", 2.0)
    for node in cluster.nodes[1:]:
        node.kill()
    try:
        place = parsed(cluster.url("TESTS"))
        # The node may lead on for some seconds.
        why = "no answer: ", "cannot see whether its nodes sync: "
        with pytest.raises(CannotStart) as ended:
            JetStream(place).open()
        assert str(ended.value).removeprefix(f"{place}: ").startswith(why)
    finally:
        for node in cluster.nodes[1:]:
            node.start()
        caughtUp(cluster)


def test_the_service_says_it_in_one_line_and_ends(stream: Place, cluster: Cluster) -> None:
    url = cluster.url("NONE", "")
    done = subprocess.run(
        [SCRIPTS / "twistd", "-n", "--pidfile=", "sockservice", "--port", "0", "--store", url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    why = "there is no stream NONE; ?create&max_bytes=20G makes it"
    assert done.stderr.splitlines() == [f"sockservice: {parsed(url)}: {why}"]
