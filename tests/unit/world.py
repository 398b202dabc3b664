"""A world for the pure core: a model of the store, a hub, and peers that are driven by hand.

Nothing happens by itself. What sessions wait for is a `Job`; a test performs it (the moment of the
read or of the commit) and answers it (the moment when the session hears of it), now or much later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, assert_never

import orjson

from wsschema.codec import encode_notification
from wsschema.errors import (
    AccountDisabled,
    AccountExists,
    BadCredentials,
    BadToken,
    Conflict,
    NoSuchDevice,
    NoSuchVersion,
    RpcError,
    TooManyDevices,
    WalletExists,
)
from wsschema.limits import Limits
from wsschema.messages import (
    AnnouncedLimits,
    Device,
    Kdf,
    KeyDerivation,
    ServerInfo,
    WalletState,
    WalletUpdated,
    WalletVersion,
)
from wsschema.times import time_from_ms
from wsserver.effects import (
    Answered,
    Close,
    Effect,
    Join,
    Leave,
    Notify,
    Opened,
    Perform,
    RestartClock,
    Send,
    StopClock,
    Superseded,
)
from wsserver.gate import Gate, GateLimits
from wsserver.hub import Hub
from wsserver.operations import (
    SCRYPT_N,
    SCRYPT_P,
    SCRYPT_R,
    Acknowledged,
    AcknowledgeState,
    CheckPassword,
    CreateAccount,
    Credentials,
    DeviceRecord,
    EndSession,
    FindAllowed,
    FindOnline,
    FindToken,
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
    PasswordHash,
    Published,
    Pushed,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
    StoredDevices,
    TokenOwner,
    events_of,
)
from wsserver.session import ServerFacts, Session

EMAIL = "joe@example.com"
PASSWORD = "correct horse"
SEED = "a" * 64
KDF = Kdf.scrypt(2**14)
KDF_JSON = {"name": "scrypt", "n": 2**14, "r": 8, "p": 1}
NOW_MS = 1_767_323_045_678
TOKEN_LIFETIME_MS = 14 * 24 * 3600 * 1000

ADDRESS = "192.0.2.1"

P = TypeVar("P", bound=Operation[Any])


def make_facts(
    *,
    limits: Limits | None = None,
    allowlist: frozenset[str] | None = None,
    gate: Gate | None = None,
) -> ServerFacts:
    limits = limits or Limits()
    return ServerFacts(
        info=ServerInfo(
            name="test",
            version="0",
            protocol=1,
            features=(),
            verification="open" if allowlist is None else "allowlist",
            limits=AnnouncedLimits(
                limits.wallet_bytes,
                limits.message_bytes,
                limits.anonymous_message_bytes,
                limits.history_depth,
                limits.batch,
                limits.devices,
            ),
        ),
        document={"openrpc": "1.3.2"},
        limits=limits,
        allowlist=allowlist or frozenset(),
        decoy_key=b"decoy key",
        gate=gate or Gate(GateLimits(), enabled=False, clock=lambda: 0.0),
    )


def hash_of(password: str, *, n: int = SCRYPT_N) -> PasswordHash:
    """No scrypt: a hash that tells its password, so that a model can check it."""
    return PasswordHash(password.encode(), b"salt", n, SCRYPT_R, SCRYPT_P)


@dataclass
class StoredDevice:
    record: DeviceRecord
    token_hash: bytes | None


@dataclass
class Account:
    account_id: int
    password: PasswordHash
    verified: bool = True
    disabled: bool = False
    key_derivation: KeyDerivation = field(default_factory=lambda: KeyDerivation(SEED, KDF))
    epoch: str = "epoch-1"
    versions: dict[int, WalletState] = field(default_factory=dict)
    devices: dict[str, StoredDevice] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        return max(self.versions, default=0)

    @property
    def head(self) -> WalletState | None:
        return self.versions.get(self.sequence)

    def push(self, sequence: int, device_id: str, wallet: str, hmac: str) -> WalletState:
        state = WalletState(sequence, wallet, hmac, device_id, time_from_ms(NOW_MS))
        self.versions[sequence] = state
        device = self.devices.get(device_id)
        if device is not None:
            device.record = replace(device.record, applied_sequence=sequence)
        return state


class StoreModel:
    """The store's rules in memory, one operation at a time."""

    def __init__(self, *, history_depth: int = 10) -> None:
        self.accounts: dict[str, Account] = {}
        self.allowed: set[str] = set()
        self.history_depth = history_depth
        self._tokens = 0

    def add_account(self, email: str = EMAIL, password: str = PASSWORD) -> Account:
        account = Account(len(self.accounts) + 1, hash_of(password))
        self.accounts[email] = account
        return account

    def perform(self, operation: Operation[Any]) -> Any:
        """The answer, or the RpcError."""
        try:
            return self._perform(operation)
        except RpcError as error:
            return error

    def _perform(self, operation: Operation[Any]) -> Any:
        match operation:
            case HashPassword(password=password):
                return hash_of(password)
            case CheckPassword(password=password, stored=stored):
                return stored is not None and stored.digest == password.encode()
            case LoadCredentials(email=email):
                return self._credentials(self.accounts.get(email))
            case LoadAccountCredentials(account_id=account_id):
                return self._credentials(self._find(account_id))
            case FindAllowed(email=email):
                return email in self.allowed
            case LoadKeyDerivation(email=email):
                found = self.accounts.get(email)
                return None if found is None else found.key_derivation
            case FindToken(token_hash=token_hash):
                owner = self._find_token(token_hash)
                if owner is None:
                    return None
                return TokenOwner(owner[0].account_id, owner[1].record.device_id)
            case LoadSession(token_hash=token_hash):
                account, device = self._require(token_hash)
                return self._opened(account, device)
            case LoadWallet(account_id=account_id, sequence=sequence, token_hash=token_hash):
                if token_hash is not None:
                    self._require(token_hash)
                wanted = self._find(account_id)
                if wanted is None:
                    return None
                return wanted.head if sequence is None else wanted.versions.get(sequence)
            case LoadHistory():
                return self._load_history(operation)
            case LoadDevices(account_id=account_id):
                devices = self._get(account_id).devices.values()
                return StoredDevices(tuple(device.record for device in devices), NOW_MS + 5000)
            case CreateAccount():
                if operation.email in self.accounts:
                    raise AccountExists
                account = self.add_account(operation.email)
                account.password = operation.password
                account.key_derivation = KeyDerivation(operation.client_salt_seed, operation.kdf)
                account.verified = operation.verified
                return None
            case OpenSession():
                return self._open_session(operation)
            case PushState():
                return self._push(operation)
            case AcknowledgeState(sequence=sequence):
                return self._acknowledge(operation.token_hash, sequence)
            case ReplacePassword():
                return self._replace_password(operation)
            case RemoveAccount():
                account = self._checked(operation.account_id, operation.checked)
                self._require(operation.token_hash)
                (email,) = (name for name, kept in self.accounts.items() if kept is account)
                del self.accounts[email]
                return None
            case EndSession(token_hash=token_hash):
                self._require(token_hash)[1].token_hash = None
                return None
            case RemoveDevice(device_id=device_id):
                account, _ = self._require(operation.token_hash)
                if account.devices.pop(device_id, None) is None:
                    raise NoSuchDevice
                return None
        raise AssertionError(operation)

    def _find(self, account_id: int) -> Account | None:
        found = (kept for kept in self.accounts.values() if kept.account_id == account_id)
        return next(found, None)

    def _get(self, account_id: int) -> Account:
        account = self._find(account_id)
        assert account is not None
        return account

    def _find_token(self, token_hash: bytes) -> tuple[Account, StoredDevice] | None:
        for account in self.accounts.values():
            for device in account.devices.values():
                if device.token_hash == token_hash:
                    return account, device
        return None

    def _require(self, token_hash: bytes) -> tuple[Account, StoredDevice]:
        owner = self._find_token(token_hash)
        if owner is None:
            raise BadToken
        return owner

    def _checked(self, account_id: int, checked: PasswordHash) -> Account:
        account = self._find(account_id)
        if account is None or account.password != checked:
            raise BadCredentials
        return account

    def _credentials(self, account: Account | None) -> Credentials | None:
        if account is None:
            return None
        return Credentials(account.account_id, account.password, account.verified, account.disabled)

    def _opened(
        self,
        account: Account,
        device: StoredDevice,
        *,
        token: str | None = None,
        dropped: str | None = None,
    ) -> OpenedSession:
        assert device.token_hash is not None
        return OpenedSession(
            account.account_id,
            device.record,
            account.epoch,
            account.head,
            device.token_hash,
            NOW_MS,
            NOW_MS + TOKEN_LIFETIME_MS,
            token,
            dropped,
        )

    def _open_session(self, operation: OpenSession) -> OpenedSession:
        account = self._checked(operation.account_id, operation.checked)
        if account.disabled:
            raise AccountDisabled
        if operation.upgraded is not None:
            account.password = operation.upgraded
        self._tokens += 1
        token = f"{self._tokens:064x}"
        token_hash = hashlib.sha256(token.encode()).digest()
        device = account.devices.get(operation.device_id)
        dropped = None
        if device is None:
            if len(account.devices) >= operation.devices_max:
                offline = (name for name in account.devices if name not in operation.online)
                dropped = next(offline, None)
                if dropped is None:
                    raise TooManyDevices
                del account.devices[dropped]
            record = DeviceRecord(operation.device_id, operation.device_name, NOW_MS, NOW_MS, 0)
            device = account.devices[operation.device_id] = StoredDevice(record, None)
        device.token_hash = token_hash
        return self._opened(account, device, token=token, dropped=dropped)

    def _push(self, operation: PushState) -> Pushed:
        account, device = self._require(operation.token_hash)
        kept = account.versions.get(operation.sequence)
        wallet, hmac = operation.encrypted_wallet, operation.hmac
        same = kept is not None and (kept.encrypted_wallet, kept.hmac) == (wallet, hmac)
        if operation.sequence == account.sequence + 1:
            state = account.push(operation.sequence, device.record.device_id, wallet, hmac)
            account.versions.pop(operation.sequence - self.history_depth, None)
            return Pushed(state, fresh=True)
        if same and operation.sequence == account.sequence:
            assert kept is not None
            return Pushed(kept, fresh=False)
        raise Conflict(wallet=account.head, landed=same)

    def _acknowledge(self, token_hash: bytes, sequence: int) -> Acknowledged:
        account, device = self._require(token_hash)
        if sequence > account.sequence:
            raise NoSuchVersion
        if sequence <= device.record.applied_sequence:
            return Acknowledged(device.record, changed=False)
        device.record = replace(device.record, applied_sequence=sequence)
        return Acknowledged(device.record, changed=True)

    def _replace_password(self, operation: ReplacePassword) -> None:
        account = self._checked(operation.account_id, operation.checked)
        assert operation.token_hash is not None, "sessions change passwords under their tokens"
        device = self._require(operation.token_hash)[1]
        wallet = operation.wallet
        if wallet is None and account.sequence:
            raise WalletExists
        if wallet is not None and wallet.sequence != account.sequence + 1:
            raise Conflict(wallet=account.head)
        if wallet is not None:
            account.versions.clear()
            account.push(
                wallet.sequence, device.record.device_id, wallet.encrypted_wallet, wallet.hmac
            )
        account.password = operation.replacement
        account.key_derivation = KeyDerivation(operation.client_salt_seed, operation.kdf)
        for other in account.devices.values():
            other.token_hash = None

    def _load_history(self, operation: LoadHistory) -> tuple[WalletVersion, ...]:
        before = operation.before or 2**53
        kept = sorted(self._get(operation.account_id).versions.values(), key=lambda v: -v.sequence)
        return tuple(
            WalletVersion(
                state.sequence,
                state.hmac,
                state.device_id,
                state.updated_at,
                len(state.encrypted_wallet),
            )
            for state in kept
            if state.sequence < before
        )[: operation.limit]


