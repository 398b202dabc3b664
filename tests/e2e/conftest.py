"""Fixtures: a server in this process, and the real command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import Served, ServerProcess
from wsserver import operations, passwords

Serve = Callable[..., Awaitable[Served]]
MakeProcess = Callable[..., ServerProcess]


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost next to nothing: for tests in which a login is the way, not the claim."""
    monkeypatch.setattr(operations, "SCRYPT_N", 16)
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)


@pytest.fixture
async def serve_at_full_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Serve]:
    """Starts servers in this process, with any settings; stops them at the end."""
    for name in ("WSSERVER_CONFIG", "WSSERVER_HOST", "WSSERVER_PORT", "WSSERVER_VERIFICATION"):
        monkeypatch.delenv(name, raising=False)
    running: list[Served] = []

    async def start(**settings: Any) -> Served:
        folder = tmp_path / f"server {len(running)}"
        folder.mkdir()
        running.append(await Served.start(folder, **settings))
        return running[-1]

    yield start
    for served in running:
        await served.stop()


@pytest.fixture
def serve(cheap_passwords: None, serve_at_full_cost: Serve) -> Serve:
    """The same, with cheap passwords."""
    return serve_at_full_cost


@pytest.fixture
async def served(serve: Serve) -> Served:
    """A server in this process, in mode open, with cheap passwords."""
    return await serve()


@pytest.fixture
def make_process(tmp_path: Path) -> Iterator[MakeProcess]:
    """Makes server processes, to be started by the test; kills what is left of them."""
    made: list[ServerProcess] = []

    def make(**settings: Any) -> ServerProcess:
        folder = tmp_path / f"process {len(made)}"
        folder.mkdir()
        made.append(ServerProcess(folder, **settings))
        return made[-1]

    yield make
    for process in made:
        process.end()
