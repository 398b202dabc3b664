"""The reference: an echo by the ordinary asyncio API of websockets, on uvloop, not compressed.

    python -m benchmarks.echo

It says where it listens, and echoes until it is ended.
"""

from __future__ import annotations

import uvloop
from websockets.asyncio.server import ServerConnection, serve


async def echo(connection: ServerConnection) -> None:
    """Give every message back."""
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    """Serve on a free port."""
    async with serve(echo, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