@dataclass(eq=False)
class Job:
    """Something that a session waits for."""

    world: World
    operation: Operation[Any]
    done: Callable[[Any], None]
    result: Any = None

    def perform(self) -> Job:
        """Now it is read, or committed."""
        if isinstance(self.operation, FindOnline):
            self.result = self.world.hub.find_online(self.operation.account_id)
        else:
            self.result = self.world.store.perform(self.operation)
        return self

    def fail(self, error: RpcError) -> Job:
        """It could not be done."""
        self.result = error
        return self

    def answer(self) -> None:
        """Now the world hears of it, then the session that waits for it."""
        for event in events_of(self.operation, self.result):
            self.world.hub.publish(event)
        self.done(self.result)


class World:
    """A store, a hub, and what waits to be done."""

    def __init__(self, facts: ServerFacts | None = None, *, history_depth: int = 10) -> None:
        self.facts = facts or make_facts()
        self.store = StoreModel(history_depth=history_depth)
        self.hub = Hub()
        self.jobs: list[Job] = []
        self.peers: list[Peer] = []
        self.now_ms = NOW_MS

    def connect(self) -> Peer:
        peer = Peer(self, len(self.peers) + 1)
        self.peers.append(peer)
        return peer

    def take(self, kind: type[P]) -> Job:
        """The first job of a kind, taken off the list: the test performs and answers it itself."""
        job = next(job for job in self.jobs if isinstance(job.operation, kind))
        self.jobs.remove(job)
        return job

    def do(self, kind: type[P]) -> P:
        """Perform and answer the first job of a kind; gives its operation."""
        job = self.take(kind)
        job.perform().answer()
        assert isinstance(job.operation, kind)
        return job.operation

    def settle(self) -> None:
        """Perform and answer all that waits, in its order."""
        while self.jobs:
            self.jobs.pop(0).perform().answer()

    @property
    def waiting(self) -> list[type[Operation[Any]]]:
        return [type(job.operation) for job in self.jobs]

    def log_in(self, device_id: str, **params: Any) -> Peer:
        """A peer of the one account with a live session, and an empty inbox."""
        peer = self.connect()
        peer.token = peer.ask(
            "session.login", email=EMAIL, password=PASSWORD, deviceId=device_id, **params
        )["token"]
        peer.inbox.clear()
        peer.effects.clear()
        return peer

    def resume(self, token: str, **params: Any) -> Peer:
        """A peer with a live session under a token, and an empty inbox."""
        peer = self.connect()
        peer.ask("session.resume", token=token, **params)
        peer.token = token
        peer.inbox.clear()
        peer.effects.clear()
        return peer


