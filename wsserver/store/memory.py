"""A store in memory, for simulations and tests: it behaves as `sql.SqlStore` does, and forgets.

`Memory` is the synchronous core: an operation in, its answer out. `MemoryStore` gives it the face
of a store on the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from wsschema.errors import (
    AccountDisabled,
    AccountExists,
    BadCredentials,
    BadResetToken,
    BadToken,
    BadVerificationToken,
    Conflict,
    NoSuchDevice,
    NoSuchVersion,
    RpcError,
    TooManyDevices,
    Unavailable,
    WalletExists,
)
from wsschema.messages import KeyDerivation, SealedWallet, WalletState, WalletVersion
from wsschema.times import time_from_ms
from wsserver.operations import (
    NO_DEVICE,
    Acknowledged,
    AcknowledgeState,
    ActivateRegistration,
    CreateAccount,
    Credentials,
    DeviceRecord,
    EndSession,
    FindAllowed,
    FindMoved,
    FindNewestNotice,
    FindToken,
    FinishReset,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadNotices,
    LoadPendingPassword,
    LoadSession,
    LoadWallet,
    MarkSeen,
    Moved,
    Notice,
    OpenedSession,
    OpenSession,
    Operation,
    PasswordHash,
    ProbeWrite,
    Pushed,
    PushState,
    RemoveAccount,
    RemoveDevice,
    RenewRegistration,
    ReplacePassword,
    StartRegistration,
    StartReset,
    StoredDevices,
    TokenOwner,
)
from wsserver.store.context import (
    REGISTRATION_LIFETIME_MS,
    RESET_LIFETIME_MS,
    Answer,
    Context,
    Done,
    Installation,
    find_creation_ms,
)


@dataclass(slots=True)
class _Device:
    record: DeviceRecord
    token_hash: bytes | None = None
    token_used_at_ms: int = 0


@dataclass(slots=True)
class _Account:
    """``versions`` holds what is kept, oldest first; the last is the head."""

    account_id: int
    email: str
    password: PasswordHash
    derivation: KeyDerivation
    epoch: str
    verified: bool
    disabled: bool = False
    devices: dict[str, _Device] = field(default_factory=dict)
    versions: dict[int, WalletState] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        return max(self.versions, default=0)

    @property
    def head(self) -> WalletState | None:
        return self.versions.get(self.sequence)


@dataclass(slots=True)
class _Pending:
    """A registration that waits for its address to be verified."""

    account: CreateAccount
    token_hash: bytes
    expires_at_ms: int


class Memory:
    """Accounts, tokens and wallets. ``make_hex(n)`` gives n random bytes in hex.

    ``notices``: what an operator would have told, oldest first; for tests to fill.
    """

    def __init__(
        self, context: Context, make_hex: Callable[[int], str] = secrets.token_hex
    ) -> None:
        self.accounts: dict[int, _Account] = {}
        self.allowlist: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self._resets: dict[int, tuple[bytes, int]] = {}
        self.notices: list[Notice] = []
        self._context = context
        self._make_hex = make_hex
        self._last_id = 0

    def perform(self, operation: Operation[Any]) -> Any:
        """Do the operation; gives its answer or its RpcError."""
        try:
            return self._perform(operation)
        except RpcError as error:  # Raised before anything was changed.
            return error

    def _perform(self, operation: Operation[Any]) -> Any:
        match operation:
            case LoadCredentials(email):
                return _credentials(self._by_email(email))
            case LoadAccountCredentials(account_id):
                return _credentials(self.accounts.get(account_id))
            case LoadKeyDerivation(email):
                account = self._by_email(email)
                return None if account is None else account.derivation
            case FindToken(token_hash):
                found = self._by_token(token_hash)
                if found is None:
                    return None
                return TokenOwner(found[0].account_id, found[1].record.device_id)
            case LoadSession():
                return self._load_session(operation)
            case LoadWallet(account_id, sequence, token_hash):
                if token_hash is not None:
                    self._find_session(token_hash, account_id)
                account = self.accounts.get(account_id)
                if account is None:
                    return None
                return account.versions.get(account.sequence if sequence is None else sequence)
            case LoadHistory():
                return self._load_history(operation)
            case LoadDevices(account_id):
                account = self.accounts.get(account_id)
                records = [] if account is None else [it.record for it in account.devices.values()]
                records.sort(key=lambda record: (record.created_at_ms, record.device_id))
                return StoredDevices(tuple(records), self._context.now_ms())
            case CreateAccount():
                return self._create_account(operation)
            case OpenSession():
                return self._open_session(operation)
            case PushState():
                return self._push_state(operation)
            case AcknowledgeState():
                return self._acknowledge_state(operation)
            case ReplacePassword():
                return self._replace_password(operation)
            case RemoveAccount(token_hash, account_id, checked):
                account, _ = self._find_checked(token_hash, account_id, checked)
                del self.accounts[account_id]
            case EndSession(token_hash, account_id):
                _, device = self._find_session(token_hash, account_id)
                device.token_hash = None
                device.record = replace(device.record, last_seen_at_ms=self._context.now_ms())
            case RemoveDevice(token_hash, account_id, device_id):
                account, _ = self._find_session(token_hash, account_id)
                if device_id not in account.devices:
                    raise NoSuchDevice
                del account.devices[device_id]
            case FindMoved():
                return self._find_moved(operation)
            case FindNewestNotice():
                return self.notices[-1].notice_id if self.notices else 0
            case LoadNotices(after, limit):
                found_notices = [it for it in self.notices if it.notice_id > after][:limit]
                return tuple(map(self._complete_notice, found_notices))
            case MarkSeen(token_hash, at_ms):
                found = self._by_token(token_hash)
                if found is not None:
                    found[1].token_used_at_ms = max(found[1].token_used_at_ms, at_ms)
                    found[1].record = replace(found[1].record, last_seen_at_ms=at_ms)
            case ProbeWrite():
                pass
            case _:
                return self._perform_mailed(operation)
        return None

    def _find_moved(self, operation: FindMoved) -> tuple[Moved, ...]:
        moved, states = [], 0
        for standing in operation.standings:
            account = self.accounts.get(standing.account_id)
            head = None if account is None else account.head
            ended = tuple(
                (token_hash, _tell_end(account, device_id))
                for device_id, token_hash in standing.sessions
                if not _is_live(account, device_id, token_hash)
            )
            newer = head is not None and head.sequence > standing.sequence
            if ended or newer:
                states += newer
                sequence = 0 if head is None else head.sequence
                state = head if newer and states <= operation.states_max else None
                moved.append(Moved(standing.account_id, sequence, state, ended))
        return tuple(moved)

    # What goes by mail.

    def _perform_mailed(self, operation: Operation[Any]) -> Any:
        match operation:
            case FindAllowed(email):
                return email in self.allowlist
            case LoadPendingPassword(email):
                pending = self._find_pending(email)
                return None if pending is None else pending.account.password
            case StartRegistration():
                token, token_hash = self._make_token()
                account = CreateAccount(
                    operation.email,
                    operation.password,
                    operation.client_salt_seed,
                    operation.kdf,
                    verified=True,
                )
                expires_at_ms = self._context.now_ms() + REGISTRATION_LIFETIME_MS
                self._pending[operation.email] = _Pending(account, token_hash, expires_at_ms)
                return None if self._by_email(operation.email) else token
            case RenewRegistration(email):
                pending = self._find_pending(email)
                if pending is None:
                    return None
                token, pending.token_hash = self._make_token()
                pending.expires_at_ms = self._context.now_ms() + REGISTRATION_LIFETIME_MS
                return None if self._by_email(email) else token
            case ActivateRegistration(token_hash):
                pending = next(
                    (one for one in self._pending.values() if one.token_hash == token_hash), None
                )
                if pending is None or self._find_pending(pending.account.email) is None:
                    raise BadVerificationToken
                if self._by_email(pending.account.email) is not None:
                    raise BadVerificationToken
                self._create_account(pending.account)
                del self._pending[pending.account.email]
            case StartReset(email):
                found = self._by_email(email)
                if found is None or not found.verified or found.disabled:
                    return None
                token, token_hash = self._make_token()
                expires_at_ms = self._context.now_ms() + RESET_LIFETIME_MS
                self._resets[found.account_id] = (token_hash, expires_at_ms)
                return token
            case _:
                assert isinstance(operation, FinishReset)
                return self._finish_reset(operation)
        return None

    def _find_pending(self, email: str) -> _Pending | None:
        pending = self._pending.get(email)
        if pending is None or pending.expires_at_ms <= self._context.now_ms():
            return None
        return pending

    def _finish_reset(self, operation: FinishReset) -> int:
        now_ms = self._context.now_ms()
        for account_id, (token_hash, expires_at_ms) in self._resets.items():
            account = self.accounts.get(account_id)
            if (
                token_hash == operation.token_hash
                and expires_at_ms > now_ms
                and account is not None
                and not account.disabled
            ):
                break
        else:
            raise BadResetToken
        del self._resets[account_id]
        account.password = operation.password
        account.derivation = KeyDerivation(operation.client_salt_seed, operation.kdf)
        account.epoch = self._make_hex(16)
        account.versions.clear()
        for device in account.devices.values():
            device.token_hash = None
            device.record = replace(device.record, applied_sequence=0)
        return account_id

    def _make_token(self) -> tuple[str, bytes]:
        token = self._make_hex(32)
        return token, hashlib.sha256(token.encode()).digest()

    # Accounts.

    def _create_account(self, operation: CreateAccount) -> None:
        if self._by_email(operation.email) is not None:
            raise AccountExists
        self._last_id += 1
        self.accounts[self._last_id] = _Account(
            self._last_id,
            operation.email,
            operation.password,
            KeyDerivation(operation.client_salt_seed, operation.kdf),
            self._make_hex(16),
            operation.verified,
        )

    def _replace_password(self, operation: ReplacePassword) -> None:
        account_id, checked, wallet = operation.account_id, operation.checked, operation.wallet
        if operation.token_hash is None:
            account, device = self._find_by_password(account_id, checked), None
            if account.disabled:
                raise AccountDisabled
        else:
            account, device = self._find_checked(operation.token_hash, account_id, checked)
        if wallet is None and account.versions:
            raise WalletExists
        if wallet is not None:
            if wallet.sequence != account.sequence + 1:
                raise Conflict(wallet=account.head)
            account.versions.clear()
            self._keep(account, device, wallet)
        account.password = operation.replacement
        account.derivation = KeyDerivation(operation.client_salt_seed, operation.kdf)
        for each in account.devices.values():
            each.token_hash = None
        self._resets.pop(account.account_id, None)

    # Devices.

    def _load_session(self, operation: LoadSession) -> OpenedSession:
        found = self._by_token(operation.token_hash)
        oldest_ms = self._context.now_ms() - self._context.token_lifetime_ms
        if found is None or found[1].token_used_at_ms <= oldest_ms:
            raise BadToken
        if found[0].disabled:
            raise AccountDisabled
        return self._tell_session(*found)

    def _open_session(self, operation: OpenSession) -> OpenedSession:
        account = self._find_by_password(operation.account_id, operation.checked)
        if account.disabled:
            raise AccountDisabled
        device_id, now_ms = operation.device_id, self._context.now_ms()
        dropped = None
        if device_id not in account.devices:
            dropped = _make_room(account, operation)
            created_at_ms = find_creation_ms(device_id, account.head, now_ms)
            record = DeviceRecord(device_id, None, created_at_ms, now_ms, 0)
            account.devices[device_id] = _Device(record)
        device = account.devices[device_id]
        name = device.record.name if operation.device_name is None else operation.device_name
        device.record = replace(device.record, name=name, last_seen_at_ms=now_ms)
        token = self._make_hex(32)
        device.token_hash = hashlib.sha256(token.encode()).digest()
        device.token_used_at_ms = now_ms
        account.password = operation.upgraded or account.password
        opened = self._tell_session(account, device)
        return replace(opened, token=token, dropped_device_id=dropped)

    def _tell_session(self, account: _Account, device: _Device) -> OpenedSession:
        assert device.token_hash is not None
        return OpenedSession(
            account_id=account.account_id,
            device=device.record,
            epoch=account.epoch,
            head=account.head,
            token_hash=device.token_hash,
            token_used_at_ms=device.token_used_at_ms,
            expires_at_ms=self._context.now_ms() + self._context.token_lifetime_ms,
        )

    def _acknowledge_state(self, operation: AcknowledgeState) -> Acknowledged:
        account, device = self._find_session(operation.token_hash, operation.account_id)
        if operation.sequence > account.sequence:
            text = f"sequence {operation.sequence} is not stored; the latest is {account.sequence}"
            raise NoSuchVersion(text)
        changed = operation.sequence > device.record.applied_sequence
        if changed:
            device.record = replace(device.record, applied_sequence=operation.sequence)
        return Acknowledged(device.record, changed)

    def _complete_notice(self, notice: Notice) -> Notice:
        account = self.accounts.get(notice.account_id)
        device = None if account is None else account.devices.get(notice.device_id or "")
        return replace(notice, kept_token_hash=None if device is None else device.token_hash)

    # Wallets.

    def _push_state(self, operation: PushState) -> Pushed:
        account, device = self._find_session(operation.token_hash, operation.account_id)
        if account.disabled:
            raise AccountDisabled
        sequence, head = operation.sequence, account.head
        pushed = SealedWallet(sequence, operation.encrypted_wallet, operation.hmac)
        if sequence == account.sequence + 1:
            return Pushed(self._keep(account, device, pushed), fresh=True)
        kept = account.versions.get(sequence)
        same = kept is not None and pushed == SealedWallet(
            kept.sequence, kept.encrypted_wallet, kept.hmac
        )
        if head is not None and head is kept and same:
            return Pushed(head, fresh=False)
        text = f"sequence {sequence} is not the next; the stored one is {account.sequence}"
        raise Conflict(text, wallet=head, landed=same)

    def _load_history(self, operation: LoadHistory) -> tuple[WalletVersion, ...]:
        account = self.accounts.get(operation.account_id)
        kept = [
            WalletVersion(
                state.sequence,
                state.hmac,
                state.device_id,
                state.updated_at,
                len(state.encrypted_wallet.encode()),
            )
            for state in (() if account is None else reversed(account.versions.values()))
            if operation.before is None or state.sequence < operation.before
        ]
        return tuple(kept[: operation.limit])

    def _keep(self, account: _Account, device: _Device | None, wallet: SealedWallet) -> WalletState:
        device_id = NO_DEVICE if device is None else device.record.device_id
        updated_at = time_from_ms(self._context.now_ms())
        state = WalletState(
            wallet.sequence, wallet.encrypted_wallet, wallet.hmac, device_id, updated_at
        )
        account.versions[state.sequence] = state
        account.versions.pop(state.sequence - self._context.history_depth, None)
        if device is not None:
            device.record = replace(device.record, applied_sequence=state.sequence)
        return state

    # Finding.

    def _by_email(self, email: str) -> _Account | None:
        return next((each for each in self.accounts.values() if each.email == email), None)

    def _by_token(self, token_hash: bytes) -> tuple[_Account, _Device] | None:
        for account in self.accounts.values():
            for device in account.devices.values():
                if device.token_hash == token_hash:
                    return account, device
        return None

    def _find_session(self, token_hash: bytes, account_id: int) -> tuple[_Account, _Device]:
        found = self._by_token(token_hash)
        if found is None or found[0].account_id != account_id:
            raise BadToken
        return found

    def _find_by_password(self, account_id: int, checked: PasswordHash) -> _Account:
        account = self.accounts.get(account_id)
        if account is None or account.password != checked:
            raise BadCredentials
        return account

    def _find_checked(
        self, token_hash: bytes, account_id: int, checked: PasswordHash
    ) -> tuple[_Account, _Device]:
        found = self._find_session(token_hash, account_id)
        if found[0].password != checked:
            raise BadCredentials
        return found


def _credentials(account: _Account | None) -> Credentials | None:
    if account is None:
        return None
    return Credentials(account.account_id, account.password, account.verified, account.disabled)


def _is_live(account: _Account | None, device_id: str, token_hash: bytes) -> bool:
    device = None if account is None or account.disabled else account.devices.get(device_id)
    return device is not None and device.token_hash == token_hash


def _tell_end(account: _Account | None, device_id: str) -> str | None:
    """Why a token of the device has ended, as far as can be told."""
    if account is None:
        return "account_deleted"
    if account.disabled:
        return "account_disabled"
    device = account.devices.get(device_id)
    if device is None:
        return "device_revoked"
    return "replaced" if device.token_hash is not None else None


def _make_room(account: _Account, operation: OpenSession) -> str | None:
    if len(account.devices) < operation.devices_max:
        return None
    offline = [it.record for name, it in account.devices.items() if name not in operation.online]
    if not offline:
        raise TooManyDevices
    oldest = min(offline, key=lambda record: (record.last_seen_at_ms, record.device_id))
    del account.devices[oldest.device_id]
    return oldest.device_id


class MemoryStore:
    """`Memory` on the event loop, with the face of a store: ``open``, ``submit``, ``close``."""

    def __init__(
        self,
        *,
        history_depth: int,
        token_lifetime_s: int,
        answer: Answer,
        now_ms: Callable[[], int],
    ) -> None:
        self.memory = Memory(
            Context(
                now_ms=now_ms,
                history_depth=history_depth,
                token_lifetime_ms=token_lifetime_s * 1000,
            )
        )
        self._answer = answer
        self._history_depth = history_depth
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self) -> Installation:
        """Begin to take operations."""
        self._loop = asyncio.get_running_loop()
        return Installation(secrets.token_bytes(32), self._history_depth)

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Perform the operation; its answer comes on the event loop, never at once."""
        assert self._loop is not None, "the store has been opened"
        if self._closed:
            self._loop.call_soon(self._answer, operation, Unavailable("the store is closed"), done)
        else:
            self._loop.call_soon(self._perform, operation, done)

    @property
    def waiting(self) -> dict[str, int]:
        """Nothing waits for longer than a turn of the loop."""
        return {}

    async def close(self, timeout_s: float = 60.0) -> None:
        """Finish what waits."""
        self._closed = True
        await asyncio.sleep(0)

    def _perform(self, operation: Operation[Any], done: Done) -> None:
        self._answer(operation, self.memory.perform(operation), done)
