"""Two devices of one account: a push on one is heard, opened, changed and pushed by the other.

Run it against a server in mode open: ``python examples/two_devices.py``.
"""

import asyncio
import os
import secrets

from wsclient import Contents, Keys, Session, derive_keys, open_sealed, register, seal
from wsclient.errors import Conflict
from wsschema.messages import WalletState, WalletUpdated

URL = os.environ.get("WSSERVER_URL", "ws://127.0.0.1:8090/v1")
EMAIL = f"joe-{secrets.token_hex(4)}@example.com"
ROOT_PASSWORD = "correct horse battery staple"


def next_contents(keys: Keys, device_id: str, base: WalletState | None, data: bytes) -> Contents:
    """What the next state holds: the data, what it replaces, and who pushed what."""
    if base is None:
        return Contents(data, previous=None, devices={device_id: 1})
    devices = open_sealed(keys, base.sequence, base.encrypted_wallet).devices
    return Contents(data, base.hmac, {**devices, device_id: base.sequence + 1})


async def store(
    session: Session, keys: Keys, device_id: str, base: WalletState | None, data: bytes
) -> WalletState:
    """Push the data on top of ``base``; where another was faster, on top of theirs."""
    while True:
        sequence = 1 if base is None else base.sequence + 1
        contents = next_contents(keys, device_id, base, data)
        try:
            return await session.push(sequence, seal(keys, sequence, contents))
        except Conflict as conflict:
            # A real wallet merges what came in between; here the newest data wins.
            base = conflict.wallet


async def main() -> None:
    """The scene."""
    async with Session(URL, deliver="state") as laptop, Session(URL, deliver="state") as phone:
        await register(laptop, EMAIL, ROOT_PASSWORD)
        keys = await derive_keys(laptop, EMAIL, ROOT_PASSWORD)
        await laptop.login(keys, device_id="laptop")
        await phone.login(keys, device_id="phone")

        first = await store(laptop, keys, "laptop", None, b"coins: 3")
        print("laptop pushed sequence", first.sequence)

        async for event in phone.notifications():
            if isinstance(event, WalletUpdated) and event.wallet is not None:
                heard = event.wallet
                break
        contents = open_sealed(keys, heard.sequence, heard.encrypted_wallet)
        print("phone heard", contents.wallet.decode())

        second = await store(phone, keys, "phone", heard, b"coins: 5")
        print("phone pushed sequence", second.sequence)
        latest = await laptop.get()
        print("laptop got", open_sealed(keys, 2, latest.encrypted_wallet).wallet.decode())


if __name__ == "__main__":
    asyncio.run(main())
