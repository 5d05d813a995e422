"""The dashboard and the alerts: what they name is there, and a real Prometheus reads both."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from shutil import which
from subprocess import STDOUT, run
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.conftest import PATIENCE, Child, Children
from tests.soak import disks
from tests.status.conftest import Served
from tests.status.test_metrics import scraped

DOCS = Path(__file__).parents[2] / "docs"
RULES, BOARD = DOCS / "alerts.yaml", DOCS / "grafana.json"
PROMTOOL, PROMETHEUS = which("promtool"), which("prometheus")

#: What Prometheus itself makes.
ITS_OWN = {"up"}
#: What there is with workers, a certificate, or a store of several nodes only.
SOMETIMES = {
    "sockservice_store_node_up",
    "sockservice_worker_up",
    "sockservice_worker_cpu_seconds_total",
    "sockservice_worker_resident_memory_bytes",
    "sockservice_certificate_expiry_timestamp_seconds",
}


def expressions() -> list[str]:
    """Give all that is asked of Prometheus."""
    rules = re.findall(
        r"expr: (?:>-\n)?(.*?)\n        (?:for|labels)", RULES.read_text(), re.DOTALL
    )
    panels = json.loads(BOARD.read_text())["panels"]
    return rules + [target["expr"] for panel in panels for target in panel["targets"]]


def test_each_metric_that_they_name_is_there(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("--store", f"sqlite:{tmp_path / 'l.db'}", "--status-connections", "9")
    served.ask(b"a\n")
    # Read by the storage thread, in its own time.
    served.reactor.until(lambda: "last" in served.service._store.writer.figures)
    asking = served._running.asking(*served.lines[1:])
    asking.send(b"x")
    served.reactor.received(asking, 1)
    there = {key[0] for key in scraped(served)} | SOMETIMES
    text = "\n".join(expressions())
    named = set(re.findall(r"\b(?:sockservice|process)_\w+", text)) | ITS_OWN
    assert len(named) > 30
    assert named - ITS_OWN <= there
    source = Path("sockservice/status/metrics.py")
    written = (DOCS.parent / source).read_text()
    for name in SOMETIMES:
        assert name.removeprefix("sockservice_").removesuffix("_total") in written
    reasons = set(re.findall(r'reason!?="([\w-]+)"', text))
    assert reasons <= {key[-1] for key in scraped(served)}


def test_each_alert_says_what_it_is_about() -> None:
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    page = (DOCS / "status.md").read_text()
    assert len(set(names)) == len(names) == len(re.findall("summary:", RULES.read_text()))
    assert re.findall(r"^\| `(Sockservice\w+)`", page, re.MULTILINE) == names


def test_the_rules_are_what_prometheus_takes_for_some() -> None:
    if PROMTOOL is None:
        pytest.skip("promtool is not here: it comes with Debian's package prometheus")
    done = run([PROMTOOL, "check", "rules", str(RULES)], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_raises_the_alert_in_a_real_prometheus(
    children: Children, tmp_path: Path
) -> None:
    if PROMETHEUS is None:
        pytest.skip("prometheus is not here: it is a package of Debian's")
    with disks.inMemory(tmp_path / "small", 8000) as problem:
        if problem:
            pytest.skip(f"no disk to fill: {problem}")
        store = f"sqlite:{tmp_path / 'small' / 'lines.db'}"
        service = children.serve(
            *("--store", store, "--store-reserve", "2M"),
            *("--status", "tcp:0:interface=127.0.0.1"),
        )
        at = int(service.until(rb"status page listening on tcp:127\.0\.0\.1:(\d+)")[1])
        # At once, and not after minutes.
        rules = re.sub(r"\n +for: \w+", "", RULES.read_text())
        (tmp_path / "rules.yaml").write_text(rules)
        (tmp_path / "prometheus.yaml").write_text(
            # Where others have the processors an answer may take more than a second.
            "global: {scrape_interval: 2s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yaml]\n"
            "scrape_configs: [{job_name: sockservice, static_configs: "
            f"[{{targets: ['127.0.0.1:{at}']}}]}}]\n"
        )
        prometheus = children.start(
            PROMETHEUS,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'series'}",
            "--web.listen-address=127.0.0.1:0",
            stderr=STDOUT,
        )
        port = int(Child(prometheus).until(rb'"?Listening on"? address=127\.0\.0\.1:(\d+)')[1])

        def asked(path: str) -> Any:
            try:
                with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=PATIENCE) as found:
                    return json.load(found)["data"]
            except OSError:
                return {}

        def until(come: Callable[[], object]) -> None:
            deadline = monotonic() + 3 * PATIENCE
            while not come():
                assert monotonic() < deadline, (
                    "it did not come",
                    asked("targets"),
                    asked("alerts"),
                )
                assert prometheus.poll() is None, prometheus.communicate()
                sleep(0.1)

        def firing() -> set[str]:
            found = asked("alerts").get("alerts", [])
            return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

        fired: set[str] = set()

        def both() -> bool:
            # Not at the same time, where an answer is too late for one look.
            fired.update(firing())
            return {"SockserviceStoreRefuses", "SockserviceNotReady"} <= fired

        until(lambda: asked(f"query?query={quote('sockservice_ready')}").get("result"))
        assert "SockserviceStoreRefuses" not in firing()
        ballast = tmp_path / "small" / "ballast"
        ballast.write_bytes(bytes(6_500_000))
        with service.connected() as peer:
            while True:
                peer.sendall(b"x\n")
                if peer.recv(100).startswith(b"error not stored"):
                    break
            until(both)
        ballast.unlink()
        prometheus.send_signal(signal.SIGTERM)
        prometheus.wait(PATIENCE)
        service.stop()
