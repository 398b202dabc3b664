"""The units of systemd: they say what systemd understands, and leave the server what it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.activation import Manager
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import open_client
from tests.e2e.serving import COMMAND
from tests.pages import ROOT

UNITS = ROOT / "deploy/systemd"
SERVICE = (UNITS / "wsserver.service").read_text()
EXPOSURE_MAX = 15
"""In tenths, as `systemd-analyze security` counts; 96 is a service with nothing set."""

# What MemoryDenyWriteExecute=yes does (prctl(2), PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN).
DENY = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit("no PR_SET_MDWE")
os.execv(sys.argv[1], sys.argv[1:])
"""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def can_deny() -> bool:
    tried = subprocess.run([sys.executable, "-c", DENY, "/bin/true"], timeout=60, check=False)
    return tried.returncode == 0


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        # The program is where the page says; here it is where the tests' own is.
        text = unit.read_text().replace("/opt/wallet-sync/bin/wsserver", COMMAND[0])
        (tmp_path / unit.name).write_text(text)

    done = analyze("verify", "--man=no", *sorted(tmp_path.iterdir()))

    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@needs_systemd
def test_the_service_is_exposed_to_little() -> None:
    done = analyze(
        "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", UNITS / "wsserver.service"
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd is older than 250: it can't say how exposed a unit is")

    assert done.returncode == 0, done.stdout


def test_the_socket_has_a_name_that_the_server_knows() -> None:
    assert "FileDescriptorName=wsserver\n" in (UNITS / "wsserver.socket").read_text()
    assert re.search(r"^WatchdogSec=\d+$", SERVICE, re.MULTILINE)
    assert "Type=notify\n" in SERVICE


async def test_the_server_runs_where_no_memory_may_become_code(
    make_process: MakeProcess, tmp_path: Path
) -> None:
    assert "MemoryDenyWriteExecute=yes" in SERVICE
    if not can_deny():
        pytest.skip("this system can't deny it (Linux can since 6.3)")
    manager = Manager(tmp_path)
    manager.listen("wsserver")
    server = make_process()
    manager.adopt(server)
    server.command = [sys.executable, "-c", DENY, *server.command]
    await server.start()

    async with open_client(server.url) as client:
        await client.register("joe@example.com")
        await client.login("joe@example.com")
        assert (await client.push(1))["sequence"] == 1
    manager.close()
