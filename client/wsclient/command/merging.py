"""How a profile merges what this device changed with what others changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.errors import CannotMerge
from wsclient.merge import JsonConflict, JsonMerge, Merge, last_writer_wins
from wsclient.merge.json_document import OptionalJson, read
from wsclient.merge.text import Lines, TextConflict, TextMerge, merge_text
from wsclient.merge.three_way import take_only_change

MERGES: Final = {
    "auto": "JSON where the wallet is JSON, else text where it is UTF-8, else the newest",
    "json": "by member, and of what both changed the greater value",
    "text": "by line, and of what both changed both",
    "newest": "as a whole, the wallet of the device that pushes last",
}
"""What --merge takes, and how each merges by itself, in the background."""

Prefer: TypeAlias = Literal["mine", "theirs"]
CONFLICTS_SHOWN_MAX: Final = 5


def make_merge(kind: str, identity: Mapping[str, str]) -> Merge:
    """The merge that a wallet syncs with; ``identity`` as of `JsonMerge`."""

    def merge(base: bytes | None, mine: bytes, theirs: bytes) -> bytes:
        match find_form(kind, mine, theirs):
            case "json":
                return JsonMerge(identity)(base, mine, theirs)
            case "text":
                return merge_text(base, mine, theirs)
        return last_writer_wins(base, mine, theirs)

    return merge


def merge_copy(
    kind: str,
    identity: Mapping[str, str],
    base: bytes | None,
    mine: bytes,
    theirs: bytes,
    prefer: Prefer | None = None,
) -> bytes:
    """A file's contents merged with the wallet, where a person can be asked.

    What both changed has the side that ``prefer`` names; with None it raises CommandFailed, with
    exit code 5, that says where.
    """
    only_change = take_only_change(base, mine, theirs)
    if only_change is not None:
        return only_change
    conflicts: list[str] = []

    def settle_json(conflict: JsonConflict) -> OptionalJson:
        conflicts.append("/" + "/".join(conflict.path))
        return conflict.theirs if prefer == "theirs" else conflict.mine

    def settle_text(conflict: TextConflict) -> Lines:
        conflicts.append(f"{max(len(conflict.mine), len(conflict.theirs))} lines")
        return conflict.theirs if prefer == "theirs" else conflict.mine

    match find_form(kind, mine, theirs):
        case "json":
            merged = JsonMerge(identity, settle_json)(base, mine, theirs)
        case "text":
            merged = TextMerge(settle_text)(base, mine, theirs)
        case _:
            conflicts.append("the wallet as a whole")
            merged = theirs if prefer == "theirs" else mine
    if conflicts and prefer is None:
        raise _conflict(conflicts)
    return merged


def find_form(kind: str, *wallets: bytes) -> str:
    """How these are merged under ``auto``; any other kind is its own answer."""
    if kind != "auto":
        return kind
    with contextlib.suppress(CannotMerge):
        for wallet in wallets:
            read(wallet, "it")
        return "json"
    with contextlib.suppress(UnicodeDecodeError):
        for wallet in wallets:
            wallet.decode()
        return "text"
    return "newest"


def _conflict(conflicts: list[str]) -> CommandFailed:
    shown = ", ".join(conflicts[:CONFLICTS_SHOWN_MAX])
    more = len(conflicts) - CONFLICTS_SHOWN_MAX
    return CommandFailed(
        "conflict",
        f"changed here and elsewhere: {shown}{f' and {more} more' if more > 0 else ''}",
        "pull, put both together, and push again; or push with --prefer mine or --prefer theirs",
        ExitCode.CONFLICT,
    )
