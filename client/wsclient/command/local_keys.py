"""Where the key of a profile's wallet folder is kept: the system's keyring, else a file.

The key is `SyncedWallet.local_key`. It opens what this device keeps, and says nothing of the root
password.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Final, Literal

import keyring
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null

from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.command.private_files import write_private

SERVICE: Final = "wallet-sync"
FILE: Final = "local-key"
TRUSTED_PRIORITY: Final = 1
"""Keyring gives less to what it does not recommend: plain files, and no keyring at all."""

logger = logging.getLogger(__name__)


class LocalKeys:
    """The place of one profile's key."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._user = str(folder)
        """Under which the keyring has it: a profile of the same name elsewhere is another."""

    def keep(self, key: bytes) -> Literal["keyring", "file"]:
        """Keeps the key, and tells where."""
        ring = find_keyring()
        if ring is not None:
            try:
                ring.set_password(SERVICE, self._user, key.hex())
            except Exception as error:  # locked, or whatever a backend fails with
                logger.debug("the keyring does not take the key: %s", error)
            else:
                self._file.unlink(missing_ok=True)
                return "keyring"
        write_private(self._file, key.hex().encode())
        return "file"

    def find(self) -> bytes | None:
        """The key; None where none is kept."""
        text = self._read()
        try:
            return None if text is None else bytes.fromhex(text)
        except ValueError:
            return None  # no key of ours

    def forget(self) -> None:
        """Removes the key from wherever it is kept."""
        self._file.unlink(missing_ok=True)
        ring = find_keyring()
        if ring is not None and self._ask(ring) is not None:
            try:
                ring.delete_password(SERVICE, self._user)
            except Exception as error:
                raise _no_answer(error) from None

    @property
    def place(self) -> Literal["keyring", "file"] | None:
        """Where the key is; None where none is kept."""
        if self._file.exists():
            return "file"
        return "keyring" if self._read() is not None else None

    def _read(self) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return self._file.read_text()
        ring = find_keyring()
        return None if ring is None else self._ask(ring)

    def _ask(self, ring: KeyringBackend) -> str | None:
        try:
            return ring.get_password(SERVICE, self._user)
        except Exception as error:
            raise _no_answer(error) from None


def _no_answer(error: Exception) -> CommandFailed:
    return CommandFailed(
        "keyring_failed",
        f"the system keyring does not answer: {error}",
        "unlock it, and try again",
        ExitCode.NOT_LOGGED_IN,
    )


def find_keyring() -> KeyringBackend | None:
    """The system's keyring; None where there is none that protects what it is given."""
    try:
        ring = keyring.get_keyring()
    except Exception as error:
        logger.debug("no keyring: %s", error)
        return None
    return ring if _is_trusted(ring) else None


def _is_trusted(ring: KeyringBackend) -> bool:
    if isinstance(ring, chainer.ChainerBackend):
        return bool(ring.backends) and all(map(_is_trusted, ring.backends))
    if isinstance(ring, fail.Keyring | null.Keyring):
        return False
    return not type(ring).__module__.startswith("keyrings.alt.") and (
        ring.priority >= TRUSTED_PRIORITY
    )
