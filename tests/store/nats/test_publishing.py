"""What becomes of a message, whatever is answered, or not."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nats", reason="the extra nats is not installed")

from sockservice.errors import StoreError
from sockservice.store.nats import publishing
from sockservice.store.nats.link import NoAnswer, TooLarge, Unsent
from sockservice.store.nats.place import parsed
from sockservice.store.nats.publishing import Publisher, WrongSequence
from tests.conftest import Log

STORED = {"stream": "S", "seq": 7}
SILENCE = NoAnswer("no answer from NATS", certain=False)
LEADERLESS = NoAnswer("the stream has no leader", certain=True)
APART = Unsent("no connection to NATS: refused")


def error(code: int, text: str = "") -> dict[str, Any]:
    return {"error": {"code": 503, "err_code": code, "description": text}}


class Scripted:
    """A connection on which each request is answered as it was written down; time passes."""

    node, connected = "n1 (h:4222)", True

    def __init__(self, *answers: object) -> None:
        self.answers = deque(answers)
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []
        self.now = 0.0

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str], timeout: float
    ) -> Any:
        self.sent.append((subject, payload, headers))
        self.now += 1.0
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(data=json.dumps(answer).encode())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PAUSE", 0)


@pytest.fixture
def publish() -> Callable[..., tuple[Scripted, int]]:
    def do(*answers: object) -> tuple[Scripted, int]:
        link = Scripted(*answers)
        made = Publisher(link, parsed("nats://h/S"), lambda: link.now)  # type: ignore[arg-type]
        return link, asyncio.run(made.publish("S.l", b"x", {"Nats-Msg-Id": made.identify()}, 30.0))

    return do


def test_it_is_sent_again_as_the_same_until_it_is_acknowledged(
    publish: Callable[..., tuple[Scripted, int]], log: Log
) -> None:
    link, sequence = publish(SILENCE, LEADERLESS, APART, error(10023, "resources"), STORED)
    assert sequence == 7
    assert len(link.sent) == 5
    assert all(each == link.sent[0] for each in link.sent)
    silent, again = log.texts[-2:]
    assert silent.startswith("the stream S has acknowledged nothing for 1.0 s: no answer from NATS")
    assert "connected to n1 (h:4222)" in silent
    assert again == "the stream S acknowledges again, after 5.0 s"


@pytest.mark.parametrize(
    ("answers", "text", "retry"),
    [
        ([LEADERLESS], "not stored: the stream has no leader", True),
        ([APART], "not stored: no connection to NATS: refused", True),
        ([SILENCE], "unknown: no answer from NATS", True),
        ([SILENCE, LEADERLESS], "unknown: the stream has no leader", True),
        ([error(10023, "no room")], "unknown: NATS says: no room", True),
        ([error(10077, "maximum bytes exceeded")], "not stored: the stream is full", True),
        ([SILENCE, error(10077, "maximum bytes")], "unknown: the stream is full", True),
        ([error(10060, "expected stream")], "not stored: the stream has another name", False),
        ([error(10054, "too large")], "not stored: the message is too large", False),
        ([TooLarge()], "not stored: a message of 1 byte is more than NATS takes", True),
        ([{"stream": "OTHER", "seq": 1}], "unknown: NATS says", True),
    ],
)
def test_a_failure_says_what_is_known(
    publish: Callable[..., tuple[Scripted, int]], answers: list[object], text: str, retry: bool
) -> None:
    with pytest.raises(StoreError) as failed:
        publish(*answers)
    assert str(failed.value).startswith(text)
    assert failed.value.retry == retry
    assert failed.value.certain == text.startswith("not stored")


@pytest.mark.parametrize("code", [10071, 10164])
def test_what_is_not_the_next_of_its_subject_is_told_at_once(
    publish: Callable[..., tuple[Scripted, int]], code: int
) -> None:
    with pytest.raises(WrongSequence):
        publish(SILENCE, error(code, "wrong last sequence: 3"))
