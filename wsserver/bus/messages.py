"""What nodes say to each other, and its form: JSON in ASCII, short enough for a NOTIFY. Pure.

Ids and sequences only: no wallet, no token, no address. A node that is told something that it does
not know (a newer node speaks) knows that it has missed something, and asks the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, assert_never

from wsschema.frozen import frozen
from wsserver.operations import Applied

VERSION: Final = 1
PAYLOAD_BYTES_MAX: Final = 7900
"""PostgreSQL takes payloads below 8,000 bytes."""
_ENVELOPE_BYTES: Final = 100


@frozen
class Stands:
    """The account's wallet stands at that sequence, or at a later one."""

    account_id: int
    sequence: int


@frozen
class Ended:
    """Sessions of the account are over, for that reason: of one device, or of any."""

    account_id: int
    reason: str
    device_id: str | None


@frozen
class Came:
    """The device has a session at the node."""

    account_id: int
    device_id: str


@frozen
class Went:
    """The device has no session at the node any more."""

    account_id: int
    device_id: str


@frozen
class Asks:
    """The node begins to serve the account: whoever has devices of it is to say which."""

    account_id: int


@frozen
class Counts:
    """Every node is to say which devices of the account it has, none too, under that number."""

    account_id: int
    number: int


@frozen
class Counted:
    """The answer to a `Counts` of that node and number."""

    asker: str
    number: int
    device_ids: tuple[str, ...]


@frozen
class Farewell:
    """The node ends in good order."""


Entry = Stands | Ended | Applied | Came | Went | Asks | Counts | Counted | Farewell


@frozen
class Message:
    """What one node said at once.

    ``number``: of the message, by its node; without entries, of the last before it; 0 where the
    transport does not bring every node all messages. ``understood`` is False where there was more
    in it than this version knows.
    """

    node: str
    number: int
    entries: tuple[Entry, ...]
    understood: bool = True


class Unreadable(Exception):
    """It is no message of this version."""


def encode(node: str, number: int, entries: Iterable[str] = ()) -> str:
    """The payload of a message; its entries have been written by `write`."""
    return f'{{"v":{VERSION},"n":"{node}","i":{number},"e":[{",".join(entries)}]}}'


def pack(entries: Iterable[Entry]) -> Iterator[list[str]]:
    """The entries, written, in as few messages as hold them."""
    packed: list[str] = []
    room = PAYLOAD_BYTES_MAX - _ENVELOPE_BYTES
    for entry in entries:
        written = write(entry)
        if len(written) + 1 > room and packed:
            yield packed
            packed, room = [], PAYLOAD_BYTES_MAX - _ENVELOPE_BYTES
        packed.append(written)
        room -= len(written) + 1
    if packed:
        yield packed


def write(entry: Entry) -> str:
    """One entry of a payload."""
    match entry:
        case Stands(account_id, sequence):
            return f'["s",{account_id},{sequence}]'
        case Ended(account_id, reason, device_id):
            return _write("r", account_id, reason, device_id)
        case Applied(account_id, device_id, sequence):
            return _write("a", account_id, device_id, sequence)
        case Came(account_id, device_id):
            return _write("c", account_id, device_id)
        case Went(account_id, device_id):
            return _write("w", account_id, device_id)
        case Asks(account_id):
            return _write("q", account_id)
        case Counts(account_id, number):
            return _write("n", account_id, number)
        case Counted(asker, number, device_ids):
            return _write("d", asker, number, device_ids)
        case Farewell():
            return _write("f")
        case _:
            assert_never(entry)


def _write(*members: object) -> str:
    return json.dumps(members, separators=(",", ":"))


def decode(payload: str | bytes) -> Message:
    """The message; raises Unreadable."""
    try:
        parsed = json.loads(payload)
        if parsed["v"] != VERSION:
            raise Unreadable
        node, number, listed = parsed["n"], parsed["i"], parsed["e"]
        if not (isinstance(node, str) and isinstance(number, int) and isinstance(listed, list)):
            raise Unreadable
    except (ValueError, KeyError, TypeError):
        raise Unreadable from None
    entries = [_read(item) for item in listed]
    known = tuple(entry for entry in entries if entry is not None)
    return Message(node, number, known, understood=len(known) == len(entries))


def _read(item: Any) -> Entry | None:
    match item:
        case ["s", int(account_id), int(sequence)]:
            return Stands(account_id, sequence)
        case ["r", int(account_id), str(reason), str() | None as device_id]:
            return Ended(account_id, reason, device_id)
        case ["a", int(account_id), str(device_id), int(sequence)]:
            return Applied(account_id, device_id, sequence)
        case ["c", int(account_id), str(device_id)]:
            return Came(account_id, device_id)
        case ["w", int(account_id), str(device_id)]:
            return Went(account_id, device_id)
        case ["q", int(account_id)]:
            return Asks(account_id)
        case ["n", int(account_id), int(number)]:
            return Counts(account_id, number)
        case ["d", str(asker), int(number), [*device_ids]]:
            return Counted(asker, number, tuple(map(str, device_ids)))
        case ["f"]:
            return Farewell()
        case _:
            return None
