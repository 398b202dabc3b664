"""What each method does, as a flow: a generator that yields the operations it waits for.

A flow sees the connection that calls as a `Caller`, and returns the call's result or raises its
RpcError. When it may be called, and when its answer goes out, is `wsserver.session`'s affair.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from wsschema.errors import (
    BadCredentials,
    BadToken,
    NoSuchVersion,
    NotAllowed,
    NotVerified,
    NoWallet,
    RpcError,
    WalletTooLarge,
)
from wsschema.fields import lower_email
from wsschema.limits import CLIENT_SALT_SEED_HEX_DIGITS, Limits
from wsschema.messages import (
    Acknowledge,
    Call,
    ChangePassword,
    DeleteAccount,
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
    ServerInfo,
    SessionOpened,
    Verify,
    WalletState,
)
from wsschema.times import time_from_ms
from wsserver.gate import Gate
from wsserver.hub import device_message
from wsserver.operations import (
    AcknowledgeState,
    ActivateRegistration,
    CheckPassword,
    CreateAccount,
    Credentials,
    EndSession,
    FindAllowed,
    FindOnline,
    FindToken,
    FinishReset,
    Flow,
    HashPassword,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadPendingPassword,
    LoadSession,
    LoadWallet,
    OpenedSession,
    OpenSession,
    Operation,
    PushState,
    RemoveAccount,
    RemoveDevice,
    RenewRegistration,
    ReplacePassword,
    SendLetter,
    StartRegistration,
    StartReset,
    TokenOwner,
    perform,
)

DECOY_KDF: Final = Kdf.scrypt(2**17)
"""What an unknown address is said to derive its keys with: the clients' default."""

EMPTY: Final = Empty()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What every session of a server knows, and the gate that all of them share.

    ``allowlist`` are the addresses of the settings; those in the database come on top.
    """

    info: ServerInfo
    document: dict[str, Any] = field(repr=False)
    limits: Limits
    allowlist: frozenset[str] = field(repr=False)
    decoy_key: bytes = field(repr=False)
    gate: Gate

    @property
    def sends_mail(self) -> bool:
        """Whether accounts are registered by mail."""
        return self.info.verification == "email"


class Caller(Protocol):
    """The connection that calls, as its methods see it."""

    facts: ServerFacts
    address: str
    """What counts as one peer: see `wsserver.throttle.address_key`."""
    connection_id: int
    account_id: int
    device_id: str
    newest: int
    """The newest sequence that this connection was told of or given."""

    @property
    def token(self) -> bytes:
        """The hash of the session's token."""

    def join(self, owner: TokenOwner, token_hash: bytes | None, call: Login | Resume) -> None:
        """From now on hear what concerns the account; it is told after this call is answered."""

    def leave(self) -> None:
        """The session could not be opened: forget the account."""

    def open(self, opened: OpenedSession) -> None:
        """The session is open; it is live once this call is answered."""


# Methods that wait for nothing.


def get_server_info(facts: ServerFacts, call: GetServerInfo) -> ServerInfo:
    """The server's name, version, features and limits."""
    return facts.info


def ping(facts: ServerFacts, call: Ping) -> Empty:
    """A sign of life."""
    return EMPTY


def discover(facts: ServerFacts, call: Discover) -> dict[str, Any]:
    """The OpenRPC document."""
    return facts.document


# Accounts.


def register(caller: Caller, call: Register) -> Flow[Registered]:
    """Makes an account, where the server lets this address have one; by mail, once it is verified.

    By mail a taken address is answered as a new one is; its owner gets a letter that says so.
    """
    facts, email = caller.facts, lower_email(call.email)
    facts.gate.pass_credential_call(caller.address)
    is_listed = facts.info.verification != "allowlist" or email in facts.allowlist
    if not is_listed and not (yield from perform(FindAllowed(email))):
        raise NotAllowed("this server registers only addresses on its allowlist")
    password = yield from perform(HashPassword(call.password))
    if facts.sends_mail:
        registration = StartRegistration(email, password, call.client_salt_seed, call.kdf)
        token = yield from perform(registration)
        yield from send_letter(caller, "verification" if token else "address_taken", email, token)
        return Registered(verified=False)
    account = CreateAccount(email, password, call.client_salt_seed, call.kdf, verified=True)
    yield from perform(account)
    return Registered(verified=True)


def verify(caller: Caller, call: Verify) -> Flow[Empty]:
    """Makes the account of the registration that the mail's token is for."""
    caller.facts.gate.pass_credential_call(caller.address)
    yield from perform(ActivateRegistration(hash_token(call.token)))
    return EMPTY


def resend_verification(caller: Caller, call: ResendVerification) -> Flow[Empty]:
    """Another letter to an address whose registration waits for it; nobody else is told of it."""
    email = _admit_mail(caller, call.email)
    token = yield from perform(RenewRegistration(email))
    yield from send_letter(caller, "verification" if token else "none", email, token)
    return EMPTY


