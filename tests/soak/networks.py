"""A network of two hosts that can be cut, in a namespace; it needs root."""

import os
import shutil
import subprocess
from pathlib import Path

#: Of the test networks (RFC 5737).
HERE, THERE = "198.51.100.1", "198.51.100.2"
#: What the way there and back is like, beside being cut.
LIKE = ("delay", "20ms", "5ms", "loss", "2%")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else f"{' '.join(command[:3])}: {done.stderr.strip()}"


class Network:
    """A link to a namespace, in which commands are run as on another host."""

    def __init__(self) -> None:
        self._name = f"soak{os.getpid()}"
        self._here, self._there = f"sk{os.getpid()}a", f"sk{os.getpid()}b"
        #: Why packets are neither lost nor late before the link is cut, if so.
        self.perfect = ""

    def make(self) -> str:
        """Make it; give the reason if that can't be."""
        if os.geteuid():
            return "only root can make a network namespace"
        if missing := [one for one in ("ip", "tc") if shutil.which(one) is None]:
            return f"{' and '.join(missing)} not installed (iproute2)"
        name, here, there = self._name, self._here, self._there
        inside = ("ip", "-n", name)
        problem = (
            _run("ip", "netns", "add", name)
            or _run("ip", "link", "add", here, "type", "veth", "peer", there, "netns", name)
            or _run("ip", "address", "add", f"{HERE}/30", "dev", here)
            or _run("ip", "link", "set", here, "up")
            or _run(*inside, "address", "add", f"{THERE}/30", "dev", there)
            or _run(*inside, "link", "set", "lo", "up")
            or self.mend()
        )
        if problem:
            self.remove()
            return problem
        self.perfect = _run("tc", "qdisc", "add", "dev", here, "root", "netem", *LIKE) or _run(
            *self.on(), "tc", "qdisc", "add", "dev", there, "root", "netem", *LIKE
        )
        return ""

    def on(self) -> tuple[str, ...]:
        """Return the words in front of a command that is to run on the other host."""
        return (str(shutil.which("ip")), "netns", "exec", self._name)

    def cut(self) -> str:
        """Let nothing through any more; neither side is told."""
        return _run("ip", "-n", self._name, "link", "set", self._there, "down")

    def mend(self) -> str:
        """Let everything through."""
        return _run("ip", "-n", self._name, "link", "set", self._there, "up")

    def remove(self) -> None:
        """Remove what was made of it."""
        if Path(f"/run/netns/{self._name}").exists():
            _run("ip", "netns", "delete", self._name)
        # With the namespace goes its end of the link, and with that the other one.
