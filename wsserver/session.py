"""What one connection may do: from a message to its answer, as pure state. No I/O, no clock, no randomness.

The shell feeds a `Session` with what happened (`receive`, `complete`, `wallet_updated`, ...) and carries
out the effects that it gets back, in their order. A method is a `Flow`: a generator that yields the
operations it waits for. One connection belongs to one account for its life:

    anonymous -> opening (a login or a resume is under way) -> live -> closed
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wsschema.close_codes import CloseCode
from wsschema.codec import (
    ABSENT,
    Absent,
    Batch,
    Id,
    Malformed,
    Request,
    encode_batch,
    encode_error,
    encode_notification,
    encode_result,
    parse_message,
)
from wsschema.errors import (
    AlreadyAuthenticated,
    BadCredentials,
    BadResetToken,
    BadToken,
    BadVerificationToken,
    NoSuchVersion,
    NotAllowed,
    NotAuthenticated,
    NotVerified,
    NoWallet,
    RpcError,
    Unavailable,
    WalletTooLarge,
)
from wsschema.fields import lower_email
from wsschema.limits import CLIENT_SALT_SEED_HEX_DIGITS, Limits
from wsschema.messages import (
    Acknowledge,
    Call,
    ChangePassword,
    DeleteAccount,
    Device,
    DeviceList,
    Discover,
    Empty,
    GetHistory,
    GetServerInfo,
    GetWallet,
    History,
    Kdf,
    KeyDerivation,
    ListDevices,
    LoggedIn,
    Login,
    Logout,
    Method,
    Ping,
    Prelogin,
    PushWallet,
    Receipt,
    Register,
    Registered,
    RequestReset,
    ResendVerification,
    Reset,
    Resume,
    RevokeDevice,
    ServerClosing,
    ServerInfo,
    SessionOpened,
    SessionRevoked,
    Verify,
    WalletState,
)
from wsschema.times import time_from_ms
from wsserver.hub import device_message
from wsserver.operations import (
    AcknowledgeState,
    CheckPassword,
    CreateAccount,
    Credentials,
    DeviceRecord,
    EndSession,
    FindOnline,
    FindToken,
    Flow,
    HashPassword,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadSession,
    LoadWallet,
    OpenedSession,
    OpenSession,
    Operation,
    Published,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
    perform,
)

DECOY_KDF: Final = Kdf.scrypt(2**17)
"""What an unknown address is said to derive its keys with: the clients' default."""

EMPTY: Final = Empty()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What every session of a server knows. ``allowlist`` is None where everyone may register."""

    info: ServerInfo
    document: dict[str, Any] = field(repr=False)
    limits: Limits
    allowlist: frozenset[str] | None = field(repr=False)
    decoy_key: bytes = field(repr=False)


# Effects: what the shell is to do, in their order.


@dataclass(frozen=True, slots=True)
class Perform:
    """Perform the operation and give its answer, or its RpcError, to ``complete`` with this ticket."""

    ticket: int
    operation: Operation[Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A call ended with ``outcome``: ``ok`` or a reason. ``payload`` is to be sent, if there is one."""

    method: str
    outcome: str
    payload: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notify:
    """Send the update, with its state or without: the same bytes for every listener."""

    update: Published
    with_wallet: bool


@dataclass(frozen=True, slots=True)
class Join:
    account_id: int


