"""List the sessions in a stream by their last messages, the oldest first."""

import os
from collections.abc import AsyncGenerator

from sockservice.store.nats.link import NoAnswer, NodeLink
from sockservice.store.nats.place import Place

#: Messages that are asked for at once.
BATCH = 256
#: Seconds until they have come.
ARRIVAL = 10.0
#: Seconds for which a node keeps a list that nobody reads on.
UNREAD = 10.0


async def lasts(
    link: NodeLink, place: Place, least: int
) -> AsyncGenerator[tuple[int, dict[str, str]], None]:
    """Yield the sequence and the headers of each session's last message, without its lines.

    At least `least` sessions are known to be there: a node that has fewer lags behind.

    :raises Unsent: There is no connection.
    :raises NoAnswer: There was no answer, or not that of a node that has all.
    """
    name = os.urandom(8).hex()
    config = {
        "name": name,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "filter_subject": place.sessions,
        "headers_only": True,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(UNREAD * 10**9),
    }
    made = await link.ask(
        f"CONSUMER.CREATE.{place.stream}.{name}", stream_name=place.stream, config=config
    )
    if "error" in made:
        raise NoAnswer(f"NATS says: {made['error'].get('description')}", certain=True)
    left = int(made.get("num_pending", 0))
    if left < least:
        raise NoAnswer("a node does not have all sessions yet", certain=True)
    while left > 0:
        messages = await link.several(
            f"$JS.API.CONSUMER.MSG.NEXT.{place.stream}.{name}",
            ARRIVAL,
            min(BATCH, left),
            batch=min(BATCH, left),
            expires=int(ARRIVAL * 10**9),
        )
        for message in messages:
            headers = message.headers or {}
            if "Status" in headers:
                raise NoAnswer(f"NATS says: {headers.get('Description')}", certain=True)
            yield message.metadata.sequence.stream, headers
        left -= len(messages)
