"""`wsserver status`, against a real server and against none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import click.testing
import pytest

from tests.e2e.serving import COMMAND, Served, clean_environment, find_free_port
from wsserver.cli import main

WAIT_S = 60


async def run(*arguments: str) -> click.testing.Result:
    runner = click.testing.CliRunner(env={"COLUMNS": "80"})
    return await asyncio.to_thread(runner.invoke, main, ["status", *arguments])


async def test_it_draws_the_figures_of_the_server_that_the_settings_name(served: Served) -> None:
    await served.open_account("joe@example.com")

    done = await run("--admin-port", str(served.server.admin_port))

    assert done.exit_code == 0, done.output
    assert "● ready" in done.output
    assert "Push latency, p99" in done.output
    assert "joe" not in done.output


async def test_it_prints_one_json_document(served: Served) -> None:
    done = await run("--json", "--url", served.admin_url + "/")

    assert done.exit_code == 0
    assert json.loads(done.stdout)["ready"] is True


async def test_a_server_that_is_not_ready_is_an_exit_code(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.server._draining = True
    done = await run("--url", served.admin_url)
    served.server._draining = False

    assert done.exit_code == 1
    assert "not ready: the server is stopping" in done.output


async def test_no_answer_is_an_exit_code_and_a_sentence() -> None:
    done = await run("--admin-port", str(find_free_port()))

    assert done.exit_code == 1
    assert "no answer from http://127.0.0.1:" in done.stderr


async def test_what_is_no_admin_port_is_told(served: Served) -> None:
    done = await run("--url", f"http://127.0.0.1:{served.server.port}")

    assert done.exit_code == 1
    assert "answers 404: no wallet-sync server?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--watch", "--json"], 2, "exclude each other"),
        (["--url", "ftp://example.com"], 2, "it looks like http://"),
        (["--admin-port", "0"], 1, "the admin port is off"),
    ],
)
async def test_what_can_not_be_done_is_told(arguments: list[str], code: int, said: str) -> None:
    done = await run(*arguments)

    assert done.exit_code == code
    assert said in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a POSIX system")
async def test_watching_goes_on_until_it_is_interrupted(served: Served) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "status", "--watch", "--url", served.admin_url),
        stdout=asyncio.subprocess.PIPE,
        env={**clean_environment(), "TERM": "xterm", "FORCE_COLOR": "1", "COLUMNS": "80"},
    )
    output: Any = process.stdout
    seen = b""
    async with asyncio.timeout(WAIT_S):
        while seen.count("● ready".encode()) < 2:
            seen += await output.read(4096)
        os.kill(process.pid, signal.SIGINT)
        await output.read()
        assert await process.wait() == 0
