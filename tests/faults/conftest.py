"""Fixtures: the real command, in a folder of its own."""

from __future__ import annotations

from tests.e2e.conftest import MakeProcess as MakeProcess
from tests.e2e.conftest import make_process as make_process
