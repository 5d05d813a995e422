"""Photograph the status page for docs/status.md, in Chromium, while a load of its own runs.

    .venv/bin/python scripts/screenshot.py [FILE]

It needs Debian's chromium and chromium-driver, and selenium.
"""

import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from itertools import count, takewhile
from pathlib import Path
from shutil import which
from threading import Event, Thread

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FILE = Path(__file__).parent.parent / "docs" / "pictures" / "status.png"
BIN = Path(sys.executable).parent
#: Seconds of load: enough for the charts to have a shape.
LOAD = 40
WIDTH, HEIGHT = 1000, 820


def started(folder: str, stack: ExitStack) -> tuple[int, int]:
    """Start a service with some of everything; give the ports of its lines and of its page."""
    command = [
        *(str(BIN / "twistd"), "-n", "--pidfile=", "sockservice", "--port", "0"),
        *("--workers", "2", "--store", "sqlite:lines.db", "--line-limit", "4096"),
        *("--max-connections-per-source", "60", "--status", "tcp:0:interface=127.0.0.1"),
    ]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    ports: dict[str, int] = {}
    while not {"ack", "page"} <= ports.keys():
        printed = process.stdout.readline().decode()
        if found := re.search(r"(\w+) listening on \S+:(\d+)$", printed):
            ports[found[1]] = int(found[2])
    return ports["ack"], ports["page"]


def load(port: int, stack: ExitStack, done: Event) -> None:
    """Send lines that are fine and some that are too long, on many connections, for a while."""
    peers = [
        stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        for _ in range(70)
    ]
    for turn in takewhile(lambda _: not done.is_set(), count()):
        for number, peer in enumerate(peers[:50]):
            if (turn + number) % 3 and (turn // 40 + number) % 7 < 4:
                lines = 1 + number * 3
                peer.sendall(b"a line of some log\n" * lines + b"x" * 5000 * (number == 4) + b"\n")
        for peer in peers[:50]:
            peer.setblocking(False)
            try:
                while peer.recv(65536):
                    pass
            except BlockingIOError:
                pass
            finally:
                peer.setblocking(True)
        time.sleep(0.1)


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lines, page = started(folder, stack)
        done = Event()
        loading = Thread(target=load, args=(lines, stack, done), daemon=True)
        loading.start()
        time.sleep(LOAD)
        options = webdriver.ChromeOptions()
        options.binary_location = which("chromium") or ""
        for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
            options.add_argument(f"--{each}")
        driver = webdriver.Chrome(options=options, service=Service(which("chromedriver")))
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(f"http://127.0.0.1:{page}/")
        time.sleep(3)
        driver.save_screenshot(str(file))
        driver.quit()
        done.set()
        loading.join()


if __name__ == "__main__":
    main()
