"""Sockets that a service manager opened, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.activation import Manager
from tests.e2e.conftest import MakeProcess, Serve
from tests.e2e.rawclient import RawClient, open_socket
from tests.e2e.serving import fetch_json
from wsserver import systemd
from wsserver.systemd import SocketsWrong, Systemd, take_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


async def test_who_connects_while_the_server_restarts_is_served_by_the_next(
    make_process: MakeProcess, manager: Manager
) -> None:
    port, admin_port = manager.listen("wsserver"), manager.listen("admin")
    server = make_process()
    manager.adopt(server)
    await server.start()
    assert server.port == port
    client = RawClient(await open_socket(server.url))
    await client.register("joe@example.com")
    token = (await client.login("joe@example.com"))["token"]

    server.signal(signal.SIGTERM)
    assert await client.closed() == 1012
    assert await server.wait() == 0
    waiting = [asyncio.create_task(open_socket(server.url)) for _ in range(20)]
    probing = asyncio.create_task(fetch_json(f"http://127.0.0.1:{admin_port}/readyz"))
    await asyncio.sleep(0)
    await server.start()

    for opening in waiting:
        again = RawClient(await opening)
        await again.call("session.resume", token=token)
        await again.close()
    assert (await probing)[0] == 200


async def test_the_gateway_serves_on_a_socket_that_was_handed_over(
    make_process: MakeProcess, manager: Manager
) -> None:
    pytest.importorskip("uvicorn")
    manager.listen("wsserver")
    port = manager.listen("lbry")
    server = make_process()
    manager.adopt(server)
    url = f"http://127.0.0.1:{port}/api/3/client-salt-seed?email=bm9ib2R5QGV4YW1wbGUuY29t"
    for _ in range(2):
        asking = asyncio.create_task(fetch_json(url))
        await server.start()
        assert (await asking)[0] == 404
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_the_service_manager_hears_of_the_start_the_beats_a_reload_and_the_stop(
    make_process: MakeProcess, manager: Manager, tmp_path: Path
) -> None:
    manager.listen("wsserver")
    certificate = Authority(tmp_path).issue("server")
    server = make_process(tls_cert=certificate.chain, tls_key=certificate.key)
    manager.adopt(server)
    server.environment |= {"WATCHDOG_USEC": "300000"}
    server.launch()

    await manager.hear("READY=1")
    assert "WATCHDOG=1" not in manager.told, "the watchdog is not waited for before"
    await manager.hear("WATCHDOG=1", times=3)
    server.signal(signal.SIGHUP)
    await manager.hear("RELOADING=1")
    await manager.hear("READY=1", times=2)
    server.signal(signal.SIGTERM)
    await manager.hear("STOPPING=1")
    assert await server.wait() == 0


async def test_a_reload_without_a_certificate_does_not_end_the_service(
    make_process: MakeProcess, manager: Manager
) -> None:
    manager.listen("wsserver")
    server = make_process()
    manager.adopt(server)
    await server.start()
    await manager.hear("READY=1")

    server.signal(signal.SIGHUP)
    await manager.hear("READY=1", times=2)
    (await open_socket(server.url)).transport.abort()


class Listener:
    """An overseer that counts the beats."""

    present = True
    beat_interval_s = 0.01

    def __init__(self) -> None:
        self.beats = 0

    def tell_ready(self, status: str) -> None: ...

    def tell_reloading(self) -> None: ...

    def tell_stopping(self) -> None: ...

    def beat(self) -> None:
        self.beats += 1


async def test_the_beats_end_once_the_store_no_longer_answers(serve: Serve) -> None:
    overseer = Listener()
    served = await serve(overseer=overseer)
    store = served.server._store
    answering = store.submit
    async with asyncio.timeout(10):
        while overseer.beats < 3:
            await asyncio.sleep(0.01)

    unanswered: list[Callable[[], None]] = []

    def keep(*operation: Any) -> None:
        unanswered.append(lambda: answering(*operation))

    store.submit = keep  # type: ignore[assignment,method-assign]  # a lane that hangs
    async with asyncio.timeout(10):
        while not unanswered:
            await asyncio.sleep(0.01)
    beats = overseer.beats
    await asyncio.sleep(0.1)
    assert overseer.beats == beats

    store.submit = answering  # type: ignore[method-assign]
    for go_on in unanswered:
        go_on()
    async with asyncio.timeout(10):
        while overseer.beats == beats:
            await asyncio.sleep(0.01)


# What the environment says.


def describe(names: str, count: int, pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_PID": str(pid or os.getpid()),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
        "OTHER": "kept",
    }


def test_sockets_for_another_process_are_not_ours() -> None:
    assert take_sockets(describe("wsserver", 1, pid=1)) == {}
    assert take_sockets({}) == {}


def test_a_socket_that_is_not_known_by_name_or_does_not_listen_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as idle:
        for opened, names, said in (
            (listening, "web", "'web'; the server knows wsserver, admin, lbry"),
            (listening, "wsserver:admin", "LISTEN_FDS says 1 sockets, LISTEN_FDNAMES names 2"),
            (idle, "wsserver", "is not one that listens"),
        ):
            monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", os.dup(opened.fileno()))
            with pytest.raises(SocketsWrong, match=said):
                take_sockets(describe(names, 1))
            with contextlib.suppress(OSError):
                os.close(systemd.FIRST_DESCRIPTOR)
    with pytest.raises(SocketsWrong, match="can't be used: Bad file descriptor"):
        take_sockets(describe("wsserver", 1))


@pytest.mark.parametrize("names", ["wsserver.socket", ""])
def test_a_socket_is_known_by_its_unit_or_is_the_server_s_own(
    monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", os.dup(listening.fileno()))
        environment = describe(names, 1)
        [taken] = take_sockets(environment)["wsserver"]
        with taken:
            assert taken.getsockname() == listening.getsockname()
            assert not taken.get_inheritable()
        assert environment == {"OTHER": "kept"}


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    told = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "30000000"}
    assert Systemd(told).beat_interval_s == 10
    assert Systemd(told | {"WATCHDOG_PID": "1"}).beat_interval_s is None
    assert Systemd({"WATCHDOG_USEC": "30000000"}).beat_interval_s is None
    Systemd(told).tell_ready("nobody hears it, and nobody waits")