def request_reset(caller: Caller, call: RequestReset) -> Flow[Empty]:
    """A letter to an address that has an account; nobody else is told of it."""
    email = _admit_mail(caller, call.email)
    token = yield from perform(StartReset(email))
    yield from send_letter(caller, "reset" if token else "none", email, token)
    return EMPTY


def reset(caller: Caller, call: Reset) -> Flow[Empty]:
    """New credentials for the account of the letter's token; its wallet is gone."""
    caller.facts.gate.pass_credential_call(caller.address)
    password = yield from perform(HashPassword(call.password))
    reset = FinishReset(hash_token(call.token), password, call.client_salt_seed, call.kdf)
    yield from perform(reset)
    return EMPTY


def _admit_mail(caller: Caller, email: str) -> str:
    if not caller.facts.sends_mail:
        raise NotAllowed("this server sends no mail")
    caller.facts.gate.pass_credential_call(caller.address)
    return lower_email(email)


def send_letter(caller: Caller, kind: str, email: str, token: str | None) -> Flow[None]:
    """Has a letter of that kind sent, unless the address got too many."""
    # Asked for even where nobody gets one: whether it was must not show in the answer's time.
    if kind != "none" and not caller.facts.gate.may_write_to(email):
        kind = "none"
    yield from perform(SendLetter(kind, email, token))


def hash_token(token: str) -> bytes:
    """What of a token is stored."""
    return hashlib.sha256(token.encode()).digest()


def prelogin(caller: Caller, call: Prelogin) -> Flow[KeyDerivation]:
    """How the account's keys are derived; for an unknown address a decoy, always the same one.

    A registration that waits for its mail counts as unknown: if it did not, who registers a
    stranger's address could tell by the seed whether there was an account.
    """
    caller.facts.gate.pass_prelogin(caller.address)
    email = lower_email(call.email)
    seed = hmac.new(caller.facts.decoy_key, email.encode(), hashlib.sha256).hexdigest()
    decoy = KeyDerivation(seed[:CLIENT_SALT_SEED_HEX_DIGITS], DECOY_KDF)
    found = yield from perform(LoadKeyDerivation(email))
    return found or decoy


def change_password(caller: Caller, call: ChangePassword) -> Flow[Empty]:
    """New credentials and the re-encrypted wallet, or nothing."""
    if call.wallet is not None:
        check_size(caller, call.wallet.encrypted_wallet)
    credentials = yield from _check_password(caller, call.old_password)
    replacement = yield from perform(HashPassword(call.new_password))
    yield from perform(
        ReplacePassword(
            caller.token,
            caller.account_id,
            credentials.password,
            replacement,
            call.client_salt_seed,
            call.kdf,
            call.wallet,
        )
    )
    return EMPTY


def delete_account(caller: Caller, call: DeleteAccount) -> Flow[Empty]:
    """The account is gone with all that belongs to it."""
    credentials = yield from _check_password(caller, call.password)
    yield from perform(RemoveAccount(caller.token, caller.account_id, credentials.password))
    return EMPTY


def _check_password(caller: Caller, password: str) -> Flow[Credentials]:
    gate, address, account_id = caller.facts.gate, caller.address, caller.account_id
    gate.pass_credential_call(address, account_id)
    credentials = yield from perform(LoadAccountCredentials(account_id))
    if credentials is None:
        raise BadToken
    if not (yield from perform(CheckPassword(password, credentials.password))):
        gate.note_failure(address, account_id)
        raise BadCredentials("the password is wrong")
    return credentials


# Sessions.


def login(caller: Caller, call: Login) -> Flow[LoggedIn]:
    """A session and a new token, for the right password."""
    credentials = yield from check_credentials(caller, call.email, call.password)
    upgraded = None
    if credentials.password.outdated:
        upgraded = yield from perform(HashPassword(call.password))
    online = yield from perform(FindOnline(credentials.account_id))
    owner = TokenOwner(credentials.account_id, call.device_id)
    operation = OpenSession(
        account_id=owner.account_id,
        checked=credentials.password,
        upgraded=upgraded,
        device_id=owner.device_id,
        device_name=call.device_name,
        devices_max=caller.facts.limits.devices,
        online=online,
    )
    opened = yield from _open(caller, owner, None, call, operation)
    assert opened.token is not None
    return LoggedIn(opened.token, *_opening_answer(call, opened))


def check_credentials(caller: Caller, email: str, password: str) -> Flow[Credentials]:
    """The credentials of that address, for the right password; BadCredentials, NotVerified."""
    gate, email = caller.facts.gate, lower_email(email)
    gate.pass_credential_call(caller.address, email)
    credentials = yield from perform(LoadCredentials(email))
    stored = None if credentials is None else credentials.password
    matches = yield from perform(CheckPassword(password, stored))
    if credentials is None or not matches:
        # The same work whether there is an account, a registration, both or neither.
        if caller.facts.sends_mail:
            pending = yield from perform(LoadPendingPassword(email))
            if (yield from perform(CheckPassword(password, pending))):
                raise NotVerified
        gate.note_failure(caller.address, email)
        raise BadCredentials
    if not credentials.verified:
        raise NotVerified
    return credentials


