"""What several test modules share: the reactors, the log, and child processes.

An async test runs in the installed reactor, in real time, PATIENCE seconds at most: what it
waits for is awaited. Where a test moves time itself, it has a clock or the reactor that is
turned by hand.
"""

import gc
import inspect
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from functools import wraps
from pathlib import Path
from threading import RLock
from time import monotonic
from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.application.service import MultiService
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from sockservice.daemon.options import Options
from sockservice.daemon.service import makeService
from sockservice.store.nats.cluster import Cluster
from sockservice.store.nats.place import Place, parsed
from tests.certificates import Identity
from tests.doubles import Outcome
from tests.ports import deaf, reserved

#: Seconds after which a thing that was to happen has not happened: many, for others may have the
#: processors, and nothing waits for so long that does happen.
PATIENCE = 60.0

#: The modules that take longest, of those where the number of processes does not tell.
LONGEST = ("test_docs.py", "test_site.py", "test_rsyslog.py", "test_benchmarks.py")

# The same examples each time: a red run can be repeated.
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def pytest_configure() -> None:
    """Hear the signals that some tests send, though whoever runs them ignores them.

    As `nohup` does, and a script whose command ends with `&`; the service keeps to that. And
    commands take no notice of the settings of whoever runs the tests.
    """
    for variable in [each for each in os.environ if each.startswith("SOCKSERVICE_")]:
        del os.environ[variable]
    os.environ["SOCKSERVICE_CONFIG"] = os.devnull
    # Nor of how wide a terminal is that they don't have; and streams are buffered, as they are
    # wherever nobody has said otherwise.
    for variable in ("COLUMNS", "LINES", "PYTHONUNBUFFERED"):
        os.environ.pop(variable, None)
    # Hundreds of processes are started: none compiles anew what another has compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for each in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine", help="a store's engine to test, too: see tests/store/test_store.py"
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of NATS, the same for all tests; whoever kills one has to start it again."""
    pytest.importorskip("nats", reason="the extra nats is not installed")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    finally:
        made.stop()


def emptied(place: Place) -> None:
    """Make the stream of `place` anew."""
    from sockservice.store.nats.engine import JetStream
    from sockservice.store.nats.link import NoAnswer, NodeLink

    link = NodeLink(place)
    link.open()
    try:
        while True:
            # Nodes that were killed may still elect a leader.
            with suppress(NoAnswer):
                told = link.call(link.ask(f"STREAM.DELETE.{place.stream}"))
                if told.get("success") or told["error"].get("code") == 404:
                    break
    finally:
        link.close()
    made = JetStream(place)
    made.open()
    made.close()


@pytest.fixture
def stream(cluster: Cluster) -> Place:
    """An empty stream in it, which others use before and after."""
    place = parsed(cluster.url("TESTS"))
    emptied(place)
    return place


Reactor = PosixReactorBase

#: The reactor that pytest-twisted runs; `running` puts another one in its place for a while.
REACTOR = cast(Reactor, installed)


def patient(test: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """Have an async test or the end of a fixture fail after PATIENCE seconds."""

    def fail(value: Any, patience: float) -> None:
        raise AssertionError(f"it did not come in {patience} seconds") from value.value

    @wraps(test)
    def bounded(*args: Any, **kwargs: Any) -> Deferred[Any]:
        running = Deferred.fromCoroutine(test(*args, **kwargs))
        return running.addTimeout(PATIENCE, REACTOR, fail)

    return bounded


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every async test in the reactor, with its time limited; what takes long comes first.

    Modules whose tests start processes are long, and the last one has no other beside it.
    """
    starting = Counter(
        item.path
        for item in items
        if {"children", "service"} & {*getattr(item, "fixturenames", ())}
    )
    items.sort(key=lambda item: (item.path.name not in LONGEST, -starting[item.path]))
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = pytest_twisted.ensureDeferred(patient(item.obj))


async def until(come: Callable[[], object]) -> None:
    """Leave the reactor to turn until `come` says so; the test's time is limited."""
    while not come():
        await deferLater(REACTOR, 0.001)


def turn() -> Deferred[None]:
    """Fire in the reactor's next turn."""
    return deferLater(REACTOR, 0, lambda: None)


