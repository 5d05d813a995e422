"""ncat, which starts a process of its own for each connection: `sed` answers the lines."""

import os

from benchmarks.peers.free import free_port

if __name__ == "__main__":
    address = ("127.0.0.1", str(free_port()))
    command = ["ncat", "--listen", "--keep-open", "--verbose", "--max-conns", "4096"]
    os.execvp("ncat", [*command, "--exec", "/bin/sed -u s/.*/ok/", *address])
