"""Forget a session in a stream, while servers use it."""

import time

from sockservice.errors import StoreError
from sockservice.store.nats.appending import Appender, Counted
from sockservice.store.nats.link import NodeLink, Unreachable
from sockservice.store.nats.place import Place
from sockservice.store.nats.publishing import PATIENCE, Publisher
from sockservice.store.reader import Unreadable


async def _uncounted(until: float) -> Counted:
    return Counted(0, 0)


def forget(place: Place, name: str) -> bool:
    """Forget the session `name`, not its lines; return whether it was there.

    Whoever has it open is told so at its next line, whichever server that is connected to.

    :raises Unreadable: The nodes do not answer, or the stream takes nothing.
    """
    link = NodeLink(place)
    try:
        link.open()
        appender = Appender(link, place, Publisher(link, place), _uncounted, 0)
        return link.call(appender.forget(name, None, time.monotonic() + PATIENCE))
    except StoreError as problem:
        raise Unreadable(problem.reason) from problem
    except (Unreachable, OSError) as problem:
        raise Unreadable(str(problem)) from problem
    finally:
        link.close()
