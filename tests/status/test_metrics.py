"""What Prometheus reads: every counter, by listener and by reason, and what was measured."""

import re
import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from shutil import which
from subprocess import run
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openMetrics
from prometheus_client.parser import text_string_to_metric_families

from sockservice.limits.counters import Counters
from sockservice.limits.settings import SETTINGS
from sockservice.status.metrics import LISTENERS, REASONS, SERVICE
from tests.certificates import Identity
from tests.conftest import PATIENCE, HandReactor, Running
from tests.status.conftest import Served

Values = dict[tuple[str, ...], float]


def scraped(served: Served) -> Values:
    """Give the value of each sample a second later, by its name and the values of its labels."""
    served.reactor.advance(1)
    text = served.get("/metrics").body.decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_counter_is_a_metric() -> None:
    assert {*LISTENERS, *SERVICE} == set(Counters().counts())
    assert not LISTENERS.keys() & SERVICE.keys()
    names = [name for name, _ in (*LISTENERS.values(), *SERVICE.values())]
    assert len(set(names)) == len(names)
    assert REASONS.keys() <= {*LISTENERS, *SERVICE}


def test_lines_are_counted_by_listener_and_by_reason(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve(
        *("--line-limit", "5", "--store", f"sqlite:{tmp_path / 'l.db'}"),
        *("--max-connections-per-source", "1", "--listen", "echo@tcp:0:interface=127.0.0.1"),
        *("--host", "127.0.0.1"),
    )
    at = f"tcp:127.0.0.1:{served.lines[2]}"
    assert served.ask(b"one\ntwo\ntoo long\nthree\nhalf").count(b"ok\n") == 3
    kept = served._running.peer(*served.lines[1:])
    kept.sendall(b"four\n")
    assert served.reactor.received(kept, 3) == b"ok\n"
    assert b"limit" in served.ask(b"")
    found = scraped(served)
    assert found["sockservice_lines_received_total", at, "ack"] == 6
    assert found["sockservice_lines_acknowledged_total", at, "ack"] == 4
    assert found["sockservice_lines_refused_total", at, "ack", "line-limit"] == 1
    assert found["sockservice_lines_refused_total", at, "ack", "unterminated"] == 1
    assert found["sockservice_lines_refused_total", at, "ack", "other"] == 0
    refused = ("sockservice_connections_turned_away_total", at, "ack")
    assert found[*refused, "max-connections-per-source"] == 1
    assert sum(value for key, value in found.items() if key[:3] == refused) == 1
    assert found["sockservice_connections_open", at, "ack"] == 1
    others = [key for key in found if key[0] == "sockservice_lines_received_total"]
    assert [key[2] for key in others if found[key] == 0] == ["echo", "echo"]
    assert found["sockservice_store_lines_total",] == 4
    assert found["sockservice_acknowledgement_seconds_count",] == 4
    commits = found["sockservice_store_commit_lines_count",]
    assert found["sockservice_store_commit_seconds_count",] == commits >= 2
    assert found["sockservice_store_commit_lines_sum",] == 4
    assert found["sockservice_store_commit_bytes_sum",] == len("onetwothreefour")
    assert found["sockservice_store_failing",] == 0
    assert found["sockservice_store_last_commit_timestamp_seconds",] > 1.7e9
    assert found["sockservice_live",] == 1
    # The storage thread looks at the file in its own time.
    served.reactor.until(lambda: "last" in served.service._store.writer.figures)
    assert scraped(served)["sockservice_store_file_bytes",] >= 4096


def test_datagrams_are_measured(served: Served) -> None:
    at = f"udp:127.0.0.1:{served.lines[2]}"
    asking = served._running.asking(*served.lines[1:])
    for size in (0, 16, 17, 1024, 30_000):
        asking.send(bytes(size))
        served.reactor.received(asking, size or None) if size else served.reactor.iterate(0)
    served.reactor.until(lambda: served.service._counters.total.datagrams == 5)
    found = scraped(served)
    name = "sockservice_datagram_size_bytes"
    buckets = {key[1]: value for key, value in found.items() if key[0] == f"{name}_bucket"}
    assert (buckets["16"], buckets["32"], buckets["1024"], buckets["+Inf"]) == (2, 3, 4, 5)
    assert found[f"{name}_sum", at, "echo"] == 31_057
    assert found[f"{name}_count", at, "echo"] == 5


def test_each_limit_is_told_beside_what_it_limits(served: Served) -> None:
    found = scraped(served)
    limits = {key[1] for key in found if key[0] == "sockservice_limit"}
    assert limits == {each.name for each in SETTINGS if each.protects and not each.repeated}
    assert found["sockservice_limit", "line-limit"] == 65536
    assert found["sockservice_connections_limit",] == 10_000


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_when_certificates_expire_is_told(
    running: Running, server: Identity, reactor: HandReactor
) -> None:
    served = Served(
        running,
        "--listen",
        f"ssl:0:interface=127.0.0.1:privateKey={server.privateKey}:certKey={server.certKey}",
    )
    found = scraped(served)
    [expires] = [
        value
        for key, value in found.items()
        if key[0] == "sockservice_certificate_expiry_timestamp_seconds"
    ]
    ends: Any = getattr(server.certificate, "not_valid_after_utc", None)
    if ends is None:  # the lowest cryptography's
        ends = server.certificate.not_valid_after.replace(tzinfo=UTC)
    assert expires == ends.timestamp()


def test_both_formats_can_be_read(served: Served) -> None:
    usual = served.get("/metrics")
    assert usual.headers["content-type"].startswith("text/plain; version=0.0.4")
    asked = "Accept: application/openmetrics-text; version=1.0.0"
    other = served.get("/metrics", asked)
    assert other.headers["content-type"].startswith("application/openmetrics-text")
    assert other.body.endswith(b"# EOF\n")
    old = {each.name: each.type for each in text_string_to_metric_families(usual.body.decode())}
    new = {each.name: each.type for each in openMetrics(other.body.decode())}
    assert {name.removesuffix("_info") for name in old} >= set(new)


def test_names_units_and_help_are_as_prometheus_wants_them(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    promtool = which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here: it comes with Debian's package prometheus")
    served = serve("--store", f"sqlite:{tmp_path / 'l.db'}")
    text = served.get("/metrics").body
    done = run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_label_is_what_a_peer_chose(served: Served) -> None:
    served.ask(b"hello\n")
    text = served.get("/metrics").body.decode()
    assert set(re.findall(r'(\w+)="', text)) <= {
        *("listener", "protocol", "reason", "option", "le", "worker"),
        *("version", "python", "twisted", "implementation"),
    }


def test_without_the_library_one_line_says_what_is_missing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    served = Served(running)
    found = served.get("/metrics")
    assert found.status == 501
    assert b"pip install 'sockservice[status]'" in found.body
    assert served.get("/").status == 200