@dataclass(frozen=True, slots=True)
class Leave:
    account_id: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is live: the authentication clock ends, the others learn of the device."""

    opened: OpenedSession


@dataclass(frozen=True, slots=True)
class RestartClock:
    """The authentication clock starts anew."""


@dataclass(frozen=True, slots=True)
class StopClock:
    """The authentication clock stands still."""


@dataclass(frozen=True, slots=True)
class Close:
    code: CloseCode
    reason: str


Effect = (
    Perform | Answered | Send | Notify | Join | Leave | Opened | RestartClock | StopClock | Close
)


class _Phase(enum.Enum):
    ANONYMOUS = enum.auto()
    OPENING = enum.auto()
    LIVE = enum.auto()
    CLOSED = enum.auto()


class _BatchAnswer:
    """The answers of a batch so far, and its calls that have ended."""

    __slots__ = ("answers", "ended", "missing")

    def __init__(self, calls: int) -> None:
        self.missing = calls
        self.answers: list[bytes] = []
        self.ended: list[tuple[_Running, bool]] = []


class _Running:
    """A call under way."""

    __slots__ = ("batch", "flow", "id", "method")

    def __init__(self, call_id: Id | Absent, method: str, batch: _BatchAnswer | None) -> None:
        self.id = call_id
        self.method = method
        self.batch = batch
        self.flow: Flow[Any] | None = None


_OPENING = ("session.login", "session.resume")
_ENDING = ("session.logout", "account.delete", "account.changePassword", "device.revoke")
"""Calls that are answered before the revocation that they may bring about."""


class Session:
    """One connection's state. Every method returns the effects to carry out, in their order."""

    __slots__ = (
        "_account_id",
        "_deliver_state",
        "_device_slots",
        "_draining_ms",
        "_effects",
        "_endings",
        "_facts",
        "_opened",
        "_pending",
        "_phase",
        "_presence",
        "_revoked",
        "_ticket",
        "_told",
        "_wallet_slot",
        "connection_id",
        "device",
        "device_id",
        "token_hash",
    )

    def __init__(self, facts: ServerFacts, connection_id: int) -> None:
        self._facts = facts
        self.connection_id = connection_id
        self._phase = _Phase.ANONYMOUS
        self._effects: list[Effect] = []
        self._pending: dict[int, _Running] = {}
        self._ticket = 0
        self._endings = 0
        self._revoked: str | None = None
        self._draining_ms: int | None = None
        self._opened: OpenedSession | None = None
        self._account_id = 0
        self.device_id = ""
        self.token_hash: bytes | None = None
        self.device: DeviceRecord | None = None
        self._deliver_state = False
        self._presence = False
        self._told = 0
        self._wallet_slot: Published | None = None
        self._device_slots: dict[str, Device] | None = None

    @property
    def in_flight(self) -> int:
        """Calls that wait for something."""
        return len(self._pending)

    @property
    def live(self) -> bool:
        """Whether login or resume has been answered, and the session is not over."""
        return self._phase is _Phase.LIVE

    # What happens.

    def receive(self, payload: bytes | bytearray) -> list[Effect]:
        """A text message came."""
        if self._phase is _Phase.CLOSED:
            return []
        message = parse_message(payload, batch_max=self._facts.limits.batch)
        if isinstance(message, Batch):
            batch = _BatchAnswer(len(message.items))
            for item in message.items:
                self._start(item, batch)
        else:
            self._start(message, None)
        return self._take_effects()

    def complete(self, ticket: int, answer: Any) -> list[Effect]:
        """An operation was performed; its answer may be an RpcError."""
        running = self._pending.pop(ticket, None)
        if running is not None:
            self._advance(running, answer)
        return self._take_effects()

    def wallet_updated(self, update: Published, *, congested: bool) -> list[Effect]:
        """Another connection pushed. ``congested``: this one's peer reads too slowly to be sent it now."""
        if self._phase is not _Phase.LIVE or congested:
            slot = self._wallet_slot
            if slot is None or update.state.sequence > slot.state.sequence:
                self._wallet_slot = update
            return []
        self._notify(update, with_wallet=self._deliver_state)
        return self._take_effects()

    def device_updated(self, device: Device, *, congested: bool) -> list[Effect]:
        """Another device came, went or acknowledged."""
        if not self._presence:
            return []
        if self._phase is not _Phase.LIVE or congested:
            self._device_slots = {**(self._device_slots or {}), device.device_id: device}
            return []
        self._effects.append(Send(encode_notification(device)))
        return self._take_effects()

    def writable(self) -> list[Effect]:
        """The peer has read what it was sent: what waits in the slots goes out, without the wallet."""
        if self._phase is _Phase.LIVE:
            self._flush_slots(with_wallet=False)
        return self._take_effects()

    def revoked(self, reason: str) -> list[Effect]:
        """The session's token is gone. What was called to bring that about is answered first."""
        if self._phase is not _Phase.CLOSED:
            self._revoked = reason
            self._end_if_revoked()
        return self._take_effects()

    def drain(self, retry_after_ms: int) -> list[Effect]:
        """The server is about to stop: calls in flight are answered, new ones refused."""
        if self._phase is _Phase.CLOSED:
            return []
        self._draining_ms = retry_after_ms
        if self._phase is _Phase.LIVE:
            self._effects.append(Send(encode_notification(ServerClosing(retry_after_ms))))
        self._close_if_drained()
        return self._take_effects()

    def lost(self) -> list[Effect]:
        """The connection is gone, however it ended."""
        self._end()
        return self._take_effects()

    # Calls.

    def _start(self, item: Request | Malformed, batch: _BatchAnswer | None) -> None:
        if isinstance(item, Malformed):
            self._settle(_Running(item.id, "", batch), item.error)
            return
        running = _Running(item.id, "", batch)
        try:
            method = item.find_method()
            running.method = method.name
            self._admit(method)
            call = item.read_params(method)
            answer = _ANSWERS.get(type(call))
            if answer is not None:
                self._settle(running, answer(self, call))
                return
        except RpcError as error:
            self._settle(running, error)
            return
        if method.name in _OPENING:
            self._phase = _Phase.OPENING
            self._effects.append(StopClock())
        elif method.name in _ENDING:
            self._endings += 1
        running.flow = _FLOWS[type(call)](self, call)
        self._advance(running, None)

    def _admit(self, method: Method) -> None:
        if self._draining_ms is not None:
            raise Unavailable("the server is about to stop", retry_after_ms=self._draining_ms)
        if method.authenticated and self._phase is not _Phase.LIVE:
            raise NotAuthenticated
        if method.name in _OPENING and self._phase is not _Phase.ANONYMOUS:
            raise AlreadyAuthenticated

    def _advance(self, running: _Running, answer: Any) -> None:
        assert running.flow is not None
        try:
            if isinstance(answer, RpcError):
                operation = running.flow.throw(answer)
            else:
                operation = running.flow.send(answer)
        except StopIteration as stop:
            self._settle(running, stop.value)
        except RpcError as error:
            self._settle(running, error)
        else:
            self._ticket += 1
            self._pending[self._ticket] = running
            self._effects.append(Perform(self._ticket, operation))

    def _settle(self, running: _Running, outcome: Any) -> None:
        """The call has its outcome: answer it, or put the answer to those of its batch."""
        call_id, batch = running.id, running.batch
        if isinstance(outcome, RpcError):
            succeeded, told = False, outcome.reason or str(outcome.code)
            payload = None if call_id is ABSENT else encode_error(call_id, outcome)
        else:
            succeeded, told = True, "ok"
            payload = None if call_id is ABSENT else encode_result(call_id, outcome)
        if batch is None:
            self._effects.append(Answered(running.method, told, payload))
            self._after(running, succeeded)
            return
        self._effects.append(Answered(running.method, told, None))
        batch.missing -= 1
        batch.ended.append((running, succeeded))
        if payload is not None:
            batch.answers.append(payload)
        if not batch.missing:
            if batch.answers:
                self._effects.append(Send(encode_batch(batch.answers)))
            for ended, ended_well in batch.ended:
                self._after(ended, ended_well)

    def _after(self, running: _Running, succeeded: bool) -> None:
        """The answer is on its way: only now comes what must not be before it."""
        if self._phase is _Phase.CLOSED or running.flow is None:
            return
        if running.method in _OPENING:
            if succeeded:
                self._go_live()
            else:
                self._phase = _Phase.ANONYMOUS
                self._revoked = None
                self._effects.append(RestartClock())
        elif running.method in _ENDING:
            self._endings -= 1
            self._end_if_revoked()
        self._close_if_drained()

    def _go_live(self) -> None:
        opened, self._opened = self._opened, None
        assert opened is not None
        self._phase = _Phase.LIVE
        self.device = opened.device
        self._told = 0 if opened.head is None else opened.head.sequence
        self._effects.append(Opened(opened))
        if self._revoked is None:
            self._flush_slots(with_wallet=self._deliver_state)
            if self._draining_ms is not None:
                self._effects.append(Send(encode_notification(ServerClosing(self._draining_ms))))
        self._end_if_revoked()

    def _end_if_revoked(self) -> None:
        if self._revoked is not None and self._phase is _Phase.LIVE and not self._endings:
            self._effects.append(Send(encode_notification(SessionRevoked(self._revoked))))
            self._effects.append(Close(CloseCode.SESSION_REVOKED, self._revoked))
            self._end()

    def _close_if_drained(self) -> None:
        if self._draining_ms is not None and not self._pending and self._phase is not _Phase.CLOSED:
            self._effects.append(Close(CloseCode.SERVICE_RESTART, "the server is about to stop"))
            self._end()

    def _end(self) -> None:
        if self._account_id:
            self._effects.append(Leave(self._account_id))
            self._account_id = 0
        self._phase = _Phase.CLOSED
        self._pending.clear()

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    # Notifications.

    def _notify(self, update: Published, *, with_wallet: bool) -> None:
        if update.state.sequence > self._told:
            self._told = update.state.sequence
            self._effects.append(Notify(update, with_wallet))

    def _flush_slots(self, *, with_wallet: bool) -> None:
        update, self._wallet_slot = self._wallet_slot, None
        if update is not None:
            self._notify(update, with_wallet=with_wallet)
        devices, self._device_slots = self._device_slots, None
        for device in (devices or {}).values():
            self._effects.append(Send(encode_notification(device)))

    # The methods, each a flow.

    def _get_server_info(self, call: GetServerInfo) -> ServerInfo:
        return self._facts.info

    def _ping(self, call: Ping) -> Empty:
        return EMPTY

    def _discover(self, call: Discover) -> dict[str, Any]:
        return self._facts.document

    def _register(self, call: Register) -> Flow[Registered]:
        email = lower_email(call.email)
        if self._facts.allowlist is not None and email not in self._facts.allowlist:
            raise NotAllowed("this server registers only addresses on its allowlist")
        password = yield from perform(HashPassword(call.password))
        account = CreateAccount(email, password, call.client_salt_seed, call.kdf, verified=True)
        yield from perform(account)
        return Registered(verified=True)

    def _verify(self, call: Verify) -> Empty:
        raise BadVerificationToken

    def _resend_verification(self, call: ResendVerification) -> Empty:
        raise NotAllowed("this server sends no mail")

    def _request_reset(self, call: RequestReset) -> Empty:
        raise NotAllowed("this server sends no mail")

    def _reset(self, call: Reset) -> Empty:
        raise BadResetToken

    def _prelogin(self, call: Prelogin) -> Flow[KeyDerivation]:
        if self._phase is _Phase.ANONYMOUS:
            self._effects.append(RestartClock())
        email = lower_email(call.email)
        decoy = hmac.new(self._facts.decoy_key, email.encode(), hashlib.sha256).hexdigest()
        found = yield from perform(LoadKeyDerivation(email))
        return found or KeyDerivation(decoy[:CLIENT_SALT_SEED_HEX_DIGITS], DECOY_KDF)

    def _login(self, call: Login) -> Flow[LoggedIn]:
        credentials = yield from perform(LoadCredentials(lower_email(call.email)))
        stored = None if credentials is None else credentials.password
        matches = yield from perform(CheckPassword(call.password, stored))
        if credentials is None or not matches:
            raise BadCredentials
        if not credentials.verified:
            raise NotVerified
        upgraded = None
        if credentials.password.outdated:
            upgraded = yield from perform(HashPassword(call.password))
        online = yield from perform(FindOnline(credentials.account_id))
        operation = OpenSession(
            account_id=credentials.account_id,
            checked=credentials.password,
            upgraded=upgraded,
            device_id=call.device_id,
            device_name=call.device_name,
            devices_max=self._facts.limits.devices,
            online=online,
        )
        opened = yield from self._open(call, credentials.account_id, call.device_id, operation)
        assert opened.token is not None
        return LoggedIn(opened.token, *_opening_answer(call, opened))

    def _resume(self, call: Resume) -> Flow[SessionOpened]:
        token_hash = hashlib.sha256(call.token.encode()).digest()
        owner = yield from perform(FindToken(token_hash))
        if owner is None:
            raise BadToken
        self.token_hash = token_hash
        opened = yield from self._open(
            call, owner.account_id, owner.device_id, LoadSession(token_hash)
        )
        return SessionOpened(*_opening_answer(call, opened))

    def _open(
        self,
        call: Login | Resume,
        account_id: int,
        device_id: str,
        operation: Operation[OpenedSession],
    ) -> Flow[OpenedSession]:
        self._account_id = account_id
        self.device_id = device_id
        self._deliver_state = call.deliver == "state"
        self._presence = call.presence
        # Join before loading: a push between the two would be lost.
        self._effects.append(Join(account_id))
        try:
            opened = yield from perform(operation)
        except RpcError:
            self._effects.append(Leave(account_id))
            self._account_id = 0
            self.token_hash = None
            self._presence = False
            self._wallet_slot = self._device_slots = None
            raise
        self.token_hash = opened.token_hash
        self._opened = opened
        return opened

    def _logout(self, call: Logout) -> Flow[Empty]:
        yield from perform(EndSession(self._token, self._account_id))
        return EMPTY

    def _change_password(self, call: ChangePassword) -> Flow[Empty]:
        if call.wallet is not None:
            self._check_size(call.wallet.encrypted_wallet)
        credentials = yield from self._check_password(call.old_password)
        replacement = yield from perform(HashPassword(call.new_password))
        yield from perform(
            ReplacePassword(
                self._token,
                self._account_id,
                credentials.password,
                replacement,
                call.client_salt_seed,
                call.kdf,
                call.wallet,
            )
        )
        return EMPTY

    def _delete_account(self, call: DeleteAccount) -> Flow[Empty]:
        credentials = yield from self._check_password(call.password)
        yield from perform(RemoveAccount(self._token, self._account_id, credentials.password))
        return EMPTY

    def _check_password(self, password: str) -> Flow[Credentials]:
        credentials = yield from perform(LoadAccountCredentials(self._account_id))
        if credentials is None:
            raise BadToken
        if not (yield from perform(CheckPassword(password, credentials.password))):
            raise BadCredentials("the password is wrong")
        return credentials

    def _get_wallet(self, call: GetWallet) -> Flow[WalletState]:
        while True:
            told = self._told
            state = yield from perform(LoadWallet(self._account_id, call.sequence))
            if call.sequence is None:
                overtaken = (0 if state is None else state.sequence) < self._told
            else:
                overtaken = state is None and told < call.sequence <= self._told
            # A notification overtook the read: an answer with less than it told would be a step back.
            if not overtaken:
                break
        if state is not None:
            return state
        raise NoWallet if call.sequence is None else NoSuchVersion

    def _push_wallet(self, call: PushWallet) -> Flow[WalletState | Receipt]:
        self._check_size(call.encrypted_wallet)
        pushed = yield PushState(
            self._token,
            self._account_id,
            self.connection_id,
            call.sequence,
            call.encrypted_wallet,
            call.hmac,
        )
        state: WalletState = pushed.state
        self._told = max(self._told, state.sequence)
        if call.receipt:
            return Receipt(state.sequence, state.hmac, state.updated_at)
        return state

    def _get_history(self, call: GetHistory) -> Flow[History]:
        versions = yield from perform(LoadHistory(self._account_id, call.limit, call.before))
        return History(versions)

    def _acknowledge(self, call: Acknowledge) -> Flow[Empty]:
        yield from perform(
            AcknowledgeState(self._token, self._account_id, self.connection_id, call.sequence)
        )
        return EMPTY

    def _list_devices(self, call: ListDevices) -> Flow[DeviceList]:
        stored = yield from perform(LoadDevices(self._account_id))
        online = yield from perform(FindOnline(self._account_id))
        return DeviceList(
            tuple(
                device_message(
                    replace(record, last_seen_at_ms=stored.now_ms)
                    if record.device_id in online
                    else record,
                    online=record.device_id in online,
                    current=record.device_id == self.device_id,
                )
                for record in stored.devices
            )
        )

    def _revoke_device(self, call: RevokeDevice) -> Flow[Empty]:
        yield from perform(RemoveDevice(self._token, self._account_id, call.device_id))
        return EMPTY

    @property
    def _token(self) -> bytes:
        assert self.token_hash is not None
        return self.token_hash

    def _check_size(self, encrypted_wallet: str) -> None:
        limit = self._facts.limits.wallet_bytes
        size = (
            len(encrypted_wallet) if encrypted_wallet.isascii() else len(encrypted_wallet.encode())
        )
        if size > limit:
            text = f"the wallet is {size:,} bytes; the limit is {limit:,}"
            raise WalletTooLarge(text, max_bytes=limit)


