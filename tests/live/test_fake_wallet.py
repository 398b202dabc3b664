"""The wallet of these tests has what the real one has, called the same way."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.live.fake_wallet import FakeWallet
from wsclient.wallet import SyncedWallet

METHODS = {
    name for name, _ in inspect.getmembers(SyncedWallet, callable) if not name.startswith("_")
}
VALUES = {
    *("value", "sequence", "status", "stopped", "device_id", "unsynced", "local_key"),
    *("round_trip_s", "email", "folder"),
}


@pytest.mark.parametrize("name", sorted(METHODS))
async def test_every_method_is_called_as_the_real_one(name: str) -> None:
    assert str(_read_signature(FakeWallet, name)) == str(_read_signature(SyncedWallet, name))


async def test_every_value_is_one_of_the_real_wallet(tmp_path: Path) -> None:
    real = SyncedWallet("ws://127.0.0.1:1/v1", "joe@example.com", "x", tmp_path, lambda b, m, t: t)
    on_class = {name for name, _ in inspect.getmembers(SyncedWallet, inspect.isdatadescriptor)}

    assert {name for name in {*vars(real), *on_class} if not name.startswith("_")} == VALUES
    assert set(vars(FakeWallet())) >= VALUES


def _read_signature(wallet: type, name: str) -> inspect.Signature:
    return inspect.signature(getattr(wallet, name))
