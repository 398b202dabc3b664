"""The folder of one wallet: one sealed file, of one process at a time.

``wallet.sealed`` is a line of JSON, the header, and behind it the payload under the local key:
nonce[12] || AES-256-GCM, with the header as associated data. The local key is 32 random bytes. The
header has it once for each root password that opens the file (like the slots of LUKS), wrapped by
AES-256-GCM under scrypt of that password::

    {"v": 1, "slots": [{"salt": hex, "kdf": {"n", "r", "p", "name"}, "wrapped": hex}]}

So a root password is changed by adding the new one, telling the server, and dropping the old one;
whatever cuts this short, one of the two opens the file. The local key stays the same for the life
of the folder: who had it, or an old copy of the file with its password, can open later ones.

A save writes ``wallet.sealed.new``, syncs it, renames it and syncs the folder, so that a crash at
any moment leaves the payload before or the one after.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wsclient import crypto
from wsclient.crypto import DEFAULT_KDF, NONCE_BYTES
from wsclient.errors import FolderInUse, LocalStateDamaged, WrongPassword
from wsclient.files import DISK, Files, Lock
from wsschema.fields import FieldError, HexDigits, Integer, decode, encode
from wsschema.messages import Kdf

VERSION: Final = 1
SLOTS_MAX: Final = 2
"""The root password of before and the one of after; each costs a wrong password one scrypt."""
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
TAG_BYTES: Final = 16

_SEALED_NAME: Final = "wallet.sealed"
_UNFINISHED_NAME: Final = "wallet.sealed.new"
_LOCK_NAME: Final = "lock"

_WRAPPED_ABOUT: Final = b"wallet-sync.local-key.v1"
_PAYLOAD_ABOUT: Final = b"wallet-sync.local-state.v1:"
_PRESENT: Final = b"="
"""Stands before a payload under the seal; where there is none yet, nothing is sealed."""


class LocalStore:
    """The folder of one wallet: one sealed file, of one process at a time.

    Get one from `open`; `close` it. A method that raises OSError (the disk is full, is read-only,
    fails) has not done what it should, and the store goes on as before; only where the very last
    step failed may the next `load` or opening find it done. Threads take turns.
    """

    def __init__(
        self,
        folder: Path,
        lock: Lock,
        local_key: bytes,
        slots: tuple[_Slot, ...],
        kdf: Kdf,
        files: Files,
    ) -> None:
        self._folder = folder
        self._lock = lock
        self._local_key = local_key
        self._slots = slots
        self._kdf = kdf
        self._files = files
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalStore {self._folder}>"

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        root_password: str | None = None,
        local_key: bytes | None = None,
        kdf: Kdf = DEFAULT_KDF,
        files: Files = DISK,
    ) -> LocalStore:
        """The store in ``folder``, which is made (0700) where there is none.

        ``local_key``, which `LocalStore.local_key` gave earlier, opens it at once. The root
        password takes up to one scrypt a slot, half a second each with the default parameters: call
        it in a thread. Of both, the key is tried first. A new folder takes what it is given;
        ``kdf`` is for passwords that are added from now on.

        Raises FolderInUse, WrongPassword, LocalStateDamaged, and OSError.
        """
        _check_arguments(root_password, local_key, kdf)
        # Without symlinks, so that every message names the folder itself.
        folder = Path(os.path.realpath(folder))
        _make_folder(folder, files)
        lock = files.lock(folder / _LOCK_NAME)
        try:
            files.unlink(folder / _UNFINISHED_NAME)
            # A save that was cut short may have renamed: what is read now must stay.
            files.fsync_folder(folder)
            try:
                content = files.read(folder / _SEALED_NAME)
            except FileNotFoundError:
                key = local_key or os.urandom(KEY_BYTES)
                slots = () if root_password is None else (_wrap(key, root_password, kdf),)
                store = cls(folder, lock, key, slots, kdf, files)
                store._write(slots, None)
                return store
            sealed = _parse(content, folder)
            key = _find_key(sealed, folder, root_password, local_key)
            return cls(folder, lock, key, sealed.slots, kdf, files)
        except BaseException:
            lock.release()
            raise

    @property
    def local_key(self) -> bytes:
        """The 32 bytes that open the folder without a root password: keep them as secret."""
        return self._local_key

    def load(self) -> bytes | None:
        """The payload that was saved last; None where none was. Raises LocalStateDamaged."""
        with self._take_turn():
            return self._read()

    def save(self, payload: bytes) -> None:
        """Replace the payload; it survives any crash once this returns."""
        with self._take_turn():
            self._write(self._slots, payload)

    def add_password(self, root_password: str) -> None:
        """Let the file be opened with this root password too, durably.

        The one that was added last before stays; one before that goes. Takes up to three scrypts.
        """
        with self._take_turn():
            others = [slot for slot in self._slots if _unwrap(slot, root_password) is None]
            slots = (*others, _wrap(self._local_key, root_password, self._kdf))
            self._write(slots[-SLOTS_MAX:], self._read())

    def keep_only_password(self, root_password: str) -> None:
        """Let the file be opened with this root password and no other, durably."""
        with self._take_turn():
            slot = _wrap(self._local_key, root_password, self._kdf)
            self._write((slot,), self._read())

    def keep_newest_password(self) -> None:
        """Let the file be opened with the root password that was added last alone, durably."""
        with self._take_turn():
            self._write(self._slots[-1:], self._read())

    def drop_newest_password(self) -> None:
        """Let the file not be opened with the root password that was added last, durably.

        The only one stays.
        """
        with self._take_turn():
            self._write(self._slots[:-1] or self._slots, self._read())

    def close(self) -> None:
        """End the lock, after whatever another thread is at; once more is no harm."""
        if self._process == os.getpid():
            with self._turn:
                self._closed = True
                self._lock.release()

    @contextlib.contextmanager
    def _take_turn(self) -> Iterator[None]:
        # Not inside the turn, which a thread that was not forked may hold for ever.
        if self._process != os.getpid():
            raise FolderInUse(self._folder, self._process)
        with self._turn:
            if self._closed:
                raise ValueError("the store is closed")
            yield

    def _read(self) -> bytes | None:
        sealed = _parse(self._files.read(self._folder / _SEALED_NAME), self._folder)
        try:
            return sealed.open(self._local_key)
        except InvalidTag:
            raise _changed(self._folder) from None

    def _write(self, slots: tuple[_Slot, ...], payload: bytes | None) -> None:
        content = _seal(self._local_key, slots, payload)
        files, unfinished = self._files, self._folder / _UNFINISHED_NAME
        try:
            files.unlink(unfinished)
            descriptor = files.create(unfinished)
            try:
                files.write(descriptor, content)
                files.fsync(descriptor)
            finally:
                files.close(descriptor)
            files.rename(unfinished, self._folder / _SEALED_NAME)
            files.fsync_folder(self._folder)
        except OSError:
            # A full disk gets its room back.
            with contextlib.suppress(OSError):
                files.unlink(unfinished)
            raise
        self._slots = slots


def _check_arguments(root_password: str | None, local_key: bytes | None, kdf: Kdf) -> None:
    if root_password is None and local_key is None:
        raise ValueError("either the root password or the local key is needed")
    if local_key is not None and len(local_key) != KEY_BYTES:
        raise ValueError(f"the local key is {len(local_key)} bytes; it must be {KEY_BYTES}")
    try:
        decode(Kdf, encode(kdf))
    except FieldError as error:
        # What it wrapped could not be opened again.
        raise ValueError(f"of the key derivation, {error}") from None


def _make_folder(folder: Path, files: Files) -> None:
    """Makes the folder and what is missing above it, each durable before the next is made."""
    paths = []
    for path in (folder, *folder.parents):
        # The first that is there, too: an opening cut short may have made it, and not synced it.
        paths.append(path)
        if files.exists(path):
            break
    for path in reversed(paths):
        files.make_folder(path)
        with contextlib.suppress(PermissionError):  # Who may not list a folder can't sync it.
            files.fsync_folder(path.parent)


@dataclass(frozen=True, slots=True)
class _Slot:
    """The local key, wrapped by one root password: nonce || AES-256-GCM."""

    salt: Annotated[str, HexDigits(2 * SALT_BYTES)]
    kdf: Kdf
    wrapped: Annotated[str, HexDigits(2 * (NONCE_BYTES + KEY_BYTES + TAG_BYTES))] = field(
        repr=False
    )


@dataclass(frozen=True, slots=True)
class _Header:
    v: Annotated[int, Integer(VERSION, VERSION)]
    slots: tuple[_Slot, ...]


@dataclass(frozen=True, slots=True)
class _Sealed:
    """The file, read."""

    slots: tuple[_Slot, ...]
    header: bytes
    sealed: bytes = field(repr=False)

    def open(self, local_key: bytes) -> bytes | None:
        """The payload, None where there is none yet; InvalidTag for another key, or for damage."""
        plaintext = AESGCM(local_key).decrypt(
            self.sealed[:NONCE_BYTES], self.sealed[NONCE_BYTES:], _PAYLOAD_ABOUT + self.header
        )
        return plaintext[len(_PRESENT) :] if plaintext else None


def _seal(local_key: bytes, slots: tuple[_Slot, ...], payload: bytes | None) -> bytes:
    header = orjson.dumps(encode(_Header(VERSION, slots)))
    nonce = os.urandom(NONCE_BYTES)
    plaintext = b"" if payload is None else _PRESENT + payload
    sealed = AESGCM(local_key).encrypt(nonce, plaintext, _PAYLOAD_ABOUT + header)
    return header + b"\n" + nonce + sealed


def _parse(content: bytes, folder: Path) -> _Sealed:
    header, newline, sealed = content.partition(b"\n")
    if not newline or len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise _changed(folder)
    try:
        fields: Any = orjson.loads(header)
        version = fields.get("v") if isinstance(fields, dict) else None
        if type(version) is int and version > VERSION:
            raise LocalStateDamaged(
                folder / _SEALED_NAME,
                f"is of version {version}, and this software knows {VERSION}",
                "update it",
            )
        slots = decode(_Header, fields).slots
    except (orjson.JSONDecodeError, FieldError):
        raise _changed(folder) from None
    if len(slots) > SLOTS_MAX:
        raise _changed(folder)
    return _Sealed(slots, header, sealed)


def _find_key(
    sealed: _Sealed, folder: Path, root_password: str | None, local_key: bytes | None
) -> bytes:
    """The local key, once it has opened the payload."""
    if local_key is not None:
        with contextlib.suppress(InvalidTag):
            sealed.open(local_key)
            return local_key
    if root_password is None:
        raise WrongPassword(folder, "local key")
    for slot in reversed(sealed.slots):
        key = _unwrap(slot, root_password)
        if key is not None:
            try:
                sealed.open(key)
            except InvalidTag:
                raise _changed(folder) from None
            return key
    raise WrongPassword(folder)


def _wrap(local_key: bytes, root_password: str, kdf: Kdf) -> _Slot:
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    key = crypto.stretch(root_password, salt, kdf, KEY_BYTES)
    wrapped = nonce + AESGCM(key).encrypt(nonce, local_key, _WRAPPED_ABOUT)
    return _Slot(salt.hex(), kdf, wrapped.hex())


def _unwrap(slot: _Slot, root_password: str) -> bytes | None:
    """The local key; None when the slot is another password's."""
    key = crypto.stretch(root_password, bytes.fromhex(slot.salt), slot.kdf, KEY_BYTES)
    wrapped = bytes.fromhex(slot.wrapped)
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _WRAPPED_ABOUT)
    except InvalidTag:
        return None


def _changed(folder: Path) -> LocalStateDamaged:
    return LocalStateDamaged(
        folder / _SEALED_NAME,
        "is not what was saved: it was changed or cut short since",
        "put back a copy of it, or move it away and log in again; what had been synced comes back",
    )
