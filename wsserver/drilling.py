"""A restore drill: a backup is restored aside, and a server on it must answer with what is in it.

Nothing of what is served from is touched. The server is a process of its own, as an operator would
start it, with none of this process's settings; it listens on loopback, and is gone at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from wsschema.limits import PATH
from wsserver.methods import hash_token
from wsserver.processes import end_process
from wsserver.store.backup_folder import find_newest
from wsserver.store.backups import count_rows, open_file, restore
from wsserver.store.errors import StoreError

WALLETS_READ_MAX: Final = 100
"""Those that were pushed last are read through the server."""
STARTS_MAX: Final = 3
"""How often a server is started whose port somebody else takes meanwhile."""
START_TIMEOUT_S: Final = 120.0
ANSWER_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
POLL_INTERVAL_S: Final = 0.05
TOLD_TABLES: Final = ("accounts", "devices", "versions")

_DEVICE_ID: Final = "restore-drill"


@dataclass(frozen=True, slots=True)
class Report:
    """A drill that was passed: the rows by table, and the seconds by what was done."""

    file: Path
    rows: Mapping[str, int]
    wallets_read: int
    spent_s: Mapping[str, float]

    @property
    def total_s(self) -> float:
        """From the first byte read to the last answer."""
        return sum(self.spent_s.values())


@dataclass(frozen=True, slots=True)
class _Expected:
    """A wallet of the backup, and the token with which the server is asked for it."""

    account_id: int
    sequence: int
    hmac: str
    encrypted_wallet: str
    token: str


def drill(backup: Path, *, scratch: Path | None = None) -> Report:
    """Restore the backup, or a folder's newest one, and check it; raises StoreError if it fails."""
    file = find_newest(backup) if backup.is_dir() else backup
    if scratch is not None and not scratch.is_dir():
        raise StoreError(f"there is no folder {scratch}")
    spent_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="wsserver-drill-", dir=scratch) as workplace:
        database = Path(workplace) / "wallet-sync.db"
        url = URL.create("sqlite", database=str(database))
        with _measure(spent_s, "restored"):
            # With the tokens, so that every row must be there again.
            restore(url, file, keep_tokens=True, replace=False, progress=lambda done, total: None)
            rows = _check_rows(file, database)
            wallets = _let_in(file, database)
        with contextlib.ExitStack() as running:
            with _measure(spent_s, "ready"):
                address = running.enter_context(_run_server(database))
            with _measure(spent_s, "wallets"):
                for wallet in wallets:
                    _check_wallet(address, wallet)
    return Report(file, rows, len(wallets), spent_s)


