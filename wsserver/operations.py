"""What a session asks of the world, and what the world answers. Pure: no I/O, no clock.

An operation is a frozen dataclass, ``Operation[R]``: whoever performs it answers with an ``R``, or
with the `RpcError` that the caller is to get. Reads run on the store's reading lanes, writes on its
writing lane in the order in which they were asked for; what a write means to others who are
connected is told by `events_of`, to be published in commit order, before the write is answered.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import field
from typing import Any, ClassVar, Generic, TypeVar

from wsschema.frozen import frozen
from wsschema.messages import Kdf, KeyDerivation, SealedWallet, WalletState, WalletVersion

R = TypeVar("R")

SCRYPT_N = 2**15
SCRYPT_R = 8
SCRYPT_P = 1
"""Today's cost of a stored password (``docs/protocol.md``, Rules of the account): 32 MiB."""
NO_DEVICE = "none"
"""The author of a state that came without a token: `ReplacePassword`, or with an import."""


@frozen
class PasswordHash:
    """A stored password: scrypt (RFC 7914) of it with its own salt, and the parameters of that."""

    digest: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    n: int
    r: int
    p: int

    @property
    def outdated(self) -> bool:
        """Whether today's parameters are stronger: then a login upgrades it."""
        return self.n * self.r * self.p < SCRYPT_N * SCRYPT_R * SCRYPT_P


@frozen
class Credentials:
    """What a login or a password change is checked against."""

    account_id: int
    password: PasswordHash = field(repr=False)
    verified: bool
    disabled: bool


@frozen
class TokenOwner:
    """Whose a token is."""

    account_id: int
    device_id: str


@frozen
class DeviceRecord:
    """A device as it is stored; times in milliseconds since the Unix epoch."""

    device_id: str
    name: str | None = field(repr=False)
    created_at_ms: int
    last_seen_at_ms: int
    applied_sequence: int

    def having_applied(self, sequence: int) -> DeviceRecord:
        """The device once it has acknowledged that sequence."""
        return DeviceRecord(
            self.device_id, self.name, self.created_at_ms, self.last_seen_at_ms, sequence
        )


@frozen
class OpenedSession:
    """What a login or a resume begins with. ``token`` is there after a login only.

    ``token_used_at_ms``: the last use that is stored, so that the caller sees whether to renew it.
    ``dropped_device_id``: a device that had to make room.
    """

    account_id: int
    device: DeviceRecord
    epoch: str
    head: WalletState | None
    token_hash: bytes = field(repr=False)
    token_used_at_ms: int
    expires_at_ms: int
    token: str | None = field(default=None, repr=False)
    dropped_device_id: str | None = None


@frozen
class Pushed:
    """A push that succeeded; ``fresh`` is False for the retry of one that was stored already."""

    state: WalletState
    fresh: bool


@frozen
class Acknowledged:
    """``changed`` is False where a state at least as new was acknowledged before."""

    device: DeviceRecord
    changed: bool


@frozen
class StoredDevices:
    """All devices of an account, and the store's time of reading them."""

    devices: tuple[DeviceRecord, ...]
    now_ms: int


class Operation(Generic[R]):
    """Something that a session waits for; performing it gives an ``R``."""

    __slots__ = ()
    writes: ClassVar[bool] = False


Flow = Generator[Operation[Any], Any, R]
"""A course of action: yields operations, is sent their answers or thrown their errors."""


def perform(operation: Operation[R]) -> Flow[R]:
    """The typed way to wait for an operation in a flow: ``answer = yield from perform(...)``."""
    answer: R = yield operation
    return answer


# Passwords and presence: answered by the shell, not by the store.


@frozen
class HashPassword(Operation[PasswordHash]):
    """The password under a fresh salt and today's parameters."""

    password: str = field(repr=False)


@frozen
class CheckPassword(Operation[bool]):
    """Whether the password is the stored one; None is an unknown account's and takes as long."""

    password: str = field(repr=False)
    stored: PasswordHash | None = field(repr=False)


@frozen
class FindOnline(Operation[frozenset[str]]):
    """The ids of the account's devices that are connected now."""

    account_id: int


# Reads.


@frozen
class LoadCredentials(Operation[Credentials | None]):
    """By address, lowered."""

    email: str = field(repr=False)


@frozen
class LoadAccountCredentials(Operation[Credentials | None]):
    """By account; None once it is deleted."""

    account_id: int


@frozen
class LoadKeyDerivation(Operation[KeyDerivation | None]):
    """What the client of that address, lowered, derives its keys with."""

    email: str = field(repr=False)


@frozen
class FindToken(Operation[TokenOwner | None]):
    """Whose the token is, live or expired."""

    token_hash: bytes = field(repr=False)