async def failure(deferred: Deferred[Any]) -> BaseException:
    """Wait until `deferred` fails; give the exception."""
    outcome = Outcome(deferred)
    await until(lambda: outcome.came)
    return outcome.error


async def received(peer: socket.socket, size: int | None = None) -> bytes:
    """Give `size` bytes that `peer` receives, or without a size all to the end of the stream."""
    arriving = Arriving(peer, size)
    await until(arriving.come)
    return bytes(arriving.data)


class Arriving:
    """What a socket receives, so many bytes or to the end of the stream, while others run."""

    def __init__(self, peer: socket.socket, size: int | None) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._size = size
        self.data = bytearray()

    def come(self) -> bool:
        """Take what is there; say whether it is all."""
        while self._size is None or len(self.data) < self._size:
            try:
                piece = self._peer.recv(
                    65536 if self._size is None else self._size - len(self.data)
                )
            except BlockingIOError:
                return False
            if not piece:
                return True
            self.data.extend(piece)
        return True


def answers() -> dict[int, Any]:
    """What is done at the signals that services take."""
    return {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}


def busy() -> set[Any]:
    """What the installed reactor has to do."""
    return {*REACTOR.getDelayedCalls(), *REACTOR.getReaders(), *REACTOR.getWriters()}


def tidy(before: set[Any]) -> None:
    """Take away what the installed reactor did not have to do before; fail if there is any."""
    left = busy() - before
    for each in left:
        if each in REACTOR.getDelayedCalls():
            each.cancel()
        else:
            REACTOR.removeReader(each)
            REACTOR.removeWriter(each)
    assert not left, f"left in the reactor: {left}"


@pytest_twisted.async_yield_fixture(autouse=True)
async def clean() -> AsyncIterator[None]:
    """Fail a test that leaves timers, readers or writers in the installed reactor.

    Or another answer to a signal: a process that it starts would ignore what it ignores.
    """

    before, answered = busy(), answers()
    yield
    # What was closed goes in the reactor's next turns.
    for _ in range(2):
        await turn()
    tidy(before)
    assert answers() == answered


@pytest.fixture
def real() -> Reactor:
    """The installed reactor, for async tests."""
    return REACTOR


@pytest_twisted.async_yield_fixture
async def ending() -> AsyncIterator[AsyncExitStack]:
    """Close and await at the end what is entered here, in the installed reactor."""
    stack = AsyncExitStack()
    yield stack
    await patient(stack.aclose)()


class HandReactor(SelectReactor):  # type: ignore[misc, unused-ignore]
    """A real reactor, real sockets and threads, whose turns and time the test takes by hand."""

    now = 0.0

    def __init__(self) -> None:
        self._waking = RLock()
        self._disposed = False
        super().__init__()

    def seconds(self) -> float:  # type: ignore[override, unused-ignore]
        return self.now

    def wakeUp(self) -> None:
        with self._waking:
            # A thread of a service that has stopped may still have something to say.
            if not self._disposed:
                super().wakeUp()

    def advance(self, seconds: float) -> None:
        """Let time go by, then take a turn."""
        self.now += seconds
        self.iterate(0)

    def until(self, come: Callable[[], object], passing: float = 0.0) -> None:
        """Take turns, each `passing` seconds after the one before, until `come` says so."""
        deadline = monotonic() + PATIENCE
        while not come():
            assert monotonic() < deadline, "it did not come"
            self.now += passing
            self.iterate(0.01)

    def result(self, deferred: Deferred[Any]) -> Any:
        """Take turns until `deferred` fires; give its result or raise its failure."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: results)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def failure(self, deferred: Deferred[Any]) -> BaseException:
        """Take turns until `deferred` fails; give the exception."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: results)
        assert isinstance(results[0], Failure), results[0]
        error = results[0].value
        assert error is not None
        return error

    def received(self, peer: socket.socket, size: int | None = None) -> bytes:
        """Take turns until `peer` has `size` bytes, or without a size the end of the stream."""
        arriving = Arriving(peer, size)
        self.until(arriving.come)
        return bytes(arriving.data)

    def dispose(self) -> None:
        """Stop threads, close what is open."""
        self.fireSystemEvent("shutdown")
        if self.threadpool is not None:
            # What a test has left waits for something before that.
            self._stopThreadPool()
        with self._waking:
            self._disposed = True
            self.waker.connectionLost(None)