def resume(caller: Caller, call: Resume) -> Flow[SessionOpened]:
    """A session, for a live token."""
    token_hash = hash_token(call.token)
    owner = yield from perform(FindToken(token_hash))
    if owner is None:
        raise BadToken
    opened = yield from _open(caller, owner, token_hash, call, LoadSession(token_hash))
    return SessionOpened(*_opening_answer(call, opened))


def _open(
    caller: Caller,
    owner: TokenOwner,
    token_hash: bytes | None,
    call: Login | Resume,
    operation: Operation[OpenedSession],
) -> Flow[OpenedSession]:
    # Join before loading: a push between the two would be lost.
    caller.join(owner, token_hash, call)
    try:
        opened = yield from perform(operation)
    except RpcError:
        caller.leave()
        raise
    caller.open(opened)
    return opened


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


def logout(caller: Caller, call: Logout) -> Flow[Empty]:
    """The token is gone; the device stays on the list."""
    yield from perform(EndSession(caller.token, caller.account_id))
    return EMPTY


# Wallets.


def get_wallet(caller: Caller, call: GetWallet) -> Flow[WalletState]:
    """The latest state, or a kept one; never less than what the connection was notified of."""
    while True:
        newest = caller.newest
        state = yield from perform(LoadWallet(caller.account_id, call.sequence, caller.token))
        if call.sequence is None:
            overtaken = (0 if state is None else state.sequence) < caller.newest
        else:
            overtaken = state is None and newest < call.sequence <= caller.newest
        if not overtaken:
            break
        # A notification overtook the read: its answer would be a step back.
    if state is not None:
        return state
    raise NoWallet if call.sequence is None else NoSuchVersion


def push_wallet(caller: Caller, call: PushWallet) -> Flow[WalletState | Receipt]:
    """Stores the next state; what it means to others is told by `events_of` its operation."""
    check_size(caller, call.encrypted_wallet)
    pushed = yield PushState(
        caller.token,
        caller.account_id,
        caller.connection_id,
        call.sequence,
        call.encrypted_wallet,
        call.hmac,
    )
    state: WalletState = pushed.state
    if call.receipt:
        return Receipt(state.sequence, state.hmac, state.updated_at)
    return state


def get_history(caller: Caller, call: GetHistory) -> Flow[History]:
    """The kept versions, newest first."""
    versions = yield from perform(LoadHistory(caller.account_id, call.limit, call.before))
    return History(versions)


def acknowledge(caller: Caller, call: Acknowledge) -> Flow[Empty]:
    """Notes what the device has applied."""
    yield from perform(AcknowledgeState(caller.token, caller.account_id, call.sequence))
    return EMPTY


def check_size(caller: Caller, encrypted_wallet: str) -> None:
    """Raises WalletTooLarge."""
    limit = caller.facts.limits.wallet_bytes
    size = len(encrypted_wallet) if encrypted_wallet.isascii() else len(encrypted_wallet.encode())
    if size > limit:
        text = f"the wallet is {size:,} bytes; the limit is {limit:,}"
        raise WalletTooLarge(text, max_bytes=limit)


# Devices.


def list_devices(caller: Caller, call: ListDevices) -> Flow[DeviceList]:
    """The account's devices; those that are online are seen now."""
    stored = yield from perform(LoadDevices(caller.account_id))
    online = yield from perform(FindOnline(caller.account_id))
    return DeviceList(
        tuple(
            device_message(
                replace(record, last_seen_at_ms=stored.now_ms)
                if record.device_id in online
                else record,
                online=record.device_id in online,
                current=record.device_id == caller.device_id,
            )
            for record in stored.devices
        )
    )


def revoke_device(caller: Caller, call: RevokeDevice) -> Flow[Empty]:
    """The device is gone, and its token with it."""
    yield from perform(RemoveDevice(caller.token, caller.account_id, call.device_id))
    return EMPTY


ANSWERS: Final[Mapping[type[Call[Any]], Callable[[ServerFacts, Any], Any]]] = {
    GetServerInfo: get_server_info,
    Ping: ping,
    Discover: discover,
}
"""Methods that wait for nothing."""

FLOWS: Final[Mapping[type[Call[Any]], Callable[[Caller, Any], Flow[Any]]]] = {
    Register: register,
    Verify: verify,
    ResendVerification: resend_verification,
    RequestReset: request_reset,
    Reset: reset,
    Prelogin: prelogin,
    ChangePassword: change_password,
    DeleteAccount: delete_account,
    Login: login,
    Resume: resume,
    Logout: logout,
    GetWallet: get_wallet,
    PushWallet: push_wallet,
    GetHistory: get_history,
    Acknowledge: acknowledge,
    ListDevices: list_devices,
    RevokeDevice: revoke_device,
}
