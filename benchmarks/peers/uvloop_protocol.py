"""The asyncio protocol on uvloop's event loop."""

import uvloop

from benchmarks.peers.asyncio_protocol import serve

if __name__ == "__main__":
    uvloop.run(serve())
