"""What the status page, the metrics and reports say of the nodes of a store."""

from collections.abc import Callable

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.place import Place
from tests.conftest import Log
from tests.soak.clustered import caughtUp, leader
from tests.status.conftest import Served
from tests.status.test_metrics import scraped

MISSING = ("sockservice_store_majority_missing_seconds",)


def test_a_node_that_goes_and_comes_again_is_told_of(
    serve: Callable[..., Served], stream: Place, cluster: Cluster, log: Log
) -> None:
    served = serve("--store", cluster.url("TESTS", ""), "--report", "1")
    served.reactor.until(lambda: "nodes" in served.service._store.writer.figures)
    assert served.ask(b"a\n") == b"ok\n"
    before = leader(cluster, "TESTS")
    other = next(node for node in cluster.nodes if node.name != before)
    found = scraped(served)
    names = [node.name for node in cluster.nodes]
    assert [found["sockservice_store_node_up", name] for name in names] == [1, 1, 1]
    assert found["sockservice_store_node_leads", before] == 1
    assert sum(found["sockservice_store_node_connected", name] for name in names) == 1
    assert found[MISSING] == 0

    def said() -> list[str]:
        served.reactor.advance(1)
        return [text for text in log.texts if text.startswith("nodes of the store: ")]

    other.kill()
    try:
        served.reactor.until(lambda: f"{other.name} is gone for " in "".join(said()))
        assert f"{before} leads" in said()[-1]
        found = scraped(served)
        assert found["sockservice_store_node_up", other.name] == 0
        assert found["sockservice_store_node_losses_total", other.name] == 1
        assert f"{other.name} is gone for " in served.get("/").body.decode()
        assert served.get("/health/ready").status == 200
    finally:
        other.start()
        caughtUp(cluster)
    served.reactor.until(lambda: "is gone" not in said()[-1])
    assert "was lost 1 time" in said()[-1]
    assert scraped(served)["sockservice_store_node_returns_total", other.name] == 1
    assert any(f"the node {other.name} of the stream TESTS is there again" in t for t in log.texts)


def test_a_majority_that_is_missing_is_told_of(
    serve: Callable[..., Served],
    stream: Place,
    cluster: Cluster,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sockservice.status.health.MAJORITY_MISSING", 0.0)
    served = serve("--store", cluster.url("TESTS", ""))
    served.reactor.until(lambda: "nodes" in served.service._store.writer.figures)
    gone = cluster.nodes[:2]
    for node in gone:
        node.kill()
    try:
        served.reactor.until(lambda: any("has no majority for" in text for text in log.texts))
        served.reactor.until(
            lambda: scraped(served)["sockservice_store_majority_missing_seconds",] > 1
        )
        answer = served.get("/health/ready")
        assert answer.status == 503
        assert b"the store's stream has no majority for " in answer.body
        assert b"no majority for " in served.get("/").body
    finally:
        for node in gone:
            node.start()
        caughtUp(cluster)
    served.reactor.until(
        lambda: scraped(served)["sockservice_store_majority_missing_seconds",] == 0
    )
    assert served.ask(b"b\n") == b"ok\n"