@frozen
class LoadSession(Operation[OpenedSession]):
    """Fails with BadToken, or with AccountDisabled."""

    token_hash: bytes = field(repr=False)


@frozen
class LoadWallet(Operation[WalletState | None]):
    """The latest state, or that of a sequence.

    ``token_hash``: of the session that asks. Fails with BadToken where it has ended, in the same
    read: after a password change its device has no keys for what is stored, and would take it for
    a forgery. None: no session asks.
    """

    account_id: int
    sequence: int | None
    token_hash: bytes | None = field(default=None, repr=False)


@frozen
class LoadHistory(Operation[tuple[WalletVersion, ...]]):
    """The kept versions below ``before``, newest first, at most ``limit``."""

    account_id: int
    limit: int
    before: int | None


@frozen
class LoadDevices(Operation[StoredDevices]):
    """All devices of the account, oldest first."""

    account_id: int


# Writes.


@frozen
class CreateAccount(Operation[None]):
    """Fails with AccountExists."""

    writes: ClassVar[bool] = True
    email: str = field(repr=False)
    password: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf
    verified: bool


@frozen
class OpenSession(Operation[OpenedSession]):
    """Gives the device a new token, if the checked password is still the stored one.

    ``upgraded`` replaces a stored hash with outdated parameters. ``online``: devices that can't be
    dropped to make room. Fails with BadCredentials, AccountDisabled, TooManyDevices.
    """

    writes: ClassVar[bool] = True
    account_id: int
    checked: PasswordHash = field(repr=False)
    upgraded: PasswordHash | None = field(repr=False)
    device_id: str
    device_name: str | None = field(repr=False)
    devices_max: int
    online: frozenset[str]


@frozen
class PushState(Operation[Pushed]):
    """Stores the next state under a live token. Fails with BadToken, AccountDisabled, Conflict.

    ``author`` is the id of the connection that pushes: it is not told of its own state.
    """

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    account_id: int
    author: int
    sequence: int
    encrypted_wallet: str = field(repr=False)
    hmac: str = field(repr=False)


@frozen
class AcknowledgeState(Operation[Acknowledged]):
    """Fails with BadToken, NoSuchVersion."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    account_id: int
    sequence: int


@frozen
class ReplacePassword(Operation[None]):
    """New credentials and the re-encrypted wallet, or nothing; ends every token of the account.

    ``token_hash``: None where the checked password alone is what lets the caller do it. Fails with
    BadToken, or without a token with AccountDisabled; with BadCredentials, WalletExists, Conflict.
    """

    writes: ClassVar[bool] = True
    token_hash: bytes | None = field(repr=False)
    account_id: int
    checked: PasswordHash = field(repr=False)
    replacement: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf
    wallet: SealedWallet | None


@frozen
class RemoveAccount(Operation[None]):
    """Fails with BadToken, BadCredentials."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    account_id: int
    checked: PasswordHash = field(repr=False)


@frozen
class EndSession(Operation[None]):
    """Ends a token; its device stays on the list. Fails with BadToken."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    account_id: int


@frozen
class RemoveDevice(Operation[None]):
    """Fails with BadToken, NoSuchDevice."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    account_id: int
    device_id: str


@frozen
class MarkSeen(Operation[None]):
    """A device was here at that time: keeps its token alive and its ``lastSeenAt`` true."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    at_ms: int


@frozen
class ProbeWrite(Operation[None]):
    """Commits a write of no consequence: whether the store can be written."""

    writes: ClassVar[bool] = True


# What the operator's commands did, in processes of their own.


@frozen
class Notice:
    """A command ended sessions: all of the account, or those of one device.

    ``kept_token_hash``: the token that the device was given since then, which is as good as any.
    """

    notice_id: int
    account_id: int
    reason: str
    device_id: str | None = None
    kept_token_hash: bytes | None = field(default=None, repr=False)


@frozen
class FindNewestNotice(Operation[int]):
    """The id of the newest notice; 0 where there is none."""


@frozen
class LoadNotices(Operation[tuple[Notice, ...]]):
    """The notices with ids above ``after``, oldest first, at most ``limit``.

    Changes nothing, and yet is done in the order of the writes: so that a login which was committed
    before the notice has been answered before it too, and its session hears of it.
    """

    writes: ClassVar[bool] = True
    after: int
    limit: int


# What other nodes did.


@frozen
class Standing:
    """What a node knows of an account: how far its sessions have been told, and who they are.

    ``sessions``: the device's id and the token's hash of each.
    """

    account_id: int
    sequence: int
    sessions: tuple[tuple[str, bytes], ...] = field(repr=False)


@frozen
class Moved:
    """What is otherwise than a node knew: a newer wallet, tokens that have ended, or both.

    ``state`` is there if it is newer and was not too much to read at once, ``sequence`` is in any
    case the stored one. ``ended``: the hashes of tokens, each with the reason as far as the store
    can tell.
    """

    account_id: int
    sequence: int
    state: WalletState | None = None
    ended: tuple[tuple[bytes, str | None], ...] = field(default=(), repr=False)


@frozen
class FindMoved(Operation[tuple[Moved, ...]]):
    """Those of the accounts, each given once, that are not as they are known to the node.

    The tokens are read after the states: a session whose token is live has the key of the state.
    """

    standings: tuple[Standing, ...]
    states_max: int


# Registration by mail, and the reset of a forgotten root password.


@frozen
class FindAllowed(Operation[bool]):
    """Whether the operator's allowlist in the database has the address."""

    email: str = field(repr=False)


