"""Fixtures: certificates, and nginx before nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.e2e.conftest import make_process as make_process
from tests.servers.nginx import Nginx

MakeNginx = Callable[[Sequence[int]], Nginx]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def make_nginx(authority: Authority) -> Iterator[MakeNginx]:
    """Makes an nginx before the nodes at these ports, to be started by the test."""
    with contextlib.ExitStack() as closing:

        def make(ports: Sequence[int]) -> Nginx:
            nginx = Nginx(authority.issue("server"), ports)
            closing.callback(nginx.close)
            return nginx

        yield make
