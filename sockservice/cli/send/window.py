"""Choose how many bytes may be in flight."""

import math

from sockservice.client.reliable import BYTES

#: Datagrams in flight: they are lost where they find no room, and the longest fill it soon.
DATAGRAMS = 4
#: Bytes in flight where the round trip is short. Servers that pass lines through a pair of
#: pipes, one after the other (`ncat -e`), block for ever when both pipes are full.
WINDOW = 64 * 1024
#: Seconds from which on a round trip is long, and takes more in flight to be filled.
LONG = 0.005


def window(shortest: float, fastest: float) -> float:
    """Return the bytes that may be in flight: twice the bandwidth-delay product.

    `shortest` is the shortest round trip in seconds, `fastest` the most bytes a second.
    """
    if not LONG < shortest < math.inf:
        return WINDOW
    return min(BYTES, max(WINDOW, 2 * shortest * fastest))
