"""A stock JSON-RPC-over-WebSocket client from the npm registry works, unmodified."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import Served

HERE = Path(__file__).parent
INSTALL_TIMEOUT_S = 90
RUN_TIMEOUT_S = 60


@pytest.fixture
def packages() -> Path:
    """The folder with the script and the packages it needs, as the lock file names them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm, and they are not installed")
    installed = HERE / "node_modules" / ".package-lock.json"
    if (
        not installed.exists()
        or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime
    ):
        install(npm)
    return HERE


def install(npm: str) -> None:
    command = [npm, "ci", "--omit=optional", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command,
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry has not answered within {INSTALL_TIMEOUT_S} s")
    unreachable = (
        "ENOTFOUND",
        "ECONNREFUSED",
        "ETIMEDOUT",
        "EAI_AGAIN",
        "ECONNRESET",
        "ENETUNREACH",
    )
    if done.returncode and any(word in done.stderr for word in unreachable):
        pytest.skip("the npm registry can't be reached")
    assert done.returncode == 0, done.stderr


async def run_script(packages: Path, url: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        "node",
        "devices.mjs",
        url,
        cwd=packages,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(RUN_TIMEOUT_S):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return json.loads(stdout)


async def test_two_stock_clients_stay_in_sync(packages: Path, tmp_path: Path) -> None:
    served = await Served.start(tmp_path)
    try:
        seen = await run_script(packages, served.url)
    finally:
        await served.stop()

    assert seen["info"]["protocol"] == 1
    assert seen["registered"] == {"verified": True}
    assert seen["keyDerivation"]["kdf"]["n"] == 16384
    assert (seen["refused"]["code"], seen["refused"]["data"]) == (
        401,
        {"reason": "not_authenticated"},
    )
    assert seen["pushed"]["sequence"] == 1
    assert seen["heard"]["deviceId"] == "laptop"
    assert seen["heard"]["wallet"] == seen["pushed"]
    assert seen["conflict"]["code"] == 409
    assert seen["conflict"]["data"] == {
        "reason": "conflict",
        "wallet": seen["pushed"],
        "landed": False,
    }
    assert seen["merged"]["encryptedWallet"] == "from the laptop, and from the phone"
    assert seen["wallet"] == seen["merged"]
    assert seen["revoking"] == {}
    assert seen["revoked"] == {"reason": "device_revoked"}
    assert seen["closed"] == 4401