def _opening_answer(call: Login | Resume, opened: OpenedSession) -> tuple[Any, ...]:
    """The members of ``Session``, in the order in which the messages declare them."""
    head = opened.head
    sequence = 0 if head is None else head.sequence
    moved = call.since is not None and (
        sequence != call.since or (call.epoch is not None and call.epoch != opened.epoch)
    )
    return (
        opened.device.device_id,
        time_from_ms(opened.expires_at_ms),
        opened.epoch,
        sequence,
        None if head is None else head.hmac,
        head if moved else None,
    )


_ANSWERS: dict[type[Call[Any]], Callable[[Session, Any], Any]] = {
    GetServerInfo: Session._get_server_info,
    Ping: Session._ping,
    Discover: Session._discover,
    Verify: Session._verify,
    ResendVerification: Session._resend_verification,
    RequestReset: Session._request_reset,
    Reset: Session._reset,
}
"""Methods that wait for nothing."""

_FLOWS: dict[type[Call[Any]], Callable[[Session, Any], Flow[Any]]] = {
    Register: Session._register,
    Prelogin: Session._prelogin,
    ChangePassword: Session._change_password,
    DeleteAccount: Session._delete_account,
    Login: Session._login,
    Resume: Session._resume,
    Logout: Session._logout,
    GetWallet: Session._get_wallet,
    PushWallet: Session._push_wallet,
    GetHistory: Session._get_history,
    Acknowledge: Session._acknowledge,
    ListDevices: Session._list_devices,
    RevokeDevice: Session._revoke_device,
}
