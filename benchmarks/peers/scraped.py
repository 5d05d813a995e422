"""The service with a status page, which another process scrapes once a second."""

import ctypes
import os
import signal
import socket
import sys
import time

PATH = "status.s"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PR_SET_PDEATHSIG = 1


def scrape() -> None:
    """Read the metrics each second, on another core than the service's if there is one."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(0, others)
    while True:
        with socket.socket(socket.AF_UNIX) as made:
            try:
                made.connect(PATH)
                made.sendall(REQUEST)
                while made.recv(65536):
                    pass
            except OSError:
                # It starts, or has ended.
                time.sleep(0.01)
                continue
        time.sleep(1)


def main() -> None:
    if not os.fork():
        scrape()
    command = [*sys.argv[1:], "--status", f"unix:{PATH}"]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
