"""What a file last had in common with the wallet: the base of a merge when it is pushed.

Between a pull to a file and the push of it another device may have changed the wallet, and any
command may have brought that here. The file knows nothing of it: pushed as it is, it would undo
that change. So each pull and push leaves what it moved here, sealed.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wsclient.command.private_files import write_private
from wsclient.crypto import NONCE_BYTES

FILE: Final = "working-copies"
FILES_MAX: Final = 8
"""More make room by dropping the one that was moved longest ago; it merges without a base then."""


class WorkingCopies:
    """The last common contents of the files that were pulled and pushed, by the files' names."""

    def __init__(self, folder: Path, local_key: bytes) -> None:
        self._path = folder / FILE
        self._seal = AESGCM(hmac.digest(local_key, b"working copies", "sha256"))

    def recall(self, file: str) -> bytes | None:
        """What was last moved between the file and the wallet; None where that is not known."""
        text = self._load().get(file)
        return None if text is None else base64.b64decode(text)

    def remember(self, file: str, value: bytes | None) -> None:
        """The file and the wallet now have this in common; None: nothing is known of it."""
        copies = self._load()
        copies.pop(file, None)
        if value is not None:
            copies[file] = base64.b64encode(value).decode()
        kept = dict(list(copies.items())[-FILES_MAX:])
        nonce = os.urandom(NONCE_BYTES)
        write_private(
            self._path, nonce + self._seal.encrypt(nonce, json.dumps(kept).encode(), None)
        )

    def _load(self) -> dict[str, str]:
        try:
            sealed = self._path.read_bytes()
            payload = self._seal.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except (FileNotFoundError, InvalidTag, ValueError):
            return {}  # none yet, or of another key: a merge without a base loses nothing
        copies: dict[str, str] = json.loads(payload)
        return copies
