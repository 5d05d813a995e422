"""An asyncio protocol that splits what it gets and writes `ok` once a line."""

import asyncio
from typing import cast


class Ack(asyncio.Protocol):
    transport: asyncio.Transport
    rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for _line in lines:
            self.transport.write(b"ok\n")


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Ack, "127.0.0.1", 0)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
