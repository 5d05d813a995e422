"""`sockservice send`: its options, and its start."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from sockservice.cli.completion import targets
from sockservice.cli.connecting import NotConnected, connectedBeforeStop
from sockservice.cli.options import framed, inSeconds, seconds, targeted
from sockservice.cli.react import react
from sockservice.cli.send import prompt
from sockservice.cli.send.output import ReplyWriter
from sockservice.cli.send.sending import DATAGRAMS, SIGNALS, Sending
from sockservice.cli.send.source import Given, Input
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.status import SIGNALLED, USAGE, end
from sockservice.client.reliable import LINES
from sockservice.client.targets import connect, isDatagram
from sockservice.wire.chunks import Chunks
from sockservice.wire.framing import CRLF, LF, Framing


def _path(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not value:
        raise click.BadParameter("no name of a file")
    folder = os.path.dirname(os.path.realpath(value))
    if os.path.exists(value) and not os.path.isfile(value):
        raise click.BadParameter(f"{value} is no regular file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"nothing can be written in {folder}")
    return value


@click.command()
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="Send the lines of this file, - for standard input; may be given several times.",
)
@click.option("--retry", is_flag=True, help="Connect again, and send again what has no reply.")
@click.option(
    "--unacked",
    metavar="FILE",
    callback=_path,
    help="Write the lines that were not acknowledged here, if there are any.",
)
@inSeconds("--timeout", 30.0, "Seconds to wait for the next reply.")
@click.option("--rate", type=float, callback=seconds, help="Send at most so many lines a second.")
@click.option("--crlf", is_flag=True, help="End lines in CRLF, not LF.")
@framed(
    "chunks: send without line endings and take what comes back at once for the reply, "
    "as naive servers do; one line in flight."
)
@click.option("--quiet", is_flag=True, help="Print refusals only.")
@click.option("--json", "asJson", is_flag=True, help="Print each reply as an object; then a sum.")
@targeted
@click.argument("target", shell_complete=targets)
@click.argument("lines", nargs=-1)
def send(
    target: str,
    lines: tuple[str, ...],
    files: tuple[str, ...],
    retry: bool,
    unacked: str | None,
    timeout: float,
    rate: float | None,
    crlf: bool,
    framing: Callable[[int], Framing],
    quiet: bool,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Send LINES, or the lines of standard input, to TARGET and print each reply.

    On a terminal the lines are typed at a prompt: Ctrl-D sends the end and shows the
    replies still due, Ctrl-C leaves. A line nobody asked for is marked `*`.

    TARGET is tcp:HOST:PORT, or just HOST:PORT; tls:HOST:PORT, unix:PATH,
    unix-seqpacket:PATH; udp:HOST:PORT or unix-datagram:PATH (each line is a
    datagram); or a client endpoint string of Twisted's. A reply that begins with
    `error ` is a refusal.

    Exit status: 0 every line was acknowledged; 1 some were refused or have no reply;
    2 usage; 3 could not connect; 4 a reply did not come in time; 130 interrupted, 143
    terminated, 129 hung up. If it is not 0, one line on stderr says what happened.
    """
    given = [os.fsencode(line) for line in lines]
    if any(b"\n" in line for line in given):
        raise click.UsageError(
            "a line holds no line feed; give each line as an argument of its own"
        )
    if given and files:
        raise click.UsageError("give lines as arguments or in files, not both")
    if not given and (not files or "-" in files) and sys.stdin is None:
        raise click.UsageError("standard input is closed; give lines as arguments")
    if sys.stdout is None:
        raise click.UsageError("standard output is closed; there is nowhere to write replies to")
    ending = CRLF if crlf else LF
    if retry and isDatagram(target):
        raise click.UsageError("--retry is for connections, and datagrams have none")

    most = 1 if framing is Chunks else DATAGRAMS if isDatagram(target) else LINES
    how.update(framing=framing, ending=ending)
    pipe = given or files or retry or unacked or rate or quiet or asJson
    typed = not pipe and sys.stdin.isatty() and sys.stdout.isatty()
    if typed:
        prompt.install()

    async def stream(reactor: Any) -> tuple[int, str]:
        source = Given(given) if given else Input(reactor, _opened(files))
        sending = Sending(
            reactor,
            target,
            source,
            ReplyWriter(1, quiet, asJson),
            Unacked(unacked),
            timeout=timeout,
            rate=rate,
            most=most,
        )
        for number in SIGNALS:
            _catch(reactor, number, sending)
        if retry:
            return await sending.retry(how)
        return await sending.run(partial(connect, reactor, target, **how))

    async def talk(reactor: Any) -> tuple[int, str]:
        client = await connectedBeforeStop(reactor, target, how)
        return await prompt.converse(reactor, client, timeout, most)

    async def run(reactor: Any) -> None:
        try:
            status, said = await (talk if typed else stream)(reactor)
        except NotConnected as problem:
            status, said = problem.status, problem.why
        except ValueError as problem:
            status, said = USAGE, f"{target}: {problem}"
        end(status, said)

    react(run)


def _opened(files: tuple[str, ...]) -> list[tuple[str, int]]:
    opened = []
    for path in files or ("-",):
        if path == "-":
            opened.append(("standard input", sys.stdin.fileno()))
            continue
        try:
            opened.append((path, os.open(path, os.O_RDONLY)))
        except OSError as problem:
            end(USAGE, f"{path}: {problem.strerror}")
        except KeyboardInterrupt:
            # Opening a FIFO waits for its writer.
            end(SIGNALLED + signal.SIGINT, f"{path}: interrupted")
    return opened


def _catch(reactor: Any, number: signal.Signals, sending: Sending) -> None:
    """Let the first such signal end sending in good order, and the second at once."""
    # The parent may want it ignored (nohup, `&` in a script).
    if signal.getsignal(number) is signal.SIG_IGN:
        return

    def received(_: int, __: object) -> None:
        for each in SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        sending.signalled(number)

    signal.signal(number, received)
    # Again, once the reactor has installed its own handlers.
    reactor.callWhenRunning(signal.signal, number, received)
