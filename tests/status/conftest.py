"""A server in this process, with an admin port and some traffic behind it."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.serving import Served, find_free_port
from wsserver import operations, passwords


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    for module in (operations, passwords):
        monkeypatch.setattr(module, "SCRYPT_N", 16)
    while True:
        try:
            served = await Served.start(tmp_path, admin_port=find_free_port())
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    yield served
    await served.stop()