class Peer:
    """A connection: its session, what it was sent, and the hub's listener for it."""

    def __init__(self, world: World, connection_id: int) -> None:
        self.world = world
        self.connection_id = connection_id
        self.session = Session(world.facts, connection_id, ADDRESS)
        self.congested = False
        self.token = ""
        self.inbox: list[Any] = []
        """Every message that it was sent, from JSON."""
        self.effects: list[Effect] = []
        self.closed: tuple[int, str] | None = None
        self.revocations: list[str] = []
        """Why it was revoked, as the hub told it."""
        self._call_id = 0

    # Calls.

    def call(self, method: str, **params: Any) -> int:
        """Send one call; gives its id."""
        self._call_id += 1
        self.send(make_call(method, self._call_id, **params))
        return self._call_id

    def batch(self, *calls: tuple[str, dict[str, Any]]) -> list[int]:
        """Send calls as one batch; gives their ids."""
        first = self._call_id + 1
        self._call_id += len(calls)
        ids = [*range(first, first + len(calls))]
        self.send(
            [
                make_call(method, call_id, **params)
                for call_id, (method, params) in zip(ids, calls, strict=True)
            ]
        )
        return ids

    def send(self, value: Any) -> None:
        """Send any JSON."""
        self.carry_out(self.session.receive(orjson.dumps(value)))

    def ask(self, method: str, **params: Any) -> Any:
        """Call, let all settle, and give the result or the error object."""
        call_id = self.call(method, **params)
        self.world.settle()
        return self.answer(call_id)

    def push(self, sequence: int, **params: Any) -> int:
        """Push what `push_params` makes of the sequence; gives the call's id."""
        return self.call("wallet.push", **(push_params(sequence) | params))

    # What came of it.

    def answer(self, call_id: int) -> Any:
        """The result or the error object of an answer, in a batch or alone."""
        (answer,) = (message for message in self.answers if message["id"] == call_id)
        return answer["error"] if "error" in answer else answer["result"]

    @property
    def close_code(self) -> int | None:
        return None if self.closed is None else self.closed[0]

    @property
    def answers(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for message in self.inbox:
            messages += message if isinstance(message, list) else [message]
        return [message for message in messages if "id" in message]

    @property
    def notifications(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (message["method"], message["params"])
            for message in self.inbox
            if isinstance(message, dict) and "method" in message
        ]

    @property
    def sequences(self) -> list[int]:
        """The sequences that it was notified of."""
        return [
            params["sequence"] for name, params in self.notifications if name == "wallet.updated"
        ]

    @property
    def names(self) -> list[str]:
        """What it was sent, in order: an answer's id, a batch's ids, a notification's name."""
        return [
            str([answer["id"] for answer in message])
            if isinstance(message, list)
            else str(message["id"] if "id" in message else message["method"])
            for message in self.inbox
        ]

    def caught_up(self) -> None:
        """The peer has read what it was sent."""
        self.congested = False
        self.carry_out(self.session.writable())

    def drop(self) -> None:
        """The connection is gone."""
        self.carry_out(self.session.lost())

    def drain(self, retry_after_ms: int = 700) -> None:
        self.carry_out(self.session.drain(retry_after_ms))

    # As the hub's listener.

    @property
    def device_id(self) -> str:
        return self.session.device_id

    @property
    def token_hash(self) -> bytes | None:
        return self.session.token_hash

    @property
    def device(self) -> DeviceRecord | None:
        return self.session.device

    @device.setter
    def device(self, device: DeviceRecord) -> None:
        self.session.device = device

    @property
    def known_sequence(self) -> int:
        return self.session.known_sequence

    @property
    def presence(self) -> bool:
        return self.session.presence

    @property
    def idle_since_s(self) -> float:
        return self.session.idle_since_s

    def crowd_out(self) -> None:
        self.carry_out(self.session.crowd_out())

    def wallet_updated(self, update: Published) -> None:
        self.carry_out(self.session.wallet_updated(update, congested=self.congested))

    def device_updated(self, device: Device) -> None:
        self.carry_out(self.session.device_updated(device, congested=self.congested))

    def revoked(self, reason: str) -> None:
        self.revocations.append(reason)
        self.carry_out(self.session.revoked(reason))

    def carry_out(self, effects: Sequence[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            match effect:
                case Perform(ticket=ticket, operation=operation):
                    self._wait_for(ticket, operation)
                case Answered(payload=payload):
                    if payload is not None:
                        self._deliver(payload)
                case Send(payload=payload):
                    self._deliver(payload)
                case Notify(update=update, with_wallet=with_wallet):
                    self._deliver(encode_notification(tell_update(update, with_wallet)))
                case Join(account_id=account_id):
                    self.world.hub.join(account_id, self)
                case Leave(account_id=account_id):
                    self.world.hub.leave(account_id, self, now_ms=self.world.now_ms)
                case Opened(opened=opened):
                    self.world.hub.announce(opened.account_id, self)
                case Close(code=code, reason=reason):
                    assert self.closed is None, "closed once"
                    self.closed = (code, reason)
                case RestartClock() | StopClock() | Superseded():
                    pass
                case _:
                    assert_never(effect)

    def _wait_for(self, ticket: int, operation: Operation[Any]) -> None:
        def complete(answer: Any) -> None:
            self.carry_out(self.session.complete(ticket, answer))

        self.world.jobs.append(Job(self.world, operation, complete))

    def _deliver(self, payload: bytes) -> None:
        assert self.closed is None, "nothing is sent after the close"
        self.inbox.append(orjson.loads(payload))


def make_call(method: str, call_id: Any, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}


def push_params(sequence: int) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "encryptedWallet": f"wallet {sequence}",
        "hmac": f"hmac {sequence}",
    }


def tell_update(update: Published, with_wallet: bool) -> WalletUpdated:
    state = update.state
    return WalletUpdated(
        state.sequence,
        state.hmac,
        state.device_id,
        state.updated_at,
        state if with_wallet else None,
    )
