"""An answer never leaves before the `fdatasync` that covers it: in the order of the system's calls.

strace shows each write to SQLite's log and to the sockets with its data, and each sync as it
returns. A process that it has stopped at the end of a call can't go on before that is on record, so
that what is caused by a call stands behind it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.common import make_token, provision
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import RawClient, open_client
from tests.e2e.serving import ServerProcess

ACCOUNTS = 4
PUSHES = 40
CALLS = "write,writev,sendto,sendmsg,pwrite64,fdatasync,fsync"
STRING_BYTES = 16_384
MARK = re.compile(r"mark-\d+-\d+-end")
CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<file>\d+<[^>]*>)?")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")


class OutOfOrderError(AssertionError):
    """An answer left before it was synced."""


def check_order(lines: Iterable[str]) -> int:
    """How many marks were told over a socket, each after it was written to the log and synced.

    Raises OutOfOrderError.
    """
    written: set[str] = set()
    """Marks that stand in the log, and may not be on the disk."""
    covered: dict[str, set[str]] = {}
    """By thread: what the sync that it waits for will have covered."""
    synced: set[str] = set()
    told: set[str] = set()
    for line in lines:
        resumed = RESUMED.match(line)
        if resumed is not None:
            if resumed["name"] in ("fdatasync", "fsync") and resumed["thread"] in covered:
                found = covered.pop(resumed["thread"])
                synced |= found if "= 0" in resumed["rest"] else set()
            continue
        call = CALL.match(line)
        if call is None:
            continue
        marks = set(MARK.findall(line))
        if "wallets.db-wal" in (call["file"] or ""):
            if call["name"] not in ("fdatasync", "fsync"):
                written |= marks
            elif UNFINISHED in line:
                covered[call["thread"]] = set(written)
            elif line.rstrip().endswith("= 0"):
                synced |= written
        elif "socket:" in (call["file"] or "") or "TCP:" in (call["file"] or ""):
            if not marks <= synced:
                raise OutOfOrderError(f"told before it was synced: {sorted(marks - synced)}")
            told |= marks
    return len(told)


@asynccontextmanager
async def traced(server: ServerProcess) -> AsyncIterator[Path]:
    """strace writes what all threads of the server call; its file is whole afterwards."""
    path = server.folder / "trace"
    options = ["-f", "-y", "-qq", "-s", f"{STRING_BYTES}", "-e", f"trace={CALLS}"]
    tracer = await asyncio.create_subprocess_exec(
        "strace", *options, "-o", path, "-p", f"{server.pid}", stderr=subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        while not is_traced(server.pid):
            if tracer.returncode is not None:
                said = (await tracer.stderr.read()).decode()
                pytest.skip(f"processes can't be traced here: {said}")
            await asyncio.sleep(0.01)
        yield path
    finally:
        if tracer.returncode is None:
            tracer.send_signal(signal.SIGINT)
        await tracer.wait()


def is_traced(pid: int) -> bool:
    """Whether all threads of the process are."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return not any("TracerPid:\t0\n" in status for status in statuses)


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="strace is not installed"
)
async def test_no_answer_and_no_update_leaves_before_the_sync_that_covers_it(
    make_process: MakeProcess,
) -> None:
    server = make_process()
    url = server.settings["database_url"]
    await asyncio.to_thread(provision, url, ACCOUNTS, devices_each=2)
    await server.start()

    async with traced(server) as trace:
        await asyncio.gather(*(push_marks(server, account) for account in range(1, ACCOUNTS + 1)))

    lines = trace.read_text(errors="replace").splitlines()
    assert check_order(lines) == ACCOUNTS * PUSHES
    # It would have been noticed: the same calls without the syncs, and with late ones.
    with pytest.raises(OutOfOrderError):
        check_order(line for line in lines if "fdatasync" not in line)
    with pytest.raises(OutOfOrderError):
        check_order(delay_syncs(lines))


async def push_marks(server: ServerProcess, account: int) -> None:
    """Pushes ahead of the answers, while another device of the account is told of it."""
    async with open_client(server.url) as author, open_client(server.url) as listener:
        await author.call("session.resume", token=make_token(account, 1))
        await listener.call("session.resume", token=make_token(account, 2))
        waiting = [await push_mark(author, account, sequence) for sequence in (1, 2, 3)]
        for sequence in range(1, PUSHES + 1):
            await waiting.pop(0)
            if sequence + 3 <= PUSHES:
                waiting.append(await push_mark(author, account, sequence + 3))
        await listener.hear_sequence(PUSHES)


async def push_mark(client: RawClient, account: int, sequence: int) -> asyncio.Future[object]:
    mark = f"mark-{account}-{sequence}-end"
    wallet = {"sequence": sequence, "encryptedWallet": "a wallet", "hmac": mark}
    return await client.submit("wallet.push", **wallet, receipt=True)


def delay_syncs(lines: list[str]) -> Iterable[str]:
    """The same, but each sync stands behind the next write to a socket."""
    late: list[str] = []
    for line in lines:
        if "fdatasync" in line:
            late.append(line)
            continue
        yield line
        if "socket:" in line or "TCP:" in line:
            yield from late
            late = []


WRITE = '7 pwrite64(9</wallets.db-wal>, "mark-1-1-end", 4096, 32) = 4096'
TELL = '5 write(12<socket:[1]>, "mark-1-1-end", 12) = 12'


@pytest.mark.parametrize(
    ("lines", "sound"),
    [
        ([WRITE, "7 fdatasync(9</wallets.db-wal>) = 0", TELL], True),
        ([WRITE, TELL, "7 fdatasync(9</wallets.db-wal>) = 0"], False),
        (["7 fdatasync(9</wallets.db-wal>) = 0", WRITE, TELL], False),
        ([WRITE, "7 fdatasync(9</wallets.db-wal>) = -1 EIO (Input/output error)", TELL], False),
        ([WRITE, "7 fdatasync(8</wallets.db>) = 0", TELL], False),
        (
            [
                WRITE,
                "7 fdatasync(9</wallets.db-wal> <unfinished ...>",
                "7 <... fdatasync resumed>) = 0",
                TELL,
            ],
            True,
        ),
        (
            [
                WRITE,
                "7 fdatasync(9</wallets.db-wal> <unfinished ...>",
                TELL,
                "7 <... fdatasync resumed>) = 0",
            ],
            False,
        ),
        (
            [
                "7 fdatasync(9</wallets.db-wal> <unfinished ...>",
                WRITE,
                "7 <... fdatasync resumed>) = 0",
                TELL,
            ],
            False,
        ),
    ],
)
def test_an_answer_counts_as_covered_by_a_sync_that_began_after_its_write_and_returned(
    lines: list[str], sound: bool
) -> None:
    if sound:
        assert check_order(lines) == 1
    else:
        with pytest.raises(OutOfOrderError):
            check_order(lines)
