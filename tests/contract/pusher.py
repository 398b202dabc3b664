"""A process that pushes to a few accounts as fast as it can, and prints what was acknowledged.

Run it with the path of a database; it ends when it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.contract.backends import Account, SqlBackend, make_password, open_sqlite
from wsserver.operations import LoadCredentials

ACCOUNTS = 4


async def push_forever(backend: SqlBackend, number: int) -> None:
    email = f"user{number}@example.com"
    credentials = await backend.perform(LoadCredentials(email))
    assert credentials is not None
    login = await Account(backend, credentials.account_id, email, make_password()).log_in()
    head = login.opened.head
    for sequence in itertools.count(1 if head is None else head.sequence + 1):
        await login.push(sequence, f"wallet {sequence} " + "x" * 2000, f"hmac {sequence}")
        # One write: a kill can't leave half a line.
        sys.stdout.write(f"{number} {sequence}\n")
        sys.stdout.flush()


async def main(path: Path) -> None:
    async with open_sqlite(path) as backend, asyncio.TaskGroup() as group:
        for number in range(ACCOUNTS):
            group.create_task(push_forever(backend, number))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
