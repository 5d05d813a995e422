"""The service's own protocol: an acknowledgement for each line."""

from sockservice.server.line import LineServer


class Ack(LineServer):
    """Acknowledge each line with `ok`: received, or, where there is a store, durable."""

    acknowledgement = b"ok"
    # A read of the shortest lines worth batching; no answer is ever awaited.
    answerLimit = 8192