@pytest.fixture
def restored() -> Iterator[None]:
    """Put back what services have made of signals, the last of it when their reactor stops."""
    before = answers()
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def reactor(restored: None) -> Iterator[HandReactor]:
    made = HandReactor()
    made.startRunning(installSignalHandlers=False)
    yield made
    made.dispose()


@implementer(ILogObserver)
class Log:
    """What was logged during a test."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.noted: list[Failure] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    @property
    def texts(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    @property
    def all_failures(self) -> list[Failure]:
        # A reactor logs in the old way, where a failure has the other name.
        found = (event.get("log_failure", event.get("failure")) for event in self.events)
        return [failure for failure in found if failure is not None]

    @property
    def problems(self) -> list[str]:
        """What tells of a fault and was not asked for: failures, and what is critical."""
        failures = [each for each in self.all_failures if each not in self.noted]
        return [each.getTraceback() for each in failures] + [
            formatEvent(event)
            for event in self.events
            if event.get("log_level") is LogLevel.critical
            and not {"log_failure", "failure"} & event.keys()
        ]

    def failures(self, kind: type[BaseException]) -> list[Failure]:
        """Take note of the logged failures of a kind; those not noted fail the test."""
        taken = [failure for failure in self.all_failures if failure.check(kind)]
        self.noted += taken
        return taken


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    """Observe the log; a failure in it that the test does not ask for fails the test."""
    observed = Log()
    globalLogPublisher.addObserver(observed)
    yield observed
    globalLogPublisher.removeObserver(observed)
    assert observed.problems == []


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """At a module's end, have told what errors were left in Deferreds that nobody holds."""
    yield
    observed = Log()
    globalLogPublisher.addObserver(observed)
    gc.collect()
    globalLogPublisher.removeObserver(observed)
    assert observed.problems == []


@pytest.fixture(scope="module", autouse=True)
def uncounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Count no coverage in processes of examples and benchmarks: they look at something else.

    And they are many, and start sooner without.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name in ("test_docs.py", "test_benchmarks.py"):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no coverage in processes that become another user's, or get another root.

    They can't write down what they have counted, and would log that at their end.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close at the end what is entered here."""
    with ExitStack() as stack:
        yield stack