@frozen
class LoadPendingPassword(Operation[PasswordHash | None]):
    """The password of the registration that waits for its address to be verified."""

    email: str = field(repr=False)


@frozen
class StartRegistration(Operation[str | None]):
    """Keeps credentials until the token, which goes out by mail, activates them.

    Gives the token; None where the address is taken. What is kept replaces an earlier registration
    of the address, and is kept for a taken one too, so that nobody can tell the two apart.
    """

    writes: ClassVar[bool] = True
    email: str = field(repr=False)
    password: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf


@frozen
class RenewRegistration(Operation[str | None]):
    """A new token in place of the last; None where nothing waits, or the address is taken."""

    writes: ClassVar[bool] = True
    email: str = field(repr=False)


@frozen
class ActivateRegistration(Operation[None]):
    """Makes the account of the registration that the token is for. Fails: BadVerificationToken."""

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)


@frozen
class StartReset(Operation[str | None]):
    """A token to reset the account with; None where there is no account to be reset."""

    writes: ClassVar[bool] = True
    email: str = field(repr=False)


@frozen
class FinishReset(Operation[int]):
    """New credentials; the wallet, its history and every token go, the epoch is new.

    Gives the account's id. Fails with BadResetToken.
    """

    writes: ClassVar[bool] = True
    token_hash: bytes = field(repr=False)
    password: PasswordHash = field(repr=False)
    client_salt_seed: str = field(repr=False)
    kdf: Kdf


@frozen
class SendLetter(Operation[None]):
    """Have a mail sent, some time: ``kind`` is verification, address_taken, reset, or none."""

    kind: str
    email: str = field(repr=False)
    token: str | None = field(repr=False)


# What a write means to others.


@frozen
class Published:
    """A new state is durable. Every connection of the account but the author's is to hear of it.

    The device that pushed it has acknowledged it, too.
    """

    account_id: int
    state: WalletState
    author: int


@frozen
class Applied:
    """A device acknowledged a state."""

    account_id: int
    device_id: str
    sequence: int


@frozen
class Revoked:
    """Sessions are over: those of the account, or of one device, or of one token.

    ``kept_token_hash``: the one token that stays, where a device's were replaced by it.
    """

    account_id: int
    reason: str
    device_id: str | None = None
    token_hash: bytes | None = field(default=None, repr=False)
    kept_token_hash: bytes | None = field(default=None, repr=False)


Event = Published | Applied | Revoked


def events_of(operation: Operation[Any], answer: Any) -> tuple[Event, ...]:
    """What a write that was committed with this answer means to those who are connected."""
    match operation, answer:
        case PushState(account_id=account_id, author=author), Pushed(state=state, fresh=True):
            return (Published(account_id, state, author),)
        case AcknowledgeState(account_id=account_id), Acknowledged(device=device, changed=True):
            return (Applied(account_id, device.device_id, device.applied_sequence),)
        case OpenSession(account_id=account_id, device_id=device_id), OpenedSession() as opened:
            replaced = Revoked(account_id, "replaced", device_id, kept_token_hash=opened.token_hash)
            if opened.dropped_device_id is None:
                return (replaced,)
            return (replaced, Revoked(account_id, "device_revoked", opened.dropped_device_id))
        case ReplacePassword(account_id=account_id), None:
            return (Revoked(account_id, "password_changed"),)
        case FinishReset(), int() as account_id:
            return (Revoked(account_id, "password_reset"),)
        case RemoveAccount(account_id=account_id), None:
            return (Revoked(account_id, "account_deleted"),)
        case EndSession(account_id=account_id, token_hash=token_hash), None:
            return (Revoked(account_id, "logged_out", token_hash=token_hash),)
        case RemoveDevice(account_id=account_id, device_id=device_id), None:
            return (Revoked(account_id, "device_revoked", device_id),)
        case LoadNotices(), tuple() as notices:
            return tuple(
                Revoked(it.account_id, it.reason, it.device_id, kept_token_hash=it.kept_token_hash)
                for it in notices
            )
        case _:
            return ()
