"""Compare the store in NATS with SQLite and with a raw publisher: `python -m benchmarks.cluster`.

The same batches are committed one after the other: by both engines, and by nats-py alone, which
publishes as many bytes with an id to the same stream and waits for the acknowledgement. Then whole
servers are loaded, by so many clients that wait for each reply: one that stores in SQLite, and 1, 2
and 4 that store in the stream together. Each round measures all in turn; the medians are compared.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter

import click
import nats

from sockservice.store.engine import Backend, Batch
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.engine import JetStream
from sockservice.store.nats.place import parsed
from sockservice.store.pipe import packed
from sockservice.store.sqlite import SQLite
from sockservice.wire.plurals import counted

#: Lines of a batch from each client: what a read brings.
LINE = b"x" * 64
#: Lines of a commit, as so many clients that wait for their replies make them.
CLIENTS = (1, 16, 256)

#: Servers that share the clients, and how many clients that are.
SERVERS, SHARED = (1, 2, 4), 256
SCRIPTS = Path(sys.executable).parent

#: Commits such lines so often.
Committing = Callable[[int, int], None]


def batches(clients: int) -> list[Batch]:
    """Give a line of each client."""
    return [
        Batch(1, f"192.0.2.1:{10000 + at}", "tcp:127.0.0.1:5555", [LINE]) for at in range(clients)
    ]


@contextmanager
def engine(backend: Backend) -> Iterator[Committing]:
    backend.open()

    def commit(clients: int, times: int) -> None:
        for _ in range(times):
            backend.commit(batches(clients))

    try:
        yield commit
    finally:
        backend.close()


@contextmanager
def raw(cluster: Cluster) -> Iterator[Committing]:
    """Publish with nats-py alone, in a loop that does nothing else."""
    loop = asyncio.new_event_loop()
    servers = [f"nats://{node.at}" for node in cluster.nodes]
    client = loop.run_until_complete(nats.connect(servers))
    stream = client.jetstream()
    boot = os.urandom(6).hex()
    number = iter(range(1 << 60))

    async def publish(clients: int, times: int) -> None:
        for _ in range(times):
            payload = packed(batches(clients))
            headers = {"Nats-Msg-Id": f"{boot}-{next(number)}"}
            await stream.publish("LINES.l", payload, headers=headers)

    try:
        yield lambda clients, times: loop.run_until_complete(publish(clients, times))
    finally:
        loop.run_until_complete(client.close())
        loop.close()


@contextmanager
def servers(count: int, store: str) -> Iterator[list[str]]:
    """Start servers on one store; give where they listen."""
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            command = [str(SCRIPTS / "twistd"), "-n", "--pidfile=", "sockservice"]
            command += ["--store", store, "--listen", "ack@tcp:0:interface=127.0.0.1"]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.terminate)
            assert process.stdout is not None
            for line in process.stdout:
                if listening := re.search(r"ack listening on tcp:(\S+)", line):
                    found.append(listening[1])
                    break
            # Or it would wait for somebody to read on.
            Thread(target=process.stdout.read, daemon=True).start()
        yield found


def loaded(at: list[str], seconds: float) -> float:
    """Have clients load all servers at once; give the lines a second in all."""
    command = [str(SCRIPTS / "sockservice"), "bench", "--json", "--warmup", "0.5"]
    command += ["-c", str(SHARED // len(at)), "-d", str(seconds), "-s", str(len(LINE))]
    benches = [subprocess.Popen([*command, each], stdout=subprocess.PIPE, text=True) for each in at]
    return sum(float(json.loads(each.communicate()[0])["perSecond"]) for each in benches)


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="Of each measurement, about.")
def main(rounds: int, seconds: float) -> None:
    """Measure, and print lines a second and ratios."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cluster = Cluster(Path(folder) / "nodes", space="4G")
        stack.callback(cluster.stop)
        cluster.start()
        place = parsed(cluster.url(options="create&max_bytes=2G"))
        contestants = {
            "SQLite": stack.enter_context(engine(SQLite(str(Path(folder) / "lines.db")))),
            "NATS": stack.enter_context(engine(JetStream(place))),
            "raw nats-py": stack.enter_context(raw(cluster)),
        }
        found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(rounds):
            for clients in CLIENTS:
                for name, commit in contestants.items():
                    times, taken = 8, 0.0
                    while taken < seconds:
                        begun = perf_counter()
                        commit(clients, times)
                        passed = perf_counter() - begun
                        taken += passed
                        found[name, clients].append(clients * times / passed)
            for name, count, store in (
                ("SQLite", 1, f"sqlite:{folder}/served.db"),
                *((f"NATS, {count}", count, cluster.url()) for count in SERVERS),
            ):
                with servers(count, store) as at:
                    found[name, 0].append(loaded(at, seconds))
            click.echo(f"round {number + 1} of {rounds}", err=True)
        for clients in CLIENTS:
            rates = {name: median(found[name, clients]) for name in contestants}
            said = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
            click.echo(
                f"{clients:>3} lines a commit: {said} lines/s; NATS is "
                f"{rates['NATS'] / rates['raw nats-py']:.2f} of raw nats-py, "
                f"{rates['NATS'] / rates['SQLite']:.2f} of SQLite"
            )
        one = median(found["SQLite", 0])
        click.echo(f"{SHARED} clients: SQLite {one:,.0f} lines/s")
        for count in SERVERS:
            rate = median(found[f"NATS, {count}", 0])
            click.echo(
                f"{SHARED} clients: NATS, {counted(count, 'server')} {rate:,.0f} lines/s, "
                f"{rate / one:.2f} of SQLite"
            )


if __name__ == "__main__":
    sys.exit(main())
