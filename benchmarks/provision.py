"""Writes accounts with logged-in devices straight into a database, for load tests.

    python -m benchmarks.provision DATABASE_URL --accounts N --devices M --out FILE

No password is hashed for them, so that 300,000 accounts take half a minute.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from benchmarks.common import make_device_id, make_email, make_token, provision
from wsserver.store.errors import StoreError

EPILOG = """
The database may be new, or hold accounts already; a server may run on it. What each line of FILE
says is enough to open a session: {"account": 1, "email": "user1@example.com", "deviceId":
"device 1", "token": "..."}; so FILE is readable by its owner alone. Accounts are numbered from
where the database ends; the same command once more adds as many again.

examples:
  python -m benchmarks.provision sqlite:///load.db --accounts 1000 --out devices.jsonl
  python -m benchmarks.provision sqlite:///load.db --accounts 10 --password 'correct horse' \\
      --out devices.jsonl          (they can also log in)
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.provision",
        description="Writes accounts with logged-in devices straight into a database.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "database_url", metavar="DATABASE_URL", help="as of the server: sqlite:///FILE"
    )
    parser.add_argument("--accounts", metavar="N", type=positive, required=True, help="how many")
    parser.add_argument(
        "--devices", metavar="M", type=positive, default=1, help="of each account; 1 unless given"
    )
    parser.add_argument("--password", help="of all accounts; without it nobody can log in")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="a line of JSON for each device"
    )
    arguments = parser.parse_args()
    try:
        write_accounts(arguments, Console(stderr=True))
    except (StoreError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


def write_accounts(arguments: argparse.Namespace, console: Console) -> None:
    """Fill the database and the file, with a progress bar where someone looks on."""
    # Nobody can guess these tokens: the database may be one that is served from.
    seed = secrets.token_hex(16)
    started_s = time.monotonic()
    columns = ("accounts", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    opener = lambda path, flags: os.open(path, flags, mode=0o600)  # noqa: E731
    with (
        open(arguments.out, "wb", opener=opener) as out,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("", total=arguments.accounts)

        def write_devices(numbers: range) -> None:
            for number in numbers:
                for device in range(1, arguments.devices + 1):
                    line = {
                        "account": number,
                        "email": make_email(number),
                        "deviceId": make_device_id(device),
                        "token": make_token(number, device, seed=seed),
                    }
                    out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            progress.advance(task, len(numbers))

        provision(
            arguments.database_url,
            arguments.accounts,
            devices_each=arguments.devices,
            password=arguments.password,
            seed=seed,
            tell=write_devices,
        )
    console.print(
        f"{arguments.accounts:,} accounts, {arguments.accounts * arguments.devices:,} devices, "
        f"in {time.monotonic() - started_s:.1f} s; their tokens are in {arguments.out}"
    )


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
