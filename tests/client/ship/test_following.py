"""Log files followed through rotation, with the shipper killed at any moment."""

import random
from pathlib import Path

import pytest

from tests.client.ship.carrier import Carrier, Server
from tests.rotations import compress, copied, copiedAndCompressed, renamed


def write(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def lines(start: int, end: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(start, end))


def numbers(server: Server) -> list[int]:
    return [int(line.split()[1]) for line in server.lines]


def rename(path: Path) -> None:
    renamed(path)
    path.touch()


def renameAndDelayCompress(path: Path) -> None:
    renamed(path, squeeze=True)
    path.touch()


def renameAndCompress(path: Path) -> None:
    rename(path)
    compress(Path(f"{path}.1"))


ROTATIONS = {
    "rename": rename,
    "renameAndDelayCompress": renameAndDelayCompress,
    "renameAndCompress": renameAndCompress,
    "copytruncate": copied,
    "copytruncateAndCompress": copiedAndCompressed,
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_each_line_arrives_once_and_in_order(tmp_path: Path, rotation: str, seed: int) -> None:
    chance = random.Random(f"{rotation} {seed}")
    path = tmp_path / "app.log"
    server = Server()
    carrier: Carrier | None = Carrier(path, server)
    written = 0
    pending = b""
    for _ in range(150):
        match chance.randrange(12):
            case 0 | 1 | 2:
                more = chance.randrange(1, 8)
                data = pending + lines(written, written + more)
                written += more
                cut = len(data) - chance.randrange(4)
                pending = data[cut:]
                write(path, data[:cut])
            case 3:
                write(path, pending)
                pending = b""
                if path.exists() and path.stat().st_size:
                    ROTATIONS[rotation](path)
            case 4 if carrier is not None:
                carrier.deliver(chance.randrange(4))
                carrier.die()
                carrier = None
            case 5 | 6 if carrier is not None:
                carrier.deliver(chance.randrange(4))
            case _:
                # It may have been down for a while.
                carrier = carrier or Carrier(path, server)
                carrier.take()
                carrier.clock.advance(chance.choice([0.2, 0.2, 61]))
    write(path, pending)
    carrier = carrier or Carrier(path, server)
    carrier.settle()
    carrier.die()
    assert numbers(server) == list(range(written)), carrier.said
