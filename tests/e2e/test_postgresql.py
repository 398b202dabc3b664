"""The real command on PostgreSQL: what two devices, and the operator, do with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import Databases
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import RawClient, open_socket
from tests.e2e.serving import clean_environment, find_command


async def open_client(url: str) -> RawClient:
    return RawClient(await open_socket(url))


async def test_two_devices_sync_and_the_wallet_survives_a_restart(
    databases: Databases, make_process: MakeProcess
) -> None:
    process = make_process(database_url=databases.create())
    await process.start()
    laptop, phone = await open_client(process.url), await open_client(process.url)
    await laptop.register("joe@example.com")
    await laptop.login("joe@example.com", "laptop")
    await phone.login("joe@example.com", "phone")
    await laptop.call("wallet.push", sequence=1, encryptedWallet="sealed", hmac="mac")
    await phone.hear_sequence(1)
    await laptop.close()
    await phone.close()
    process.end()

    await process.start()
    tablet = await open_client(process.url)
    await tablet.login("joe@example.com", "tablet")
    assert (await tablet.call("wallet.get"))["encryptedWallet"] == "sealed"
    await tablet.close()


async def test_a_second_process_without_a_bus_says_why_it_does_not_start(
    databases: Databases, make_process: MakeProcess
) -> None:
    url = databases.create()
    first, second = (make_process(database_url=url, bus_url="none") for _ in range(2))
    await first.start()
    second.launch()
    assert await second.wait() != 0
    assert "there is no bus between the two" in second.log


def test_commands_of_a_file_say_what_to_do_instead(databases: Databases, tmp_path: Path) -> None:
    done = subprocess.run(
        [*find_command(), "backup", "--database-url", databases.create(), "copy.db"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "pg_dump" in done.stderr
