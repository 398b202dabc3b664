"""An account's beginnings and changes: what takes a root password, over a session.

scrypt runs in a thread, so that the event loop goes on; the root password goes nowhere else.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from wsclient import crypto
from wsclient.crypto import DEFAULT_KDF, LBRY_KDF, Keys
from wsclient.errors import BadCredentials
from wsclient.session import Session
from wsschema.fields import lower_email
from wsschema.limits import CLIENT_SALT_SEED_HEX_DIGITS
from wsschema.messages import ChangePassword, Kdf, Prelogin, Register, Registered, SealedWallet


async def register(
    session: Session, email: str, root_password: str, *, kdf: Kdf = DEFAULT_KDF
) -> Registered:
    """Makes an account, and tells whether it can log in at once; AccountExists, NotAllowed."""
    seed = new_salt_seed()
    keys = await asyncio.to_thread(crypto.derive_keys, email, root_password, seed, kdf)
    return await session.call(Register(email, keys.password, seed, kdf))


async def derive_keys(
    session: Session,
    email: str,
    root_password: str,
    *,
    minimum_kdf: Kdf = DEFAULT_KDF,
    last_used: Kdf | None = None,
) -> Keys:
    """The keys of an account, with the seed and the parameters that the server keeps for it.

    Raises WeakKdf when those are weaker than ``last_used``, or than ``minimum_kdf`` on first
    contact.
    """
    derivation = await session.call(Prelogin(email))
    crypto.check_kdf(derivation.kdf, minimum_kdf=minimum_kdf, last_used=last_used)
    return await asyncio.to_thread(
        crypto.derive_keys, email, root_password, derivation.client_salt_seed, derivation.kdf
    )


async def log_in(
    session: Session,
    email: str,
    root_password: str,
    *,
    device_id: str,
    device_name: str | None = None,
    minimum_kdf: Kdf = DEFAULT_KDF,
    last_used: Kdf | None = None,
) -> Keys:
    """Derives the account's keys, logs the session in with them, and gives them.

    Name the address as it was typed: an account that comes from lbryio's server may have its keys
    from that. Raises WeakKdf as `derive_keys` does, BadCredentials, and what else a login raises.
    """
    derivation = await session.call(Prelogin(email))
    kdf, seed = derivation.kdf, derivation.client_salt_seed
    crypto.check_kdf(kdf, minimum_kdf=minimum_kdf, last_used=last_used)
    keys = await asyncio.to_thread(crypto.derive_keys, email, root_password, seed, kdf)
    try:
        await session.login(keys, device_id=device_id, device_name=device_name)
    except BadCredentials:
        if kdf != LBRY_KDF or email == lower_email(email):
            raise
        keys = await asyncio.to_thread(
            crypto.derive_keys, email, root_password, seed, kdf, as_typed=True
        )
        await session.login(keys, device_id=device_id, device_name=device_name)
    return keys


async def change_password(
    session: Session,
    keys: Keys,
    new_root_password: str,
    *,
    reseal: Callable[[Keys], SealedWallet] | None = None,
    kdf: Kdf | None = None,
) -> Keys:
    """Changes the root password and gives the new keys; every session ends with it, this one too.

    Where a wallet is stored, ``reseal`` makes the next state of it for the new keys, and both are
    stored or neither: Conflict carries the latest state. Without it such an account raises
    WalletExists. ``kdf`` stays as it is unless given.
    """
    seed, kdf = new_salt_seed(), keys.kdf if kdf is None else kdf
    new = await asyncio.to_thread(crypto.derive_keys, keys.email, new_root_password, seed, kdf)
    wallet = None if reseal is None else reseal(new)
    await session.call(ChangePassword(keys.password, new.password, seed, kdf, wallet))
    return new


def new_salt_seed() -> str:
    """A ``clientSaltSeed``, made anew at registration and at each change of the password."""
    return secrets.token_hex(CLIENT_SALT_SEED_HEX_DIGITS // 2)
