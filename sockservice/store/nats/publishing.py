"""Append messages to a stream, resent until it is known what became of them."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from sockservice.errors import StoreError
from sockservice.store.nats.link import NoAnswer, NodeLink, TooLarge, Unsent
from sockservice.store.nats.place import Place
from sockservice.wire.plurals import counted

#: Seconds for which a message is sent again: an election takes 4 to 12. Much shorter than the
#: time for which its id is known.
PATIENCE = 30.0
#: Seconds until an attempt has failed, and between two.
ATTEMPT, PAUSE = 2.0, 0.1
#: Seconds without an acknowledgement after which the log says so.
SILENCE = 1.0
#: Messages in flight.
IN_FLIGHT = 512

# https://github.com/nats-io/nats-server/blob/main/server/errors.json
_WRONG_SEQUENCE = {10071, 10164}
_STORE_FAILED = 10077
_NEVER = {10054: "the message is too large", 10060: "the stream has another name"}

log = Logger()


class WrongSequence(Exception):
    """Another message is the last one of the subject: this one is not stored."""


class Publisher:
    """Appends messages to the stream of `place` through `link`."""

    def __init__(
        self, link: NodeLink, place: Place, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._place = place
        self._clock = clock
        self._boot = os.urandom(12).hex()
        self._number = 0
        self._inFlight = asyncio.Semaphore(IN_FLIGHT)
        self._acknowledged = clock()
        self._silent: float | None = (
            None  # since when there has been no acknowledgement, once that is said
        )
        #: The node that led the stream when that was last asked.
        self.leader = ""

    def identify(self) -> str:
        """Return an id that no other message has."""
        self._number += 1
        return f"{self._boot}-{self._number}"

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str], until: float
    ) -> int:
        """Append a message, which has an id; return its sequence. It is then durable.

        :raises WrongSequence: It is not the next of its subject.
        :raises StoreError: It is not stored, or nobody knows.
        """
        async with self._inFlight:
            certain = True
            begun = self._clock()
            while True:
                try:
                    answer = await self._link.request(subject, payload, headers, ATTEMPT)
                    said: dict[str, Any] = json.loads(answer.data)
                except Unsent as problem:
                    reason = str(problem)
                except NoAnswer as problem:
                    reason = str(problem)
                    certain = certain and problem.certain
                except TooLarge:
                    text = f"a message of {counted(len(payload), 'byte')} is more than NATS takes"
                    raise StoreError(text, retry=True, certain=certain) from None
                except ValueError:
                    reason, certain = "NATS answers what is no acknowledgement", False
                else:
                    if "error" not in said and said.get("stream") == self._place.stream:
                        self._heard()
                        return int(said["seq"])
                    reason, sure = self._refused(said.get("error") or {}, certain)
                    certain = certain and sure
                self._unheard(begun, reason)
                if self._clock() >= until:
                    raise StoreError(reason, retry=True, certain=certain)
                await asyncio.sleep(PAUSE)

    def _refused(self, error: dict[str, Any], certain: bool) -> tuple[str, bool]:
        """Return why to try again, and whether it is certain that nothing is stored.

        :raises WrongSequence: As `publish`.
        :raises StoreError: Trying again does not help.
        """
        code = error.get("err_code", 0)
        text = str(error.get("description") or f"error {code}")
        if code in _WRONG_SEQUENCE:
            raise WrongSequence(text)
        if code == _STORE_FAILED and "maximum" in text:
            raise StoreError(f"the stream is full ({text})", retry=True, certain=certain)
        if code in _NEVER:
            raise StoreError(f"{_NEVER[code]} ({text})", retry=False, certain=certain)
        return f"NATS says: {text}", False

    def _heard(self) -> None:
        self._acknowledged = self._clock()
        if self._silent is not None:
            log.info(
                "the stream {stream} acknowledges again, after {seconds:.1f} s",
                stream=self._place.stream,
                seconds=self._acknowledged - self._silent,
            )
            self._silent = None

    def _unheard(self, begun: float, reason: str) -> None:
        since = max(begun, self._acknowledged)
        if self._silent is None and self._clock() - since >= SILENCE:
            self._silent = since
            log.warn(
                "the stream {stream} has acknowledged nothing for {seconds:.1f} s: {reason}; its "
                "leader was {leader}, and we are connected to {node}",
                stream=self._place.stream,
                seconds=self._clock() - since,
                reason=reason,
                leader=self.leader or "not known",
                node=self._link.node if self._link.connected else "none",
            )
