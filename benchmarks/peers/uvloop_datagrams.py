"""The asyncio datagram protocol on uvloop's event loop."""

import uvloop

from benchmarks.peers.asyncio_datagrams import serve

if __name__ == "__main__":
    uvloop.run(serve())
