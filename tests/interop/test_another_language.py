"""The JavaScript of docs/how-to/speak-from-another-language.md does what the page says."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.serving import Served
from tests.pages import ROOT, blocks
from wsclient import Contents, Session, SyncedWallet, derive_keys, seal
from wsschema.messages import PushWallet

PAGE = ROOT / "docs/how-to/speak-from-another-language.md"
NODE_MAJOR_MIN = 20
RUN_TIMEOUT_S = 60
ROUNDS = 10
ACCOUNT = ("joe@example.com", "correct horse")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with the page's files."""
    node = shutil.which("node")
    version = node and subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if not version or int(version[1:].partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"needs node {NODE_MAJOR_MIN} or later")
    for block in blocks(PAGE):
        name = re.match(r"// (\S+)\n", block.text)
        if name is not None:
            (tmp_path / name[1]).write_text(block.text)
    return tmp_path


class List:
    """The page's shopping list, on a device of its own, and a line of it at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, program: Path, url: str) -> List:
        command = ["node", "--experimental-websocket", "--no-warnings", "list.mjs", url]
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                *ACCOUNT,
                "tablet",
                "new",
                cwd=program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    def add(self, item: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{item}\n".encode())

    async def show(self) -> list[str]:
        """The items, as they are printed next."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, await self.end()
        return line.decode().strip().split(", ")

    async def end(self) -> tuple[int | None, str]:
        """The exit code, and what was complained of."""
        _, complaints = await self._process.communicate(b"")
        return self._process.returncode, complaints.decode()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    server = await Served.start(tmp_path)
    yield server
    await server.stop()


def test_the_cryptography_agrees_with_the_vectors(program: Path) -> None:
    done = subprocess.run(
        ["node", "vectors.mjs", ROOT / "schema/vectors"],
        cwd=program,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "all vectors agree\n"), done.stderr


async def test_what_either_side_adds_both_have_whoever_is_late(
    program: Path, served: Served, tmp_path: Path
) -> None:
    tablet = await List.start(program, served.url)
    tablet.add("milk")
    assert await tablet.show() == ["milk"]
    own = [f"from the phone {number}" for number in range(ROUNDS)]
    others = [f"from the tablet {number}" for number in range(ROUNDS)]
    folder = tmp_path / "phone"

    async with (
        asyncio.timeout(RUN_TIMEOUT_S),
        SyncedWallet(served.url, *ACCOUNT, folder, merge, debounce_s=0) as phone,
    ):
        await phone.sync()
        assert phone.value == b"milk"
        events = phone.events()
        for mine, theirs in zip(own, others, strict=True):
            tablet.add(theirs)
            await phone.change(items_to_wallet([*items(phone.value), mine]))
            await phone.sync()
        while len(items(phone.value)) <= 2 * ROUNDS:
            await anext(events)
        shown = await tablet.show()
        while len(shown) <= 2 * ROUNDS:
            shown = await tablet.show()

    assert set(shown) == {"milk", *own, *others}
    assert set(items(phone.value)) == set(shown)
    assert await tablet.end() == (0, "")


def items(wallet: bytes | None) -> list[str]:
    return wallet.decode().split("\n") if wallet else []


def items_to_wallet(items: list[str]) -> bytes:
    return "\n".join(items).encode()


def merge(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    known = items(base) + items(theirs)
    added = [item for item in items(mine) if item not in known]
    return items_to_wallet([*items(theirs), *added])


@pytest.mark.parametrize(
    ("previous", "devices", "reason"),
    [
        ("the tablet's", {"phone": 2}, "overwritten"),
        ("another", {"tablet": 1, "phone": 2}, "forked"),
    ],
)
async def test_a_history_that_the_tablets_own_is_not_part_of_stops_it(
    program: Path, served: Served, previous: str, devices: dict[str, int], reason: str
) -> None:
    tablet = await List.start(program, served.url)
    tablet.add("milk")
    await tablet.show()

    async with Session(served.url) as phone:
        keys = await derive_keys(phone, *ACCOUNT)
        await phone.login(keys, device_id="phone")
        hmac = (await phone.get()).hmac if previous == "the tablet's" else "00"
        await phone.push(2, seal(keys, 2, Contents(b"bread", hmac, devices)))

        assert await tablet.end() == (1, f"stopped: {reason}\n")


async def test_a_state_that_was_not_made_with_the_accounts_keys_stops_it(
    program: Path, served: Served
) -> None:
    tablet = await List.start(program, served.url)
    tablet.add("milk")
    await tablet.show()

    async with Session(served.url) as phone:
        keys = await derive_keys(phone, *ACCOUNT)
        await phone.login(keys, device_id="phone")
        await phone.call(PushWallet(2, seal(keys, 2, Contents(b"", None, {})), "00"))

        assert await tablet.end() == (1, "stopped: bad_hmac\n")
