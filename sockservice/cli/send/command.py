"""`sockservice send`: its options, and its start."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from sockservice.cli.connecting import NotConnected, Stopping
from sockservice.cli.options import framed, rated, refusing, seconds, sessionName, timed
from sockservice.cli.reaching import targeted
from sockservice.cli.react import react
from sockservice.cli.send import prompt
from sockservice.cli.send.conversation import Conversation
from sockservice.cli.send.display import Display
from sockservice.cli.send.followed import ship
from sockservice.cli.send.headed import heading
from sockservice.cli.send.muted import Muted
from sockservice.cli.send.output import ReplyWriter
from sockservice.cli.send.resuming import Resuming, Sifted
from sockservice.cli.send.retrying import Retrying
from sockservice.cli.send.sending import Again, Sending
from sockservice.cli.send.source import Given, Input, LineSource
from sockservice.cli.send.spooled import Spooled, Spooling, inMemory, spoolAt
from sockservice.cli.send.typed import Typed
from sockservice.cli.send.unacked import Unacked
from sockservice.cli.send.window import DATAGRAMS
from sockservice.cli.signals import catch
from sockservice.cli.status import SIGNALS, USAGE, end, interrupted, leave
from sockservice.cli.text import tell
from sockservice.client.failover import separated
from sockservice.client.reliable import LINES
from sockservice.client.spool.spool import LEAST
from sockservice.client.targets import connect, framingOf, isDatagram
from sockservice.wire.chunks import Chunks
from sockservice.wire.framer import Framer
from sockservice.wire.framing import CRLF, LF, Framing


def _path(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not value:
        raise click.BadParameter("no name of a file")
    if value == "-":
        raise click.BadParameter("standard output is for the replies; name a file")
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
    "--retry-for",
    type=float,
    callback=seconds,
    metavar="SECONDS",
    help="Retry, and give up when no reply has come for so long since the first failure.",
)
@click.option(
    "--retry-times",
    type=click.IntRange(0),
    metavar="N",
    help="Retry, and give up when so many further attempts in a row have brought no reply.",
)
@click.option(
    "--session",
    metavar="NAME",
    callback=sessionName,
    help="Store each line exactly once, in order, at a session listener: what is stored of the "
    "session NAME is passed over. Implies --retry.",
)
@click.option(
    "--continue",
    "continuing",
    is_flag=True,
    help="The input goes on where the session ends, as that of a live source does.",
)
@click.option(
    "--session-new", "new", is_flag=True, help="Only if nothing is stored of the session."
)
@click.option(
    "--resend",
    is_flag=True,
    help="If the server has lost lines that it had acknowledged, since its store was restored "
    "from a copy, read the input again and send them.",
)
@click.option(
    "--follow",
    metavar="FILE",
    help="Send what is in this log file and what is written to it, through rotation and for ever, "
    "in the session NAME:FILE: the same as ship.",
)
@click.option(
    "--spool",
    metavar="DIR",
    help="Keep what is read in files in DIR until it is stored, exactly once, at a session "
    "listener: it survives the end of this process and of the system. Implies --retry.",
)
@click.option(
    "--spool-limit",
    type=click.IntRange(LEAST),
    default=2**30,
    show_default=True,
    metavar="BYTES",
    help="Most bytes in DIR; when they are reached, nothing more is read.",
)
@click.option(
    "--unacked",
    metavar="FILE",
    callback=_path,
    help="Add the lines that were not acknowledged to this file, if there are any.",
)
@refusing()
@timed(30.0, "Seconds to wait for the next reply.")
@rated("Send at most so many lines a second.")
@click.option("--crlf", is_flag=True, help="End lines in CRLF, not LF.")
@framed(
    "chunks: send without line endings and take what comes back at once for the reply, "
    "as naive servers do; one line in flight."
)
@heading
@click.option("--quiet", "-q", is_flag=True, help="Print refusals only.")
@click.option("--json", "asJson", is_flag=True, help="Print each reply as an object; then a sum.")
@targeted
@click.argument("lines", nargs=-1)
def send(
    target: str,
    lines: tuple[str, ...],
    files: tuple[str, ...],
    retry: bool,
    retry_for: float | None,
    retry_times: int | None,
    session: str | None,
    continuing: bool,
    new: bool,
    resend: bool,
    follow: str | None,
    spool: str | None,
    spool_limit: int,
    refusals: tuple[bytes, ...],
    unacked: str | None,
    timeout: float,
    rate: float | None,
    crlf: bool,
    framing: Callable[[int], Framing],
    header: Callable[[LineSource], LineSource] | None,
    quiet: bool,
    asJson: bool,
    how: dict[str, Any],
) -> None:
    """Send LINES, or the lines of standard input, to TARGET and print each reply.

    On a terminal the lines are typed at a prompt: Ctrl-D sends the end and shows the
    replies still due, Ctrl-C leaves. A line nobody asked for is marked `*`.

    TARGET is tcp:HOST:PORT, or just HOST:PORT; tls:HOST:PORT, relp:HOST:PORT (RELP over
    TCP), unix:PATH, unix-seqpacket:PATH; udp:HOST:PORT or unix-datagram:PATH (each line
    is a datagram); or a client endpoint string of Twisted's. Of several, which commas
    separate, one is used, and when it fails the next.

    Exit status: 0 every line was acknowledged; 1 some were refused or have no reply;
    2 usage; 3 could not connect; 4 a reply did not come in time; 130 interrupted, 143
    terminated, 129 hung up. If it is not 0, one line on stderr says what happened.
    """
    if follow is not None:
        ship(target, follow, session, timeout, rate, asJson, how)
        return
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
    several = separated(target)
    datagrams = any(map(isDatagram, several))
    inSession = session is not None or spool is not None
    retry = retry or retry_for is not None or retry_times is not None or inSession
    if datagrams and (retry or len(several) > 1):
        what = "--retry is" if retry else "several targets are"
        if inSession:
            what = "--session is" if spool is None else "--spool is"
        raise click.UsageError(f"{what} for connections, and datagrams have none")
    fromInput = not given and (not files or "-" in files)
    if unacked is not None and _isRead(unacked, files, fromInput):
        raise click.UsageError(f"lines are read from {unacked}; name another file for --unacked")

    if not inSession and (continuing or new or resend):
        raise click.UsageError("--continue, --session-new and --resend are for --session NAME")
    if inSession and how["greeting"]:
        raise click.UsageError("--greeting is not for sessions")
    if inSession and framing is not Framer:
        raise click.UsageError("a session has lines; it can't be had with --framing")
    mute = getattr(framingOf(several[0]) or framing, "mute", False)
    if mute and datagrams:
        raise click.UsageError("a datagram is a message, and has no --framing octet-counted")
    # RFC 5426 has no replies either.
    mute = mute or (datagrams and header is not None)
    if mute and (retry or unacked or len(several) > 1):
        what = "--retry" if retry else "--unacked" if unacked else "a choice of targets"
        raise click.UsageError(f"{what} needs replies, and syslog has none")
    if inSession and header is not None:
        raise click.UsageError("--syslog writes the time, so lines of a session would never agree")
    if spool is not None and (new or resend or unacked is not None):
        which = "--session-new" if new else "--resend" if resend else "--unacked"
        raise click.UsageError(f"{which} is not for --spool, which keeps all that is not stored")
    if resend and fromInput:
        raise click.UsageError("--resend reads the input again: give it as --file")

    most = 1 if framing is Chunks else DATAGRAMS if datagrams else LINES
    how.update(framing=framing, ending=CRLF if crlf else LF)
    typed = fromInput and sys.stdin.isatty()
    prompted = typed and not files and sys.stdout.isatty() and spool is None
    options = retry or unacked or rate or quiet or asJson or len(several) > 1 or mute or header
    if prompted:
        prompt.install()

    async def stream(reactor: Any) -> tuple[int, str]:
        terminal = prompt.terminal(reactor) if prompted else None
        source: LineSource
        spooled: Spooled | None = None
        display = Display(ReplyWriter(quiet, asJson, terminal), terminal, typed)
        if spool is not None:
            read = [inMemory(given)] if given else _opened(files)
            kept = spoolAt(spool, spool_limit, session, read)
            source = spooled = Spooled(reactor, kept, read, display.say)
        elif terminal is not None:
            source = typing = Typed(terminal)
        else:
            source = Given(given) if given else Input(reactor, _opened(files))
        sifted = Sifted(source)
        if session is not None and spooled is None:
            source = sifted
        if header is not None:
            source = header(source)
        sending = (Muted if mute else Sending)(
            reactor,
            target,
            source,
            display,
            Unacked(unacked),
            timeout=timeout,
            rate=rate,
            most=most,
            refusals=refusals,
        )
        (spooled or sifted).refused = sending.long
        if terminal is not None:
            typing.left = sending.left
        for number in (*SIGNALS, signal.SIGQUIT):
            catch(reactor, number, sending, ends=number in SIGNALS)
        if retry or len(several) > 1:
            trying: dict[str, Any] = {**how, "connectTimeout": how["timeout"]}
            del trying["timeout"]
            trying.update(retryFor=retry_for, retryTimes=retry_times if retry else 0)
            made: Callable[..., Retrying] = partial(Retrying, reactor, several, **trying)
            if spooled is not None:
                made = partial(Spooling, reactor, several, spooled, continuing=continuing, **trying)
            elif session is not None:
                made = partial(
                    Resuming,
                    reactor,
                    several,
                    session,
                    sifted,
                    continuing=continuing or typed,
                    resend=resend,
                    new=new,
                    **trying,
                )
            try:
                return await sending.retry(made)
            finally:
                if spooled is not None:
                    await spooled.close()
        return await sending.run(partial(connect, reactor, target, **how))

    async def again(reactor: Any) -> tuple[int, str]:
        while True:
            try:
                return await stream(reactor)
            except Again as why:
                tell(f"{why}; sending them again")

    async def talk(reactor: Any) -> tuple[int, str]:
        stopping = Stopping(reactor)
        client = await stopping.connected(target, how)
        terminal = prompt.terminal(reactor)
        conversation = Conversation(reactor, client, terminal, timeout, most, refusals)
        stopping.ended, stopping.quit = conversation.end, conversation.tell
        return await conversation.run()

    async def run(reactor: Any) -> None:
        try:
            status, said = await (talk if prompted and not options else again)(reactor)
        except NotConnected as problem:
            status, said = problem.status, problem.why
        leave(status, said)

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
        except KeyboardInterrupt as problem:
            # Opening a FIFO waits for its writer.
            status, why = interrupted(problem)
            end(status, f"{path}: {why}")
    return opened


def _isRead(path: str, files: tuple[str, ...], fromInput: bool) -> bool:
    """Return whether lines come from the file that is at `path`."""
    if not os.path.exists(path):
        return False
    kept = os.stat(path)
    read = [os.stat(each) for each in files if each != "-"]
    if fromInput:
        read.append(os.fstat(sys.stdin.fileno()))
    return any(os.path.samestat(kept, each) for each in read)
