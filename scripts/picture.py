"""Draw docs/pictures/prompt.svg: what a terminal shows of a session at the prompt.

The session is real: `sockservice send` runs on a terminal against a service of its own.

    .venv/bin/python scripts/picture.py [FILE]
"""

import os
import re
import select
import subprocess
import sys
import tempfile
import termios
from contextlib import ExitStack
from html import escape
from pathlib import Path

FILE = Path(__file__).parent.parent / "docs" / "pictures" / "prompt.svg"
BIN = Path(sys.executable).parent
ROWS, COLUMNS = 14, 64
PATIENCE = 60.0
# What is typed, and what the screen shows when it has been taken in.
TYPED = (
    ("hello\r", "> hello\nok\n> "),
    ("two lines\npasted at once\r", "at once\nok\nok\n> "),
    ("caf\u00e9\r", "> caf\u00e9\nok\n> "),
)
CONTROL = re.compile(r"\x1b\[\??(\d*)[\d;]*([A-Za-z])|\x1b[=>]|.", re.DOTALL)


def screen(printed: str) -> list[str]:
    """Give the lines that a terminal shows when it has got `printed`."""
    cells = [[" "] * COLUMNS for _ in range(ROWS)]
    row = column = 0
    for found in CONTROL.finditer(printed):
        many = int(found[1] or 1)
        match found[2] or found[0]:
            case "\r":
                column = 0
            case "\n":
                row += 1
            case "\b":
                column -= 1
            case "A" if found[2]:
                row -= many
            case "B" if found[2]:
                row += many
            case "C" if found[2]:
                column += many
            case "D" if found[2]:
                column -= many
            case "J" | "K" as below if found[2]:
                cells[row][column:] = [" "] * (COLUMNS - column)
                if below == "J":
                    cells[row + 1 :] = [[" "] * COLUMNS for _ in cells[row + 1 :]]
            case character if not found[2] and character.isprintable():
                cells[row][column] = character
                column += 1
    lines = ["".join(line).rstrip() for line in cells]
    return lines[: max((n for n, line in enumerate(lines, 1) if line), default=0)]


def session() -> list[str]:
    """Hold the session; give what the screen shows at its end."""
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        service = opened.enter_context(
            subprocess.Popen(
                [BIN / "twistd", "-n", "--pidfile=", "sockservice", "--port", "0"],
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        opened.callback(service.kill)
        assert service.stdout is not None
        port = next(
            found[1]
            for line in service.stdout
            if (found := re.search(r"ack listening on tcp:127\.0\.0\.1:(\d+)", line))
        )
        ours, theirs = os.openpty()
        opened.callback(os.close, ours)
        termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
        client = subprocess.Popen(
            [BIN / "sockservice", "send", f"127.0.0.1:{port}"],
            env=os.environ | {"TERM": "xterm", "LC_ALL": "C.UTF-8", "XDG_STATE_HOME": folder},
            preexec_fn=lambda: os.login_tty(theirs),
        )
        opened.enter_context(client)
        opened.callback(client.kill)
        os.close(theirs)
        printed = b""

        def until(end: str) -> None:
            nonlocal printed
            # The prompt is not shown with the space at its end.
            while not "\n".join(screen(printed.decode())).endswith(end.rstrip(" ")):
                assert select.select([ours], [], [], PATIENCE)[0], printed
                printed += os.read(ours, 65536)

        until("> ")
        for keys, shown in TYPED:
            # As a terminal tells that several lines are pasted.
            pasted = "\n" in keys
            os.write(ours, (f"\x1b[200~{keys[:-1]}\x1b[201~\r" if pasted else keys).encode())
            until(shown)
        service.terminate()
        until("closed the connection")
        return ["$ sockservice send 127.0.0.1:5555", *screen(printed.decode())]


def drawing(lines: list[str]) -> str:
    """Draw the lines of a terminal."""
    height = 18 * len(lines) + 52
    texts = "".join(
        f'<text x="16" y="{18 * number + 52}">{escape(line)}</text>\n'
        for number, line in enumerate(lines)
    )
    circles = "".join(
        f'<circle cx="{x}" cy="16" r="5.5" fill="{colour}"/>'
        for x, colour in ((20, "#e06c60"), (38, "#e0b84f"), (56, "#63b35c"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 {height}" width="600"'
        f' role="img" aria-label="A session at the prompt of sockservice send">\n'
        f'<rect width="600" height="{height}" rx="8" fill="#1d2129"/>{circles}\n'
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14"'
        ' fill="#dfe3ea" xml:space="preserve">\n'
        f"{texts}</g>\n</svg>\n"
    )


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else FILE).write_text(drawing(session()))
