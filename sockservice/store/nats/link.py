"""The connection to the nodes: nats-py on an event loop in a thread of its own.

Twisted's reactor stays what it is. The loop runs all the time, or pings and reconnects would
wait for the next commit.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from signal import SIG_BLOCK, pthread_sigmask, valid_signals
from threading import Thread
from typing import Any, TypeVar

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from twisted.logger import Logger

from sockservice.store.nats.place import Place

#: Seconds between pings; after so many without an answer a node is taken to be gone.
PING_INTERVAL, PINGS = 1, 2
#: Seconds between tries to connect to the same node, and until a try is given up.
RECONNECT_WAIT, CONNECT_TIMEOUT = 0.2, 2
#: Seconds until a new client is tried, where one has given up.
AGAIN = 1.0
#: Seconds until the first connection has to be there.
FIRST = 10.0
#: Seconds for an answer of the JetStream API.
ANSWER = 5.0
#: The `err_code` of its answer where a stream has no such message.
NO_MESSAGE = 10037

Found = TypeVar("Found")

log = Logger()


def _why(problem: Exception) -> str:
    """Return a problem in words; of asyncio's only the system's."""
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and not isinstance(problem, ssl.SSLError) and problem.errno:
        said = os.strerror(problem.errno) if problem.errno > 0 else problem.strerror or str(problem)
        return said if problem.filename is None else f"{problem.filename}: {said}"
    return str(problem).removeprefix("nats: ").strip("'") or type(problem).__name__


class Unsent(Exception):
    """There is no connection: nothing was sent."""


class NoAnswer(Exception):
    """No answer came; what was sent may have been carried out. With `certain` it was not."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


class TooLarge(Exception):
    """A message is longer than the nodes permit: nothing was sent."""


