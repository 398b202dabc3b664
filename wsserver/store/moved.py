"""What moved, of many accounts at once: for a node that may have missed what other nodes told."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import BindParameter, Connection, bindparam, func, select

from wsserver.operations import FindMoved, Moved
from wsserver.store import wallets
from wsserver.store.context import Context
from wsserver.store.tables import accounts, devices, versions

_GIVEN: BindParameter[int] = bindparam("account_ids", expanding=True)
_SEQUENCES = (
    select(versions.c.account_id, func.max(versions.c.sequence))
    .where(versions.c.account_id.in_(_GIVEN))
    .group_by(versions.c.account_id)
)
_STATES = (
    select(versions).join_from(accounts, versions, wallets.LATEST).where(accounts.c.id.in_(_GIVEN))
)
_TOKENS = select(devices.c.account_id, devices.c.device_id, devices.c.token_hash).where(
    devices.c.account_id.in_(_GIVEN)
)
_DISABLED = select(accounts.c.id, accounts.c.disabled).where(accounts.c.id.in_(_GIVEN))


def find_moved(connection: Connection, context: Context, operation: FindMoved) -> tuple[Moved, ...]:
    """Those of the accounts that are not as the node knows them."""
    known = {one.account_id: one for one in operation.standings}
    given = {"account_ids": [*known]}
    sequences = {row[0]: row[1] for row in connection.execute(_SEQUENCES, given)}
    newer = [one for one in known if sequences.get(one, 0) > known[one].sequence]
    rows = connection.execute(_STATES, {"account_ids": newer[: operation.states_max]})
    states = {row.account_id: wallets.state_of_row(row) for row in rows}
    # After the states: who has a live token has their key.
    tokens = {(row[0], row[1]): row[2] for row in connection.execute(_TOKENS, given)}
    disabled = {row[0]: row[1] for row in connection.execute(_DISABLED, given)}
    moved = []
    for account_id, standing in known.items():
        ended = tuple(
            (token_hash, _tell_end(account_id, device_id, tokens, disabled))
            for device_id, token_hash in standing.sessions
            if disabled.get(account_id, True) or tokens.get((account_id, device_id)) != token_hash
        )
        state = states.get(account_id)
        # The state may have been pushed after the sequences were read.
        sequence = sequences.get(account_id, 0) if state is None else state.sequence
        if ended or sequence > standing.sequence:
            moved.append(Moved(account_id, sequence, state, ended))
    return tuple(moved)


def _tell_end(
    account_id: int,
    device_id: str,
    tokens: Mapping[tuple[int, str], bytes | None],
    disabled: Mapping[int, bool],
) -> str | None:
    """Why a token of the device has ended, as far as can be told."""
    if account_id not in disabled:
        return "account_deleted"
    if disabled[account_id]:
        return "account_disabled"
    if (account_id, device_id) not in tokens:
        return "device_revoked"
    return "replaced" if tokens[account_id, device_id] is not None else None
