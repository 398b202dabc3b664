"""The walk-through of that server's own test client, step by step, against the gateway."""

from __future__ import annotations

from tests.lbry.client import WalletState
from tests.lbry.conftest import Gateway


async def test_the_walkthrough_of_that_servers_own_client(gateway: Gateway) -> None:
    # Initial setup and account recovery.
    c1 = gateway.client("joe2@example.com", "123abc2")
    c2 = gateway.client("joe2@example.com", "123abc2")
    assert await c1.register()
    await c1.get_auth_token()
    await c2.get_auth_token()
    assert len({c1.token, c2.token}) == 2

    # Syncing.
    c1.new_wallet_state()
    assert await c1.update_wallet()
    assert c1.synced == WalletState(1, "-")
    await c2.get_wallet()
    assert c2.synced == WalletState(1, "-")

    # Updating.
    assert await c2.update_wallet()
    assert c2.synced == WalletState(2, "-")
    await c1.get_wallet()
    assert c1.synced == WalletState(2, "-")

    # Wallet changes.
    assert c1.cur_encrypted_wallet() == "-"
    c1.change_encrypted_wallet()
    first = c1.cur_encrypted_wallet()
    assert len(first) == len("-:a776")
    assert await c1.update_wallet()
    await c2.get_wallet()
    assert c2.synced == WalletState(3, first)

    # Merging changes.
    c1.change_encrypted_wallet()
    c2.change_encrypted_wallet()
    ours, theirs = c1.cur_encrypted_wallet(), c2.local_changes
    assert await c1.update_wallet()
    assert c1.synced == WalletState(4, ours)
    await c2.get_wallet()
    assert c2.cur_encrypted_wallet() == ours + theirs
    assert await c2.update_wallet()
    await c1.get_wallet()
    assert c1.synced == WalletState(5, ours + theirs)

    # Conflicts.
    c2.change_encrypted_wallet()
    assert await c2.update_wallet()
    c1.change_encrypted_wallet()
    late = c1.local_changes
    assert not await c1.update_wallet()
    assert c1.synced is not None
    assert c1.synced == c2.synced == WalletState(6, c2.cur_encrypted_wallet())
    assert await c1.update_wallet()
    assert c1.synced == WalletState(7, c2.cur_encrypted_wallet() + late)
