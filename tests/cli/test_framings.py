"""`--framing module.Class` in the commands that have it, where the class fails."""

import pytest

from tests.cli.test_cli import outcome, tcp
from tests.conftest import Children, Service

MODULE = """
from sockservice import Framer

class Seven(Framer):
    def encode(self, replies, ending):
        if any(len(reply) > 7 for reply in replies):
            raise ValueError("more than 7 bytes")
        return super().encode(replies, ending)

class Text(Framer):
    def encode(self, replies, ending):
        return "text"
"""


@pytest.fixture(autouse=True)
def framings(children: Children) -> None:
    (children.folder / "framings.py").write_text(MODULE)


@pytest.mark.parametrize("retry", [[], ["--retry"]])
def test_a_line_that_can_not_be_framed_is_told(
    children: Children, service: Service, retry: list[str]
) -> None:
    given = ["--framing", "framings.Seven", *retry, tcp(service), "a", "b" * 8]
    status, _, said = outcome(children.run("sockservice", "send", *given))
    assert status == 1
    assert "Traceback" not in said
    assert said.endswith(" are unacknowledged\n")
    assert ": a line can't be framed: more than 7 bytes; " in said


@pytest.mark.parametrize("command", ["ping", "bench"])
def test_where_all_lines_are_alike_it_is_told_before(
    children: Children, service: Service, command: str
) -> None:
    given = ["--count", "2", tcp(service), "--framing"]
    status, printed, said = outcome(children.run("sockservice", command, *given, "framings.Text"))
    assert (status, printed) == (2, b"")
    assert said.endswith(": a line can't be framed: str is not bytes\n")
    status, _, said = outcome(
        children.run("sockservice", command, *given, "framings.Seven", "--size", "7")
    )
    assert (status, said) == (0, "")
