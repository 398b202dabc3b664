"""Fixtures: a server in this process, and the real command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rawclient import WAIT_S
from tests.e2e.serving import Served, ServerProcess
from wsserver import operations, passwords, post

Serve = Callable[..., Awaitable[Served]]
MakeProcess = Callable[..., ServerProcess]


class PasswordGate:
    """Holds one password check, once it is done, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._entered = threading.Event()
        self._released = threading.Event()
        self._holds = False
        self._check = passwords.check_password
        monkeypatch.setattr(passwords, "check_password", self._wait_after_check)

    def hold_next(self) -> None:
        """The next check to come is held."""
        self._entered.clear()
        self._released.clear()
        self._holds = True

    async def wait_until_held(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, WAIT_S)

    def release(self) -> None:
        self._released.set()

    def _wait_after_check(self, password: str, stored: Any) -> bool:
        held, self._holds = self._holds, False
        answer = self._check(password, stored)
        if held:
            self._entered.set()
            assert self._released.wait(WAIT_S)
        return answer


@pytest.fixture
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost next to nothing: for tests in which a login is the way, not the claim."""
    monkeypatch.setattr(operations, "SCRYPT_N", 16)
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    nobody = operations.PasswordHash(bytes(32), bytes(16), 16, 8, 1)
    monkeypatch.setattr(passwords, "_NOBODY", nobody)


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
def prompt_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mails are written at once."""
    monkeypatch.setattr(post, "PAUSE_MAX_S", 0.0)


@pytest.fixture
def serve(cheap_passwords: None, prompt_mail: None, serve_at_full_cost: Serve) -> Serve:
    """The same, with cheap passwords, and mails that are written at once."""
    return serve_at_full_cost


@pytest.fixture
async def served(serve: Serve) -> Served:
    """A server in this process, in mode open, with cheap passwords."""
    return await serve()


@pytest.fixture
def password_gate(cheap_passwords: None, monkeypatch: pytest.MonkeyPatch) -> PasswordGate:
    """Holds password checks of servers in this process."""
    return PasswordGate(monkeypatch)


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