class Unreachable(Exception):
    """No node can be reached; the text says why. With `final` it will not be otherwise."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class NodeLink:
    """A connection to one of the nodes of `place`, whichever is there.

    `call` runs what is to be awaited in the loop's thread; what is `async` here runs there.
    """

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._client = Client()
        self._reason = ""  # of the last failure to connect
        self._lost = 0.0  # when the connection was lost
        self._node = ""
        self._ended = False
        self._again: asyncio.Task[None] | None = None
        #: How often a connection was lost.
        self.losses = 0
        Thread(target=self._run, name="nats", daemon=True).start()

    def _run(self) -> None:
        # They are to interrupt what the main thread waits for.
        pthread_sigmask(SIG_BLOCK, valid_signals())
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        # What nobody waits for any more, as a look at what is to be removed.
        if left := asyncio.all_tasks(self._loop):
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def begin(self, doing: Coroutine[Any, Any, Found]) -> "Future[Found]":
        """Run a coroutine in the loop's thread."""
        return asyncio.run_coroutine_threadsafe(doing, self._loop)

    def call(self, doing: Coroutine[Any, Any, Found]) -> Found:
        """Run a coroutine in the loop's thread, and wait for what it returns."""
        running = self.begin(doing)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def open(self) -> None:
        """Connect.

        :raises Unreachable: No node answers, or none lets us in.
        """
        self.call(self._open())

    def close(self) -> None:
        """Close the connection, and end the thread."""
        self._ended = True
        try:
            self.begin(self._close()).result(CONNECT_TIMEOUT)
        except Exception:
            log.debug("the connection to NATS was not closed in good order")
        self._loop.call_soon_threadsafe(self._loop.stop)

    @property
    def info(self) -> dict[str, Any]:
        """What the node that we are connected to says of itself."""
        return self._client._server_info

    @property
    def node(self) -> str:
        """The node that we are, or were last, connected to."""
        return self._node

    @property
    def name(self) -> str:
        """Its name, without where it is."""
        return self._node.partition(" ")[0]

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client.is_connected

    # What follows runs in the loop's thread.

    async def _open(self) -> None:
        until = self._clock() + FIRST
        while True:
            try:
                await asyncio.wait_for(self._connect(), max(0.1, until - self._clock()))
            except TimeoutError:
                raise Unreachable(self._reason or "no node answers") from None
            except (OSError, errors.Error, ValueError) as problem:
                raise Unreachable(_why(problem), final=True) from problem
            else:
                return

    async def _connect(self) -> None:
        """Connect a new client, however often that has to be tried."""
        place = self._place
        password = place.password
        if place.passwordFile:
            with open(place.passwordFile) as file:
                password = file.readline().rstrip("\r\n")
        credentials: Any = place.creds or None
        client = self._client = Client()
        await client.connect(
            servers=[f"{'tls' if place.tls else 'nats'}://{node}" for node in place.nodes],
            name="sockservice",
            error_cb=self._failed,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
            connect_timeout=CONNECT_TIMEOUT,
            reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=PINGS,
            # Nothing is kept to be sent later, when we have said that it was not stored.
            pending_size=0,
            tls=self._security() if place.tls else None,
            user=place.user or None,
            password=password or None,
            user_credentials=credentials,
        )
        self._noteNode()

    def _security(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._place.ca or None)
        if self._place.cert:
            context.load_cert_chain(self._place.cert, self._place.key or None)
        return context

    def _noteNode(self) -> None:
        said = self._client._server_info
        at = self._client.connected_url
        self._node = (
            f"{said.get('server_name', '?')} ({at.netloc.rpartition('@')[2] if at else '?'})"
        )

    async def _close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        await self._client.close()

    async def _failed(self, problem: Exception) -> None:
        broken = isinstance(problem, BrokenPipeError | ConnectionResetError)
        if broken and self._reason and not self._node:
            # Over TLS a node says why it refuses us, and its word may be overtaken by the close.
            return
        self._reason = _why(problem)
        if "authorization" in self._reason.lower() and not self._node:
            # Or it would be tried for ever.
            raise errors.Error(f"{self._reason}: the nodes do not let us in")

    async def _disconnected(self) -> None:
        if self._ended or self._lost:
            return
        self._lost = self._clock()
        self.losses += 1
        log.warn("the connection to the NATS node {node} is lost", node=self._node)

    async def _reconnected(self) -> None:
        before = self._node
        self._noteNode()
        log.info(
            "connected to the NATS node {node}, after {seconds:.1f} s without {before}",
            node=self._node,
            seconds=self._clock() - self._lost,
            before="it" if before == self._node else before,
        )
        self._lost = 0.0

    async def _closed(self) -> None:
        """Connect anew where the client has given up: a node's word has ended it."""
        if not self._ended and self._node and self._again is None:
            self._again = self._loop.create_task(self._anew())

    async def _anew(self) -> None:
        while not self._ended:
            try:
                await asyncio.wait_for(self._connect(), FIRST)
            except Exception as problem:
                # Whatever it is, as of keys that are being replaced: nobody else tries.
                self._reason = _why(problem)
                await asyncio.sleep(AGAIN)
            else:
                await self._reconnected()
                break
        self._again = None

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, timeout: float
    ) -> Msg:
        """Send a message, and return the answer.

        :raises Unsent: There is no connection.
        :raises NoAnswer: There was no answer within `timeout` seconds, or nobody to give it.
        :raises TooLarge: It is longer than the nodes permit.
        """
        if not self._client.is_connected:
            raise Unsent(f"no connection to NATS: {self._reason or 'no node answers'}")
        try:
            return await self._client.request(subject, payload, timeout=timeout, headers=headers)
        except errors.OutboundBufferLimitError:
            raise Unsent("no connection to NATS") from None
        except errors.MaxPayloadError:
            raise TooLarge from None
        except errors.NoRespondersError:
            raise NoAnswer("the stream has no leader", certain=True) from None
        except (errors.Error, TimeoutError, OSError):
            raise NoAnswer("no answer from NATS", certain=False) from None

    async def ask(self, subject: str, **given: Any) -> dict[str, Any]:
        """Ask the JetStream API; return its answer, in which `error` may stand.

        :raises Unsent: There is no connection.
        :raises NoAnswer: There was no answer.
        """
        payload = json.dumps(given).encode() if given else b""
        answer = await self.request(f"$JS.API.{subject}", payload, None, ANSWER)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def several(
        self, subject: str, timeout: float, most: int | None = None, /, **given: Any
    ) -> list[Msg]:
        """Ask what is answered by `most` messages, or by some up to one that only says so.

        :raises Unsent: There is no connection.
        :raises NoAnswer: The last has not come.
        """
        if not self._client.is_connected:
            raise Unsent("no connection to NATS")
        inbox = self._client.new_inbox()
        arriving = await self._client.subscribe(inbox)
        try:
            await self._client.publish(subject, json.dumps(given).encode(), reply=inbox)
            found: list[Msg] = []
            while most is None or len(found) < most:
                message = await arriving.next_msg(timeout)
                found.append(message)
                if (message.headers or {}).get("Status"):
                    break
            return found
        except errors.OutboundBufferLimitError:
            raise Unsent("no connection to NATS") from None
        except (errors.Error, TimeoutError):
            raise NoAnswer("no answer from NATS", certain=False) from None
        finally:
            if not self._client.is_closed:
                await arriving.unsubscribe()
