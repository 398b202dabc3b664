"""A device in a process of its own, that can be killed: it does what it is told over a pipe."""

from __future__ import annotations

import asyncio
import random
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from wsclient import Session, SyncedWallet, Witness
from wsschema.messages import Kdf

EMAIL, ROOT_PASSWORD = "joe@example.com", "correct horse"
KDF = Kdf.scrypt(2**14)
PULL_S = 0.5
"""After which a device that has no connection is told to try again, whatever its backoff."""


def merge_marks(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
    """Sets of marks: what either side added is there, what either side removed is not."""
    shared, ours, others = (set(orjson.loads(wallet or b"[]")) for wallet in (base, mine, theirs))
    merged = (ours & others) | (ours - shared) | (others - shared)
    return orjson.dumps(sorted(merged))


def read_marks(value: bytes | None) -> set[str]:
    return set(orjson.loads(value or b"[]"))


def run_device(pipe: Connection, url: str, folder: Path, name: str) -> None:
    asyncio.run(_serve(pipe, url, folder, name))


async def _serve(pipe: Connection, url: str, folder: Path, name: str) -> None:
    def make_session(witness: Witness) -> Session:
        # Backoff is for servers that are overloaded; this one was killed.
        return Session(
            url,
            witness=witness,
            deliver="state",
            presence=True,
            call_timeout_s=2,
            random=lambda: random.random() * 0.05,
        )

    async with SyncedWallet(
        make_session,
        EMAIL,
        ROOT_PASSWORD,
        folder,
        merge_marks,
        device_name=name,
        minimum_kdf=KDF,
        debounce_s=0.005,
    ) as wallet:
        pipe.send(("open", wallet.device_id))
        while True:
            order, argument = await asyncio.to_thread(pipe.recv)
            pipe.send((order, await _obey(wallet, order, argument)))
            if order == "close":
                return


async def _obey(wallet: SyncedWallet, order: str, argument: Any) -> Any:
    match order:
        case "add":
            await wallet.change(lambda value: orjson.dumps(sorted({*read_marks(value), argument})))
        case "clear":
            await wallet.change(b"[]")
        case "settle":
            while True:
                try:
                    await wallet.pull(PULL_S)
                except TimeoutError:
                    continue
                return wallet.sequence, wallet.value
        case "close":
            return None
        case _:
            raise AssertionError(order)
    return None
