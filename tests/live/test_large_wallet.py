"""A wallet as large as a server takes, with thousands of values in it."""

from __future__ import annotations

import json
import time

from tests.live.stage import Stage, open_stage
from wsschema.limits import Limits

ENTRIES = 2500
QUICK_S = 2.0
"""Many times what it takes; what grows with the square of a wallet takes longer."""


def make_wallet() -> dict[str, list[dict[str, object]]]:
    return {
        "entries": [
            {"id": f"e{n}", "name": f"entry number {n}", "note": "x" * 20, "amount": n, "ok": True}
            for n in range(ENTRIES)
        ]
    }


def unfold_all(stage: Stage) -> None:
    stage.app.wallet_tree._folded.clear()
    stage.app.wallet_tree._lay_out()


async def test_it_is_shown_and_a_change_in_it_lays_out_nothing_anew() -> None:
    wallet = make_wallet()
    value = json.dumps(wallet).encode()
    assert 200_000 < len(value) < Limits().wallet_bytes
    async with open_stage(value) as stage:
        await stage.until_shown("entries: [2,500] {…}, {…}")
        unfold_all(stage)
        rows = stage.app.wallet_tree.rows
        assert len(rows) == 2 + 6 * ENTRIES

        wallet["entries"][2000]["amount"] = 7777
        started_s = time.monotonic()
        stage.wallet.arrive(json.dumps(wallet).encode())
        await stage.until_told("phone changed entries[2000].amount")

        assert time.monotonic() - started_s < QUICK_S
        assert stage.app.wallet_tree.rows is rows


async def test_an_entry_in_its_midst_is_added_while_all_of_it_is_open() -> None:
    wallet = make_wallet()
    async with open_stage(json.dumps(wallet).encode()) as stage:
        unfold_all(stage)

        wallet["entries"].insert(1000, {"id": "new"})
        started_s = time.monotonic()
        stage.wallet.arrive(json.dumps(wallet).encode())
        await stage.until_told("phone changed entries[1000]")

        assert time.monotonic() - started_s < QUICK_S
        assert len(stage.app.wallet_tree.rows) == 2 + 6 * ENTRIES + 2
