"""A real server in the process of an app's own tests: no port, no file, no sleep.

::

    from wsclient.testing import TestServer

    async with TestServer() as server:
        await server.register("joe@example.com", "correct horse")
        async with SyncedWallet(
            server.make_session, "joe@example.com", "correct horse", folder, merge
        ) as wallet:
            ...

What it can do to an app is in `TestServer` (restart, go back to a backup), `Network` (cut, hold,
delay, lose) and `Lies`. This is the one place where the client imports the server.
"""

from __future__ import annotations

try:
    from wsclient.testing.lies import Lies
    from wsclient.testing.network import Asked, Network
    from wsclient.testing.server import Snapshot, Stored, TestServer
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "wsclient":
        raise
    raise ModuleNotFoundError(
        f"wsclient.testing runs a real server and needs the extra that brings {missing.name}: "
        "pip install 'wallet-sync[server]'",
        name=missing.name,
    ) from None

__all__ = ["Asked", "Lies", "Network", "Snapshot", "Stored", "TestServer"]
