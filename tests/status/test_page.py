"""The page: whole in itself, and whatever peers chose is text in it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sockservice.status.page import CHARTS, NONE, Page, moment, number, seconds, sections, size
from tests.status.conftest import Served

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class Marks(HTMLParser):
    """The tags of a page, and whatever leads elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def test_the_page_is_small_and_needs_nothing_from_elsewhere(served: Served) -> None:
    served.reactor.advance(1)
    text = served.get("/").body.decode()
    assert len(text.encode()) < 60_000
    found = Marks(text)
    assert set(found.links) == {"data:,", "status.json", "metrics", "health/live", "health/ready"}
    assert "://" not in re.sub(r"https?://www\.w3\.org", "", text)
    assert not {each for each in found.attributes if each.startswith("on") or each == "style"}
    assert found.tags.count("script") == found.tags.count("style") == 1


def test_a_full_page_is_still_small(served: Served) -> None:
    served.reactor.advance(1)
    site = served.service.status._site
    state = site.state()
    state["history"] = [[n, n * 1.5, n / 3, 0.0, n, n, n / 1e6] for n in range(300)]
    row = {"peer": "192.0.2.1:50000", "listener": "tcp:192.0.2.9:555", "age": 1.0, "lines": 10**9}
    row |= {"rate": 1e6, "refused": 10**6, "held": 10**8, "unanswered": 1000, "worker": 16}
    state["busiest"] = state["heaviest"] = [row] * 10
    assert len(Page().made(state)) < 60_000


def test_the_policy_is_that_of_the_page(served: Served) -> None:
    policy = served.get("/").headers["content-security-policy"]
    # Compared in lower case, as headers are read here.
    assert policy == Page().policy.lower()
    assert "unsafe" not in policy and "form-action 'none'" in policy


def test_what_peers_chose_is_text(served: Served) -> None:
    served.reactor.advance(1)
    state = served.service.status._site.state()
    tags = Marks(Page().made(state).decode()).tags
    row = {"peer": EVIL, "listener": EVIL, "age": 1.0, "lines": 1, "rate": 1.0, "refused": 0}
    row |= {"held": 1, "unanswered": 0}
    state["busiest"] = [row]
    state["heaviest"] = [row]
    state["health"] = {"live": True, "ready": False, "why": [EVIL]}
    for each in state["listeners"]:
        each |= {"listener": EVIL, "protocol": EVIL, "reasons": {"refused": {EVIL: 1}}}
    for each in state["options"]:
        each["value"] = EVIL
    found = Marks(Page().made(state).decode())
    assert [tag for tag in found.tags if tag in ("script", "img")] == [
        tag for tag in tags if tag in ("script", "img")
    ]
    for html in sections(state).values():
        assert "<script" not in html and "<img" not in html


def test_a_peers_name_reaches_the_page_as_it_is(served: Served) -> None:
    peer = served._running.peer(*served.lines[1:])
    served.reactor.until(lambda: served.service.connections)
    for listener in served.service.listeners():
        for connection in getattr(listener._factory, "_connections", ()):
            connection.peer = EVIL
    peer.sendall(b"a\nunfinished")
    assert served.reactor.received(peer, 3) == b"ok\n"
    [row] = served.state()["busiest"]
    assert (row["peer"], row["lines"], row["held"]) == (EVIL, 1, 10)
    text = served.get("/").body.decode()
    assert "&lt;script&gt;alert(1)" in text and "<img" not in text


def test_options_that_differ_from_their_defaults_are_marked(
    serve: Callable[..., Served],
) -> None:
    served = serve("--line-limit", "7", "--verbose", "--deny", "192.0.2.0/24")
    state = json.loads(served.get("/status.json").body)
    differs = {each["option"]: each["value"] for each in state["options"] if each["differs"]}
    assert differs.pop("status").startswith("tcp:0")
    assert differs == {
        "port": "0", "line-limit": "7 bytes", "verbose": "on", "deny": "192.0.2.0/24"
    }  # fmt: skip
    assert 'class="differs"><th scope="row">--line-limit' in served.get("/").body.decode()


def test_passwords_are_not_shown(serve: Callable[..., Served]) -> None:
    served = serve("--ready-file", "x//user:secret@host/ready")
    assert "secret" not in served.get("/").body.decode() + served.get("/status.json").body.decode()


def test_what_sighup_changes_is_shown(serve: Callable[..., Served], tmp_path: Path) -> None:
    from sockservice.daemon import reload

    file = tmp_path / "limit"
    file.write_text("10\n")
    served = serve("--line-limit", f"@{file}", "--max-connections", "9")
    shared: Any = served.service.status._shared
    file.write_text("20\n")
    reload.reread(shared.options, shared, served.service)()
    values = {each["option"]: each["value"] for each in served.state()["options"]}
    assert (values["line-limit"], values["max-connections"]) == ("20 bytes", "9")


def test_charts_have_words() -> None:
    history = [[n, float(n), 0.0, 0.0, n, n, None] for n in range(300)]
    base: dict[str, Any] = {
        "health": {"live": True, "ready": True, "why": []}, "version": "1", "uptime": 1.0,
        "rates": {}, "limits": {"max-connections": 0, "memory-limit": 0}, "counters": {"lines": 0},
        "connections": 0, "held": 0, "late": 0.0, "listeners": [], "store": None, "busiest": [],
        "heaviest": [], "workers": None, "history": history,
    }  # fmt: skip
    made = sections(base)["charts"]
    assert made.count("<svg") == len(CHARTS) - 1
    assert 'aria-label="Lines a second: now 299, at most 299 in five minutes"' in made


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (number(None), NONE), (number(0), "0"), (number(1.25), "1.2"), (number(12345.6), "12,346"),
        (size(None), NONE), (size(1023), "1023 B"), (size(1536), "1.5 KiB"),
        (size(3 << 40), "3.0 TiB"), (size(5 << 52), "20480 TiB"),
        (seconds(None), NONE), (seconds(0.0015), "1.5 ms"), (seconds(119), "119 s"),
        (seconds(121), "2 min"), (seconds(7200), "2 h"), (seconds(90_000_000), "1042 d"),
        (moment(None), NONE), (moment(0), "1970-01-01 00:00:00 UTC"),
    ],
)  # fmt: skip
def test_figures_are_written_for_people(said: str, text: str) -> None:
    assert said == text