class Services:
    """Services started in this process, and where they listen."""

    def __init__(self, log: Log, opened: ExitStack | AsyncExitStack) -> None:
        self._log = log
        self._opened = opened

    def make(self, *arguments: str) -> MultiService:
        options = Options()
        options.parseOptions(arguments)
        return makeService(options)

    @property
    def addresses(self) -> list[tuple[str, str, int]]:
        """What the log names: scheme, host and port."""
        found = [
            re.search(r" listening on (?:haproxy:)?(\w+):(.+):(\d+)$", text)
            for text in self._log.texts
        ]
        return [(each[1], each[2].strip("[]"), int(each[3])) for each in found if each]

    def peer(self, host: str, port: int) -> socket.socket:
        return self._opened.enter_context(closing(socket.create_connection((host, port), PATIENCE)))

    def local(
        self, path: Path, kind: socket.SocketKind = socket.SOCK_STREAM, name: str | None = None
    ) -> socket.socket:
        """Connect to a UNIX socket, from one that has a name if one is given."""
        made = self._opened.enter_context(closing(socket.socket(socket.AF_UNIX, kind)))
        made.settimeout(PATIENCE)
        if name is not None:
            made.bind(name)
        made.connect(str(path))
        return made

    def asking(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self._opened.enter_context(closing(socket.socket(family, socket.SOCK_DGRAM)))
        made.connect((host, port))
        return made


class Serving(Services):
    """Services in the installed reactor."""

    def __init__(self, log: Log, ending: AsyncExitStack) -> None:
        super().__init__(log, ending)
        self._ending = ending
        self._stopped: set[MultiService] = set()

    def start(self, *arguments: str) -> MultiService:
        service = self.make(*arguments)
        service.privilegedStartService()
        service.startService()
        self._ending.push_async_callback(self.stop, service)
        return service

    async def stop(self, service: MultiService) -> None:
        if service not in self._stopped:
            self._stopped.add(service)
            await maybeDeferred(service.stopService)

    async def ask(self, host: str, port: int, line: bytes) -> bytes:
        """Send a line and half-close; give all that comes back."""
        with closing(socket.create_connection((host, port), PATIENCE)) as peer:
            peer.sendall(line)
            peer.shutdown(socket.SHUT_WR)
            return await received(peer)


@pytest_twisted.async_yield_fixture
async def serving(log: Log, restored: None) -> AsyncIterator[Serving]:
    # Signals are put back behind what a service does with them when it stops.
    stack = AsyncExitStack()
    yield Serving(log, stack)
    await patient(stack.aclose)()


class Running(Services):
    """Services in the reactor that is turned by hand."""

    def __init__(
        self, reactor: HandReactor, log: Log, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().__init__(log, opened)
        self.reactor = reactor
        self._stops: dict[MultiService, Deferred[Any]] = {}
        monkeypatch.setattr("twisted.internet.reactor", reactor, raising=False)

    def start(self, *arguments: str, privileged: bool = True) -> MultiService:
        service = self.make(*arguments)
        if privileged:
            service.privilegedStartService()
        service.startService()
        self._opened.callback(self._stop, service)
        return service

    def stopping(self, service: MultiService) -> Deferred[Any]:
        """Begin to stop a service."""
        self._stops[service] = stopping = maybeDeferred(service.stopService)
        return stopping

    def _stop(self, service: MultiService) -> None:
        stopping = self._stops.get(service) or self.stopping(service)
        self.reactor.until(lambda: stopping.called, passing=1)

    def fail(self, *arguments: str) -> str:
        """Start what cannot start; give the one line that is said on stderr."""
        with pytest.raises(SystemExit) as ended:
            self.start(*arguments)
        assert ended.value.code == 1
        return str(ended.value)

    def ask(self, host: str, port: int, line: bytes) -> bytes:
        """Send a line and half-close; give all that comes back."""
        with closing(socket.create_connection((host, port), PATIENCE)) as peer:
            peer.sendall(line)
            peer.shutdown(socket.SHUT_WR)
            return self.reactor.received(peer)


@pytest.fixture
def running(
    reactor: HandReactor,
    log: Log,
    opened: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Running]:
    # What a test leaves running is stopped before the reactor goes.
    with opened:
        yield Running(reactor, log, opened, monkeypatch)


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the keys and certificates that follow, which tests leave as they are."""
    return tmp_path_factory.mktemp("identities")


@pytest.fixture(scope="session")
def authority(identities: Path) -> Identity:
    return Identity(identities, "authority")


@pytest.fixture(scope="session")
def server(identities: Path, authority: Identity) -> Identity:
    return Identity(identities, "server", authority)


@pytest.fixture(scope="session")
def alice(identities: Path, authority: Identity) -> Identity:
    return Identity(identities, "alice", authority, hosts=())


@pytest.fixture(scope="session")
def mallory(identities: Path) -> Identity:
    """One whom nobody has signed."""
    return Identity(identities, "mallory")


def signalled(module: str, number: signal.Signals) -> str:
    """Give a program that is `sockservice`, and gets a signal when it comes to import a module."""
    return f"""
import os, sys

class Signalling:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Signalling())
from sockservice.__main__ import run
run()
"""


#: Gives the number of a port of a kind.
ClosedNumber = Callable[[socket.SocketKind], int]


@pytest.fixture
def closed_number(opened: ExitStack) -> ClosedNumber:
    """Give port numbers that nobody listens on, and that nobody else gets while the test runs."""

    def number(kind: socket.SocketKind) -> int:
        held = opened.enter_context(reserved() if kind == socket.SOCK_STREAM else deaf())
        given: int = held.getsockname()[1]
        return given

    return number


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if one is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


SCRIPTS = Path(sys.executable).parent

#: What tells of a failure in the log or on stderr of a process.
FAILURE = re.compile(rb"Traceback \(most recent|Unhandled|#critical|CRITICAL|Exception ignored")


def sound(output: bytes) -> None:
    """See that nothing in a process's output tells of a failure in it."""
    found = FAILURE.search(output)
    assert found is None, output[max(0, found.start() - 500) :][:5000].decode(errors="replace")


class Child:
    """A process of ours, and what it has written to stdout so far."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.output = b""

    def until(
        self, pattern: bytes, since: int = 0, patience: float = PATIENCE
    ) -> "re.Match[bytes]":
        """Read stdout until it holds `pattern` behind the first `since` bytes.

        It may take `patience` seconds.
        """
        assert self.process.stdout is not None
        deadline = monotonic() + patience
        while (found := re.compile(pattern).search(self.output, since)) is None:
            left = max(0.0, deadline - monotonic())
            assert select.select([self.process.stdout], [], [], left)[0], self.output
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, (self.output, self.process.stderr and self.process.stderr.read())
            self.output += data
            # What was there before is looked at once more only where it meets this.
            sound(self.output[-len(data) - 100 :])
        return found

    def complaint(self) -> bytes:
        """Give the next line of stderr, which has to come in time."""
        assert self.process.stderr is not None
        deadline = monotonic() + PATIENCE
        line = b""
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - monotonic())
            assert select.select([self.process.stderr], [], [], left)[0], line
            data = os.read(self.process.stderr.fileno(), 1)
            assert data, line
            line += data
        return line

    def end(self) -> tuple[int, bytes]:
        """Wait for its end; give the exit status and stderr, but for what was read of it."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        self.output += output
        sound(self.output + (errors or b""))
        return self.process.returncode, errors


class Service(Child):
    """A twistd that serves; `address` is the one that both its ports have."""

    def listening(self) -> "Service":
        """Wait until it does."""
        echo = self.until(rb"echo listening on udp:(\S+):(\d+)")
        ack = self.until(rb"ack listening on tcp:(\S+):(\d+)")
        assert ack.groups() == echo.groups()
        self.address = ack[1].decode().strip("[]"), int(ack[2])
        return self

    def stop(self) -> None:
        """Have it stop, and see that it did so in good order."""
        self.process.terminate()
        self.ended()

    def ended(self) -> None:
        """See that it stops, as it was told, in good order."""
        status, errors = self.end()
        assert b"Main loop terminated." in self.output
        assert (status, errors) == (0, b"")

    def connected(self, host: str = "", receiving: int | None = None) -> socket.socket:
        """Connect, with a receive buffer of `receiving` bytes."""
        host = host or self.address[0]
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.settimeout(PATIENCE)
        if receiving is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiving)
        made.connect((host, self.address[1]))
        return made


