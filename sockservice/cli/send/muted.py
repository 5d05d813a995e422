"""Send lines that nothing answers: all that can be seen is whether somebody is there."""

import errno
import os
import select
import socket
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import deferLater

from sockservice.cli.send import surplus
from sockservice.cli.send.sending import Send, Sending
from sockservice.cli.status import NOT_ALL, TIMED_OUT
from sockservice.client.datagram import DatagramClient
from sockservice.client.line import LineClient
from sockservice.client.parting import halfClose
from sockservice.wire.plurals import counted, inSeconds

#: Seconds until a UNIX socket, whose peer has no room for a datagram, is tried again.
AGAIN = 0.01


class Muted(Sending):
    """Sends lines, and at their end waits for the server to close as well.

    A server closes when it has read to the end; no line counts as acknowledged by that. Of
    datagrams only the system says something: that nobody listens on that port.
    """

    def _give(self, send: Send, lines: list[bytes]) -> None:
        if isinstance(self._client, DatagramClient):
            self._tell(self._client, lines)
            return
        assert self._client is not None
        for line in lines:
            if not line:
                self._summary.empty += 1
            elif self._client.tell(line):
                self._summary.sent += 1

    async def _streamDatagrams(self, client: DatagramClient) -> None:
        # Nothing is read: an error that the system has is for who sends.
        client.transport.pauseProducing()
        await self._stream(lambda _, __: Deferred(), partial(self._roomy, client))
        if not self._stopped:
            await surplus.lingered(self._reactor)
            self._tell(client, [])

    async def _roomy(self, client: DatagramClient) -> None:
        """Wait until the system takes a datagram."""
        since = self._reactor.seconds()
        while not (self._stopped or select.select([], [client.transport.socket], [], 0)[1]):
            if self._reactor.seconds() - since > self._timeout:
                self._stop(self._unread, TIMED_OUT)
            await deferLater(self._reactor, AGAIN)

    def _tell(self, client: DatagramClient, datagrams: list[bytes]) -> None:
        """Send datagrams, and say what is wrong with those sent before."""
        try:
            refused = client.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            for datagram in () if refused else datagrams:
                client.transport.socket.send(datagram)
                self._summary.sent += 1
        except OSError as problem:
            refused = problem.errno
        if refused == errno.ECONNREFUSED:
            self._stop("connection refused: nobody listens there", NOT_ALL)
        elif refused:
            self._stop(f"not sent: {os.strerror(refused)}", NOT_ALL)

    @property
    def _unread(self) -> str:
        return f"the server has read nothing for {inSeconds(self._timeout)}"

    async def _ready(self, client: LineClient) -> None:
        ready: Deferred[Any] = client.ready()
        try:
            await ready.addTimeout(self._timeout, self._reactor)
        except TimeoutError:
            self._stop(self._unread, TIMED_OUT)

    async def _part(self, client: LineClient) -> None:
        await self._ready(client)
        ended = client.disconnected() if halfClose(client) else client.close()
        ended.addTimeout(self._timeout, self._reactor)
        try:
            await ended
        except (TimeoutError, CancelledError):
            why = f"the server has not closed within {inSeconds(self._timeout)}"
            self._summary.end(why, TIMED_OUT)
            await client.abort()
        if client.refusal:
            self._summary.end(f"the server ended the connection: {client.refusal}", NOT_ALL)
        elif not client.closedByPeer:
            self._summary.end("the connection was reset", NOT_ALL)

    def _summed(self) -> tuple[int, str]:
        status, said = super()._summed()
        sent = self._summary.sent
        if self._client is not None and not self._summary.acknowledged and sent:
            none = f"{counted(sent, 'line')} sent, none acknowledged: nothing answers them"
            said = f"{said}; {none}" if said else none
        return status, said
