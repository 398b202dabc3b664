"""What each request does, as a flow over the operations that sessions use as well. Pure.

A flow returns what is answered, or raises a Refusal, or an RpcError for `wsserver.lbry.refusals`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from wsschema.errors import AccountDisabled, BadVerificationToken, Conflict, NotAllowed, NoWallet
from wsschema.fields import FieldError, Text, lower_email
from wsschema.limits import DEVICE_ID_CHARS_MAX
from wsschema.messages import Kdf, Login, Register, Verify
from wsschema.times import format_time
from wsserver import methods
from wsserver.gate import Gate
from wsserver.lbry.refusals import Refusal
from wsserver.lbry.requests import AuthFull, PostPassword, PostWallet, Signup
from wsserver.methods import Caller
from wsserver.operations import (
    Flow,
    HashPassword,
    LoadKeyDerivation,
    LoadSession,
    OpenedSession,
    PushState,
    RenewRegistration,
    ReplacePassword,
    perform,
)

KDF: Final = Kdf.scrypt(2**20)
"""What that server's clients derive their keys with; the interface has no way to say another."""
SCOPE: Final = "*"

_DEVICE_ID: Final = Text(1, DEVICE_ID_CHARS_MAX)


def signup(caller: Caller, request: Signup) -> Flow[dict[str, Any]]:
    """Registers an account as `account.register` does."""
    call = Register(request.email, request.password, request.client_salt_seed, KDF)
    registered = yield from methods.register(caller, call)
    return {"verified": registered.verified}


def auth_full(caller: Caller, request: AuthFull) -> Flow[dict[str, Any]]:
    """A token for a device, as `session.login` gives it."""
    call = Login(request.email, request.password, store_device_id(request.device_id))
    opened = yield from methods.login(caller, call)
    return {
        "token": opened.token,
        "deviceId": request.device_id,
        "scope": SCOPE,
        "userId": caller.account_id,
        "expiration": format_time(opened.expires_at),
    }


def store_device_id(device_id: str) -> str:
    """The id that a device is known by here: its own, or in its place a hash, where that is longer
    than ours may be or has control characters. That server takes any."""
    try:
        return _DEVICE_ID.read(device_id, "", lenient=False)
    except FieldError:
        return hashlib.sha256(device_id.encode()).hexdigest()


def authenticate(gate: Gate, token: str) -> Flow[OpenedSession]:
    """What the token's device may see; raises BadToken, AccountDisabled, RateLimited."""
    token_hash = methods.hash_token(token)
    gate.pass_request(token_hash)
    return (yield from perform(LoadSession(token_hash)))


def tell_wallet(opened: OpenedSession) -> dict[str, Any]:
    """The latest state; raises NoWallet."""
    head = opened.head
    if head is None:
        raise NoWallet
    return {
        "encryptedWallet": head.encrypted_wallet,
        "sequence": head.sequence,
        "hmac": head.hmac,
    }


def post_wallet(caller: Caller, opened: OpenedSession, request: PostWallet) -> Flow[dict[str, Any]]:
    """Stores the next state, and has everyone told of it: the device's own sockets too."""
    wallet = request.wallet
    methods.check_size(caller, wallet.encrypted_wallet)
    pushed = yield from perform(
        PushState(
            opened.token_hash,
            opened.account_id,
            caller.connection_id,
            wallet.sequence,
            wallet.encrypted_wallet,
            wallet.hmac,
        )
    )
    if not pushed.fresh:
        # `wallet.push` takes it for a retry; here it is what it is to that server.
        raise Conflict(wallet=pushed.state)
    return {}


def post_password(caller: Caller, request: PostPassword) -> Flow[dict[str, Any]]:
    """New credentials and the re-encrypted wallet, by the old password alone."""
    wallet = request.wallet
    if wallet is not None:
        methods.check_size(caller, wallet.encrypted_wallet)
    checked = yield from methods.check_credentials(caller, request.email, request.old_password)
    if checked.disabled:
        raise AccountDisabled
    replacement = yield from perform(HashPassword(request.new_password))
    try:
        if wallet is not None and wallet.sequence == 1:
            # It would be the account's first, which that server does not take here.
            raise Conflict(wallet=None)
        yield from perform(
            ReplacePassword(
                None,
                checked.account_id,
                checked.password,
                replacement,
                request.client_salt_seed,
                KDF,
                wallet,
            )
        )
    except Conflict as error:
        raise Refusal(
            409, "Bad sequence number or wallet does not exist", reason=error.reason
        ) from None
    return {}


def client_salt_seed(caller: Caller, email: str) -> Flow[dict[str, Any]]:
    """The seed of that address. The interface has no way not to tell whether it has an account."""
    caller.facts.gate.pass_prelogin(caller.address)
    found = yield from perform(LoadKeyDerivation(lower_email(email)))
    if found is None:
        raise Refusal(404, "No match for email")
    return {"clientSaltSeed": found.client_salt_seed}


def verify_resend(caller: Caller, email: str) -> Flow[dict[str, Any]]:
    """Another letter to an address whose registration waits for it."""
    facts, email = caller.facts, lower_email(email)
    if not facts.sends_mail:
        raise Refusal(
            403, "Account verification mode is not set to EmailVerify", reason=NotAllowed.reason
        )
    facts.gate.pass_credential_call(caller.address)
    token = yield from perform(RenewRegistration(email))
    if token is None:
        raise Refusal(401, "No match for email")
    yield from methods.send_letter(caller, "verification", email, token)
    return {}


def verify(caller: Caller, token: str) -> Flow[str]:
    """Makes the account of the registration that the token is for; a person reads the answer."""
    if not token:
        text = "There seems to be a problem with this URL: Missing verifyToken parameter"
        raise Refusal(400, text)
    try:
        yield from methods.verify(caller, Verify(token))
    except BadVerificationToken as error:
        text = "The verification link was not found, was used already, or has expired."
        raise Refusal(403, text, reason=error.reason) from None
    return "Your account has been verified."
