"""rsyslog and syslog-ng, configured as docs/syslog.md says: what they are told is stored.

`python -m tests.soak syslog` does it with more messages, and kills more often.
"""

from contextlib import ExitStack
from random import Random

import pytest

from tests.certificates import Identity
from tests.conftest import Children
from tests.soak import syslogged
from tests.soak.disks import inMemory
from tests.soak.syslogged import WAYS

COUNT = 1500

ROUNDS = {
    "rsyslog": ("omrelp", "omrelp-tls", "omfwd", "omfwd-lines", "omfwd-tls"),
    "openssl": ("omrelp-openssl", "omfwd-openssl"),
    "syslog-ng": ("syslog-ng", "syslog-ng-counted", "syslog-ng-tls"),
}


@pytest.mark.parametrize("kind", ROUNDS)
def test_what_they_are_told_is_stored_though_the_server_is_killed_and_its_disk_is_full(
    children: Children,
    authority: Identity,
    server: Identity,
    alice: Identity,
    opened: ExitStack,
    kind: str,
) -> None:
    ways = ROUNDS[kind]
    for missing in filter(None, (WAYS[way].missing for way in ways)):
        pytest.skip(f"{missing} not here")
    small = children.folder / "small"
    full = not opened.enter_context(inMemory(small, 16_000))
    came = syslogged.syslogged(
        *(children, small / "logs.db", ways, (authority, server, alice), Random(1)),
        *(COUNT, 2, int(full)),
    )
    for way, each in came.items():
        # What is never acknowledged may be lost with the system's buffers, and all of it is if
        # each part of it was sent just before a kill. The sender has to find its way back.
        assert each.stored == COUNT if WAYS[way].acknowledged else each.after, came


def test_all_that_the_page_configures_is_run() -> None:
    configured = {way.configured for way in WAYS.values()}
    for kind in ("rsyslog", "syslog-ng"):
        for block in syslogged.fenced(kind):
            plain = block.replace(syslogged.RELOADED, "")
            # The journal is another test's.
            assert "imjournal" in block or any(plain in each for each in configured), block
