"""rsyslog as it must be set up for its RELP acknowledgement to survive a power failure.

With the argument `memory`, as it comes: what it has acknowledged is in its memory.
"""

import os
import socket
import sys
import time
from contextlib import suppress

from benchmarks.peers import rsyslog
from benchmarks.peers.free import free_port

MEMORY = """\
module(load="imrelp")
input(type="imrelp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{folder}/lines")
"""

# The queue on disk, its state written at every message, and both synced.
CONFIGURATION = """\
global(workDirectory="{folder}")
module(load="imrelp")
main_queue(
  queue.type="Disk"
  queue.filename="queue"
  queue.checkpointInterval="1"
  queue.syncQueueFiles="on"
)
input(type="imrelp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{folder}/lines")
"""


def announce(port: int) -> None:
    """Wait until the port is served; rsyslog does not say so."""
    while os.path.exists(f"/proc/{server}"):
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            print(f"listening on 127.0.0.1:{port}", flush=True)
            return
        time.sleep(0.02)


if __name__ == "__main__":
    folder, port, server = os.getcwd(), free_port(), os.getpid()
    with open("rsyslog.conf", "w") as configuration:
        wanted = MEMORY if "memory" in sys.argv else CONFIGURATION
        configuration.write(wanted.format(folder=folder, port=port))
    # rsyslog takes this process's place, since it is this process that is measured; with its
    # children, so that who announces it must be none of them.
    if child := os.fork():
        os.waitpid(child, 0)
        program = rsyslog.program()
        pidfile = f"{folder}/rsyslog.pid"
        os.execv(program, [program, "-n", "-f", f"{folder}/rsyslog.conf", "-i", pidfile])
    elif not os.fork():
        announce(port)