@contextlib.contextmanager
def _measure(spent_s: dict[str, float], name: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    spent_s[name] = time.monotonic() - began_s


def _check_rows(file: Path, database: Path) -> dict[str, int]:
    with open_file(file, reading=True) as backup, open_file(database) as restored:
        expected, found = count_rows(backup), count_rows(restored)
    for name, count in expected.items():
        # A table that a later version has done without is in the older backup alone.
        if found.get(name, count) != count:
            raise StoreError(
                f"the table {name} has {found[name]:,} rows once restored; the backup has {count:,}"
            )
    return expected


def _let_in(file: Path, database: Path) -> list[_Expected]:
    """The wallets pushed last, each with a device of the drill's own in the restored database."""
    with open_file(file, reading=True) as backup:
        newest = backup.execute(
            "SELECT account_id, max(versions.sequence), hmac, encrypted_wallet FROM versions "
            "JOIN accounts ON accounts.id = account_id WHERE verified AND NOT disabled "
            "GROUP BY account_id ORDER BY updated_at DESC LIMIT ?",
            (WALLETS_READ_MAX,),
        ).fetchall()
    wallets = [
        _Expected(account_id, sequence, hmac.decode(), wallet.decode(), secrets.token_hex(32))
        for account_id, sequence, hmac, wallet in newest
    ]
    now_ms = time.time_ns() // 1_000_000
    with open_file(database) as restored:
        restored.executemany(
            "INSERT INTO devices (account_id, device_id, token_hash, token_used_at, created_at, "
            "last_seen_at, applied_sequence) VALUES (?, ?, ?, ?, ?, ?, 0)",
            [
                (wallet.account_id, _DEVICE_ID, hash_token(wallet.token), now_ms, now_ms, now_ms)
                for wallet in wallets
            ],
        )
    return wallets


@contextlib.contextmanager
def _run_server(database: Path) -> Iterator[str]:
    """The address of a server that is ready, on the database; ended afterwards."""
    process, address = _start_server(database)
    try:
        yield address
    finally:
        end_process(process, timeout_s=STOP_TIMEOUT_S)


def _start_server(database: Path) -> tuple[subprocess.Popen[bytes], str]:
    starts = 0
    while True:
        starts += 1
        port, admin_port = _find_free_ports()
        process = _launch(database, port, admin_port)
        try:
            _wait_until_ready(
                process, f"http://127.0.0.1:{admin_port}/readyz", database.parent / "log"
            )
        except BaseException as error:
            end_process(process, timeout_s=STOP_TIMEOUT_S)
            # Somebody else may have taken a port since it was found free.
            if starts < STARTS_MAX and "Address already in use" in str(error):
                continue
            raise
        return process, f"ws://127.0.0.1:{port}{PATH}"


def _launch(database: Path, port: int, admin_port: int) -> subprocess.Popen[bytes]:
    with open_file(database) as restored:
        # Another depth would lay the versions out anew, and drop some.
        kept = restored.execute("SELECT history_depth FROM installation").fetchall()
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "admin_host": "127.0.0.1",
        "admin_port": admin_port,
        "database_url": f"sqlite:///{database}",
        "rate_limits": "off",
    }
    if kept:
        settings["history_depth"] = kept[0][0]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    own = {name: value for name, value in os.environ.items() if not name.startswith("WSSERVER_")}
    with (database.parent / "log").open("w") as log:
        return subprocess.Popen(  # noqa: S603  # this program, with flags of its own
            [sys.executable, "-m", "wsserver.cli", "serve", *flags],
            cwd=database.parent,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _find_free_ports() -> Sequence[int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends_at_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends_at_s:
        # Refused while it starts, 503 while it is not ready.
        with contextlib.suppress(OSError), opener.open(url, timeout=ANSWER_TIMEOUT_S):
            return
        if process.poll() is not None:
            said = log.read_text().strip().splitlines() or ["nothing"]
            raise StoreError(f"no server starts on the restored database; it said: {said[-1]}")
        time.sleep(POLL_INTERVAL_S)
    raise StoreError(f"a server on the restored database was not ready in {START_TIMEOUT_S:g} s")


def _check_wallet(address: str, expected: _Expected) -> None:
    found = _call(address, "session.resume", token=expected.token, since=0)
    wallet = found["wallet"] or {}
    if (wallet.get("sequence"), wallet.get("hmac"), wallet.get("encryptedWallet")) != (
        expected.sequence,
        expected.hmac,
        expected.encrypted_wallet,
    ):
        raise StoreError(
            f"the server on the restored database has another wallet of account "
            f"{expected.account_id} than the backup"
        )


def _call(address: str, method: str, **params: Any) -> Any:
    """The result of a call on a connection of its own; raises StoreError where there is none."""
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    try:
        with connect(
            address, open_timeout=ANSWER_TIMEOUT_S, max_size=None, compression=None, proxy=None
        ) as client:
            client.send(call)
            answer = json.loads(client.recv(ANSWER_TIMEOUT_S))
    except (OSError, WebSocketException) as error:
        raise StoreError(
            f"the server on the restored database does not answer: {type(error).__name__}"
        ) from None
    if "error" in answer:
        raise StoreError(
            f"the server on the restored database answers {method} with "
            f"{answer['error']['code']} {answer['error']['message']}"
        )
    return answer["result"]