class Children:
    """Start processes; those still running at the end are killed.

    Whatever they write may not tell of a failure in them.
    """

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self._opened = opened

    def start(self, *command: str, **given: Any) -> "subprocess.Popen[bytes]":
        """Start one of the environment's commands."""
        if "--workers" in command and "--start-timeout" not in command:
            # Where others have the processors a worker may take long, and that is no failure.
            command += ("--start-timeout", f"{PATIENCE:g}")
        how: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
        } | given
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(SCRIPTS / command[0]), *command[1:]], **how
        )
        self._opened.enter_context(process)
        self._opened.callback(self._rest, process)
        self._opened.callback(process.kill)
        return process

    def run(self, *command: str, **how: Any) -> "subprocess.CompletedProcess[bytes]":
        """Run one of the environment's commands to its end."""
        given = how.pop("input", None)
        if given is not None:
            how["stdin"] = subprocess.PIPE
        else:
            how.setdefault("stdin", subprocess.DEVNULL)
        process = self.start(*command, **how)
        output, errors = process.communicate(given, timeout=PATIENCE)
        sound((output or b"") + (errors or b""))
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def _rest(self, process: "subprocess.Popen[bytes]") -> None:
        """Look at what nobody has read."""
        for pipe in (process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                # A process of its own may still hold the other end.
                os.set_blocking(pipe.fileno(), False)
                sound(pipe.read() or b"")

    def serve(self, *options: str, before: Sequence[str] = ("-n", "--pidfile=")) -> Service:
        """Start `twistd sockservice` on a free port and wait until it listens."""
        process = self.start("twistd", *before, "sockservice", "--port", "0", *options)
        return Service(process).listening()


@pytest.fixture
def children(tmp_path: Path, opened: ExitStack) -> Children:
    return Children(tmp_path, opened)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One `twistd sockservice` with the defaults, for all tests of a module that leave it whole."""
    with ExitStack() as stack:
        served = Children(tmp_path_factory.mktemp("service"), stack).serve()
        yield served
        served.stop()
