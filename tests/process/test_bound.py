"""`--drain-timeout` bounds the whole end of the process, the store's part included."""

import re
import socket
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from tests.conftest import Children, Service

# An engine that hangs where no signal and no exception reaches it, as in a sync of a slow disk.
ENGINE = """
import ctypes
from pathlib import Path

from sockservice.store.memory import Memory


class Hanging(Memory):
    def __init__(self, place, retention):
        super().__init__()
        self._place = Path(place)

    def commit(self, batches):
        hangs = any(b"hang" in line for batch in batches for line in batch.lines)
        if self._place.name == "commit" and hangs:
            ctypes.CDLL(None).sleep(60)
        super().commit(batches)

    def close(self):
        if self._place.name == "close":
            ctypes.CDLL(None).sleep(60)
"""

LEFT = b"what is not synced by now is left, unacknowledged"


def serve(children: Children, folder: Path, where: str, *options: str) -> Service:
    (folder / "hanging.py").write_text(ENGINE)
    return children.serve("--store", f"hanging.Hanging:{where}", "--drain-timeout", "2", *options)


def stored(service: Service) -> socket.socket:
    peer = service.connected()
    peer.sendall(b"x\n")
    assert peer.recv(100) == b"ok\n"
    return peer


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stays", [True, False])
def test_what_is_not_synced_in_time_is_left_unacknowledged(
    children: Children, tmp_path: Path, workers: str, stays: bool
) -> None:
    service = serve(children, tmp_path, "commit", "--workers", workers)
    if workers != "1":
        service.until(rb"workers are ready")
    with closing(stored(service)) as peer:
        peer.sendall(b"hang\n")
        with closing(service.connected()) as other:
            # What it sends comes behind, in another commit.
            other.sendall(b"x\n")
        if not stays:
            peer.close()
        began = monotonic()
        service.process.terminate()
        service.ended()
        assert monotonic() - began < 4
        if stays:
            # Cut, without a word for it.
            with pytest.raises(ConnectionResetError):
                peer.recv(100)
    assert LEFT in service.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_syslog_that_is_not_synced_in_time_is_lost_and_counted(
    children: Children, tmp_path: Path, workers: str
) -> None:
    """With `--workers`, what a worker says last arrives in the log of its parent."""
    service = serve(
        *(children, tmp_path, "commit", "--workers", workers, "--listen", "syslog@unix:stream"),
        *("--listen", "syslog@unix-datagram:datagrams", "--verbose"),
    )
    service.until(rb"workers are ready" if workers != "1" else rb"listening on unix-datagram")
    with (
        closing(socket.socket(socket.AF_UNIX)) as first,
        closing(socket.socket(socket.AF_UNIX)) as peer,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as datagrams,
    ):
        for each in (first, peer):
            each.connect(str(tmp_path / "stream"))
        first.sendall(b"<13>hang\n")
        service.until(rb"<13>hang")
        peer.sendall(b"<13>one\n<13>two\n")
        datagrams.connect(str(tmp_path / "datagrams"))
        datagrams.send(b"<13>three")
        service.until(rb"<13>t(?s:.*)<13>t")
        began = monotonic()
        service.process.terminate()
        service.ended()
        assert monotonic() - began < 5
    why = rb"lost, for the connection ended: unknown: the service stops\n"
    for count in (rb"1 syslog message ", rb"2 syslog messages "):
        assert re.search(rb"unix:pid=\d+,uid=\d+: " + count + why, service.output)
    assert b": a syslog message lost: the service stops before it is" in service.output
    ended = service.output[service.output.rindex(b"ended: ") :]
    assert re.search(rb"; 3 lines, 0 acknowledged.* 1 datagram, .* 4 lost, ", ended), ended


def test_a_store_that_does_not_close_is_left_with_what_was_acknowledged(
    children: Children, tmp_path: Path
) -> None:
    service = serve(children, tmp_path, "close")
    stored(service).close()
    began = monotonic()
    service.stop()
    assert 2 < monotonic() - began < 5
    assert b"it is left open, with all that was acknowledged" in service.output
    assert LEFT not in service.output


def test_a_store_that_closes_in_time_is_closed(children: Children, tmp_path: Path) -> None:
    service = serve(children, tmp_path, "nowhere")
    stored(service).close()
    service.stop()
    assert b"--drain-timeout" not in service.output
