"""`sockservice sessions` and `lines --session`, on a store with sessions and without."""

import json
from pathlib import Path

import pytest

from sockservice.store.engine import Batch, Claim, Mark, Marked
from sockservice.store.sqlite import SQLite
from sockservice.wire.session import Opened
from tests.conftest import Children


def claim(name: str) -> Claim:
    return Claim(name, "", 100, None, "here", 1_700_000_000_000_000, "192.0.2.7:1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "lines.db"
    engine = SQLite(str(path))
    engine.keepSessions()
    engine.open()
    engine.commit([claim("a"), claim("b%2Fc"), Batch(1, "192.0.2.7:2", "tcp", [b"alone"])])
    batch = Batch(1_700_000_001_000_000, "192.0.2.7:1", "tcp", [b"one", b"two"])
    engine.commit([Marked(batch, Mark("b%2Fc", 1, 0))])
    engine.close()
    return path


def said(children: Children, *command: str) -> tuple[int, str, str]:
    done = children.run("sockservice", *command)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_sessions_are_shown_and_their_lines(children: Children, store: Path) -> None:
    status, shown, _ = said(children, "sessions", str(store))
    assert status == 0
    assert [line.split() for line in shown.splitlines()] == [
        ["0", "lines", "2023-11-14T22:13:20Z", "a"],
        ["2", "lines", "2023-11-14T22:13:21Z", "b%2Fc"],
    ]
    assert said(children, "lines", "--session", "b%2Fc", str(store)) == (0, "one\ntwo\n", "")
    assert said(children, "lines", "--session", "c", str(store)) == (0, "", "")


def test_each_is_an_object(children: Children, store: Path) -> None:
    status, shown, _ = said(children, "sessions", "--json", f"sqlite:{store}")
    first, second, sum = map(json.loads, shown.splitlines())
    assert (status, first["session"], second["session"]) == (0, "a", "b%2Fc")
    assert (second["position"], second["epoch"], second["limit"]) == (2, 1, 100)
    assert (second["note"], second["noted"], second["peer"]) == ("here", 0, "192.0.2.7:1")
    assert (sum["sessions"], sum["status"], sum["why"]) == (2, 0, None)


def test_a_session_is_forgotten_and_its_lines_are_not(children: Children, store: Path) -> None:
    assert said(children, "sessions", "--forget", "b%2Fc", str(store)) == (0, "", "")
    assert said(children, "sessions", "--forget", "b%2Fc", str(store)) == (
        1,
        "",
        f"{store}: there is no session b%2Fc\n",
    )
    assert said(children, "lines", "--session", "b%2Fc", str(store))[1] == "one\ntwo\n"
    engine = SQLite(str(store))
    engine.keepSessions()
    engine.open()
    [opened] = engine.commit([claim("b%2Fc")]) or []
    engine.close()
    # No connection that is still open may pass for one of the new session.
    assert isinstance(opened, Opened)
    assert (opened.new, opened.position) == (True, 0) and opened.epoch > 1


def test_a_copy_gets_an_identity_of_its_own(children: Children, store: Path) -> None:
    _, before, _ = said(children, "sessions", "--json", str(store))
    status, identity, _ = said(children, "sessions", "--new-identity", str(store))
    _, after, _ = said(children, "sessions", "--json", str(store))
    assert status == 0
    assert json.loads(after.splitlines()[-1])["identity"] == identity.strip()
    assert json.loads(before.splitlines()[-1])["identity"] != identity.strip()


def test_no_server_may_be_using_what_is_written(children: Children, store: Path) -> None:
    engine = SQLite(str(store))
    engine.open()
    for what in (("--forget", "a"), ("--new-identity",)):
        assert said(children, "sessions", *what, str(store)) == (
            1,
            "",
            f"Error: {store}: a server is using it; stop that first\n",
        )
    engine.close()


def test_a_store_that_never_held_sessions_has_none(children: Children, tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    engine = SQLite(str(path))
    engine.open()
    engine.close()
    assert said(children, "sessions", str(path)) == (0, "", "")
    assert said(children, "sessions", "--forget", "a", str(path)) == (
        1,
        "",
        f"{path}: it has never held sessions\n",
    )
