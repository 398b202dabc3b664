"""What an app's own test run takes from `wsclient.testing`, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 60

PYTEST_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
APP_TESTS = """
from wsclient.testing import TestServer

async def test_that_takes_the_fixture(wallet_server):
    await wallet_server.register("joe@example.com", "correct horse")
    assert wallet_server.stored("joe@example.com").sequence == 0

async def test_that_makes_its_own():
    async with TestServer() as server:
        await server.restart()
"""


def test_an_apps_tests_find_the_fixture_and_collect_no_server(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["wsclient.testing.pytest_plugin"]')
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    (tmp_path / "test_app.py").write_text(APP_TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_without_the_extra_an_import_says_what_is_missing() -> None:
    program = "import sys; sys.modules['pydantic_settings'] = None\nimport wsclient.testing"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S
    )

    assert run.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: wsclient.testing runs a real server and needs the extra that brings "
        "pydantic_settings: pip install 'wallet-sync[server]'"
    )
