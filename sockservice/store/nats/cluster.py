"""Three nodes on this machine, for trials and tests: `python -m sockservice.store.nats.cluster`."""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

#: Seconds until a node has to be there.
READY = 30.0

_CONFIG = """\
server_name: {name}
listen: {host}:{port}
http: {host}:{monitor}
jetstream {{
    store_dir: "{folder}"
    # Without it what is acknowledged is on disk two minutes later.
    sync_interval: always
    max_mem: 16M
    max_file: {space}
}}
"""
_ROUTES = """\
cluster {{
    name: {cluster}
    listen: {host}:{route}
    routes: [{routes}]
}}
"""


def program() -> str:
    """Return the path of nats-server.

    :raises FileNotFoundError: There is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("there is no nats-server: pip install 'sockservice[nats]'")
    return found


class Node:
    """A server; `folder` holds its configuration, what it stores, and its log."""

    def __init__(
        self, name: str, folder: Path, host: str, port: int, monitor: int, within: Sequence[str]
    ) -> None:
        self.name = name
        self.folder = folder
        self.at = f"{host}:{port}"
        self.monitor = f"http://{host}:{monitor}"
        self._within = within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of its process.

        :raises ProcessLookupError: It does not run.
        """
        if self._process is None:
            raise ProcessLookupError(self.name)
        return self._process.pid

    def start(self) -> None:
        """Start it; it may take a while to be ready."""
        with (self.folder / "log").open("ab") as written:
            self._process = subprocess.Popen(
                [*self._within, program(), "-c", str(self.folder / "config")],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                # Ctrl-C is for who started this, which stops it then.
                start_new_session=True,
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; if it is one that ends it, wait for that."""
        if self._process is not None:
            self._process.send_signal(number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self._process.wait()
                self._process = None

    def ready(self) -> bool:
        """Say whether it serves, and has caught up with the others."""
        try:
            with urlopen(f"{self.monitor}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Cluster:
    """So many nodes on free ports of this machine, which keep all in `folder`.

    `hosts` are the addresses that they listen at, `within` what their commands begin with, such
    as `ip netns exec NAME`.
    """

    def __init__(
        self,
        folder: Path,
        count: int = 3,
        space: str = "1G",
        hosts: Sequence[str] = (),
        within: Sequence[Sequence[str]] = (),
    ) -> None:
        hosts = hosts or ["127.0.0.1"] * count
        within = within or [()] * count
        self._reserved = _reserved(3 * count)
        ports = (each.getsockname()[1] for each in self._reserved)
        named = [
            (f"n{number}", host, next(ports), next(ports), next(ports))
            for number, host in enumerate(hosts, 1)
        ]
        routes = ", ".join(f"nats://{host}:{route}" for _, host, _, _, route in named)
        self.nodes = []
        for (name, host, port, monitor, route), before in zip(named, within, strict=True):
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            text = _CONFIG.format(
                name=name, host=host, port=port, monitor=monitor, folder=place / "data", space=space
            )
            if count > 1:
                text += _ROUTES.format(cluster="trial", host=host, route=route, routes=routes)
            (place / "config").write_text(text)
            self.nodes.append(Node(name, place, host, port, monitor, before))

    def url(self, stream: str = "LINES", options: str = "create&max_bytes=64M") -> str:
        """Return the name of a store in it."""
        nodes = ",".join(node.at for node in self.nodes)
        monitors = ",".join(node.monitor for node in self.nodes)
        replicas = "" if len(self.nodes) > 1 else "&replicas=1"
        return f"nats://{nodes}/{stream}?{options}&monitor={monitors}{replicas}".replace("?&", "?")

    def node(self, name: str) -> Node:
        """Return a node by its name."""
        return next(node for node in self.nodes if node.name == name)

    def start(self) -> None:
        """Start all nodes, and wait until all are ready.

        :raises TimeoutError: They are not.
        """
        for node in self.nodes:
            node.start()
        until = time.monotonic() + READY
        while not all(node.ready() for node in self.nodes):
            if time.monotonic() > until:
                raise TimeoutError(f"the nodes are not ready; see {self.nodes[0].folder / 'log'}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop what was started, and leave its ports to others."""
        for node in self.nodes:
            node.kill(signal.SIGCONT)
            node.kill()
        for each in self._reserved:
            each.close()


def _reserved(count: int) -> list[socket.socket]:
    """Take ports of which nodes listen, as they all set SO_REUSEADDR (socket(7)), and nobody else.

    Whether or not a node runs: for another program that asks for any they are not free.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        stack.pop_all()
    return sockets


def main() -> None:
    """Run three nodes until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m sockservice.store.nats.cluster")
    parser.add_argument("--folder", help="keep what is stored here; without it, it is removed")
    parser.add_argument("--nodes", type=int, default=3, choices=(1, 3, 5))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        if given.folder is None:
            given.folder = stack.enter_context(tempfile.TemporaryDirectory())
        cluster = Cluster(Path(os.path.abspath(given.folder)), given.nodes)
        stack.callback(cluster.stop)
        try:
            cluster.start()
            for node in cluster.nodes:
                print(
                    f"{node.name} listening on {node.at}, pid {node.pid}, monitoring "
                    f"at {node.monitor}",
                    flush=True,
                )
            (Path(given.folder) / "url").write_text(cluster.url())
            print(f"--store '{cluster.url()}'", flush=True)
            signal.pause()
        except KeyboardInterrupt:
            pass
        except (OSError, TimeoutError) as problem:
            sys.exit(str(problem))


if __name__ == "__main__":
    main()
