"""A value as the rows of a tree."""

from __future__ import annotations

from wsclient.live.outline import close_at_first, lay_out, preview
from wsclient.merge.json_document import Json

WALLET: Json = {"owner": "Joe", "accounts": [{"id": 1, "tags": []}, {"id": 2}], "none": None}


def draw(value: Json, closed: set[tuple[str | int, ...]]) -> list[str]:
    return [
        f"{row.branches}{row.path[-1] if row.path else '.'}{' v' if row.open else ''}"
        for row in lay_out(value, closed)
    ]


def test_every_value_has_a_row_with_the_branches_that_lead_to_it() -> None:
    assert draw(WALLET, set()) == [
        ". v",
        "├─owner",
        "├─accounts v",
        "│ ├─0 v",
        "│ │ ├─id",
        "│ │ └─tags",
        "│ └─1 v",
        "│   └─id",
        "└─none",
    ]


def test_what_is_in_a_closed_container_has_no_rows() -> None:
    assert draw(WALLET, {("accounts", 0)}) == [
        ". v",
        "├─owner",
        "├─accounts v",
        "│ ├─0",
        "│ └─1 v",
        "│   └─id",
        "└─none",
    ]


def test_a_small_wallet_is_open_and_of_a_large_one_the_outer_containers() -> None:
    large: Json = {"settings": {"a": 1}, "entries": [{"n": n} for n in range(30)]}

    assert close_at_first(WALLET, rows_max=20) == set()
    assert len(lay_out(large, close_at_first(large, rows_max=40))) == 1 + 2 + 1 + 30
    assert len(lay_out(large, close_at_first(large, rows_max=10))) == 1 + 2


def test_a_closed_container_shows_what_it_begins_with() -> None:
    assert preview(WALLET) == 'owner: "Joe", accounts: […], none: null'
    assert preview([{}, [], {"a": 1}]) == "{}, [], {…}"
    assert len(preview(["x" * 50] * 1000)) < 250
