"""A client to try things out with, from a Python prompt: `Client` prints what happens.

Its wallet is a log of segments, sealed by nobody, so that one can see what is merged. An
application uses `wsclient.Session` instead.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from wsclient import account, crypto
from wsclient.background import Background
from wsclient.crypto import DEFAULT_KDF, Keys
from wsclient.errors import (
    AnswerLost,
    CallTimedOut,
    CannotConnect,
    Conflict,
    NotAuthenticated,
    NoWallet,
    SessionEnded,
    WalletSyncError,
)
from wsclient.events import Offline, Online
from wsclient.merge import append_segment, merge_append_logs
from wsclient.session import Session
from wsclient.witness import Witness
from wsschema import messages
from wsschema.errors import ServiceUnavailable, TooManyRequests
from wsschema.messages import (
    Acknowledge,
    DeleteAccount,
    Device,
    GetHistory,
    Kdf,
    ListDevices,
    SealedWallet,
    WalletUpdated,
)

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_URL: Final = "ws://127.0.0.1:8090/v1"
NEW_WALLET: Final = "-"
LEAVING_TIMEOUT_S: Final = 2.0
"""How long the end of the program may wait for a polite goodbye."""

HOW_TO_START: Final = (
    "Start a server with `make run` in a clone, or `wsserver serve --verification open`; another "
    "one's address goes into WSSERVER_URL or Client(url)."
)
HOW_TO_LOG_IN: Final = "get_auth_token() begins a new session."


@dataclass(frozen=True, slots=True)
class WalletState:
    """A wallet and the sequence under which the server keeps it."""

    sequence: int
    encrypted_wallet: str


def _plainly(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[Client, P], T]:
    """Lets an error end in its sentence, without the frames below the method that was called."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except WalletSyncError as error:
            raise error.with_traceback(None) from None

    return call


class Client:
    """One device of an account, at a Python prompt.

    >>> c = Client()
    >>> c.set_account("joe@example.com", "correct horse")
    >>> c.register()            # once for an account
    >>> c.get_auth_token()      # logs in; from now on updates are heard
    >>> c.new_wallet_state()    # or c.get_wallet()
    >>> c.change_encrypted_wallet()
    >>> c.update_wallet()

    Also: cur_encrypted_wallet, get_wallet, listen, stop_listening, devices, history,
    change_password, logout, delete_account, close.

    ``url``: of the server; else that in WSSERVER_URL, else ws://127.0.0.1:8090/v1. ``device_name``:
    what the account's other devices see. ``minimum_kdf``: the weakest key derivation to accept on
    first contact, and the one to register with. Meant for one thread.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        device_name: str | None = None,
        minimum_kdf: Kdf = DEFAULT_KDF,
    ) -> None:
        self.url = url or os.environ.get("WSSERVER_URL") or DEFAULT_URL
        self.device_id = secrets.token_hex(8)
        self.device_name = device_name
        self._minimum_kdf = minimum_kdf
        self._background = Background(f"wallet client {self.device_id}")
        self._email = self._root_password = ""
        self._listening = False
        self._forget_account()
        self._session: Session | None = None
        self._watcher: asyncio.Task[None] | None = None
        atexit.register(self._leave)

    def _forget_account(self) -> None:
        self._keys: Keys | None = None
        self._witness = Witness()
        self._epoch: str | None = None
        self._wallet: str | None = None
        self._base: WalletState | None = None
        """The version last got from the server or put there: what both sides of a merge share."""
        self._unsettled: WalletState | None = None
        """A push of which nobody knows whether it landed."""

    def __repr__(self) -> str:
        parts = ["logged in" if self._is_logged_in() else "not logged in"]
        if self._base is not None:
            parts.append(f"wallet at sequence {self._base.sequence}")
        elif self._wallet is not None:
            parts.append("wallet not on the server yet")
        if self._base is not None and self._wallet != self._base.encrypted_wallet:
            parts.append("changed here")
        if self._base is not None and self._witness.sequence > self._base.sequence:
            parts.append(f"sequence {self._witness.sequence} on the server")
        return f"<Client of {self.url}, device {self.device_id[:8]}: {', '.join(parts)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The account.

    def set_account(self, email: str, password: str) -> None:
        """Names the account. The password is its root password, which never leaves this device."""
        self._end_session()
        self._forget_account()
        self._email, self._root_password = email, password

    @_plainly
    def register(self) -> None:
        """Makes the account on the server."""
        self._need_account()

        async def register() -> bool:
            async with Session(self.url) as session:
                registered = await account.register(
                    session, self._email, self._root_password, kdf=self._minimum_kdf
                )
                return registered.verified

        verified = self._reach(register)
        print("Registered" if verified else "Registered. Follow the link in the mail, then go on.")

    @_plainly
    def get_auth_token(self) -> None:
        """Logs this device in. Its connection stays open from now on, and hears of updates."""
        self._need_account()
        self._end_session()
        self._session = self._reach(self._log_in)
        print(f"Got auth token: {self._session.token}")

    @_plainly
    def change_password(self, new_password: str) -> None:
        """Changes the root password, and logs this device in again; other devices have to as well.

        The wallet goes along in the same step, with what was changed here.
        """
        session, keys = self._need_session(), self._need_keys()
        self._settle()
        carried: WalletState | None = None
        if session.witness.sequence > 0:
            if self._base is None or self._base.sequence < session.witness.sequence:
                self._merge(self._background.run(session.get()))
            carried = WalletState(self._next_sequence(), self._need_wallet())
        reseal = None if carried is None else functools.partial(_authenticate, carried)
        try:
            self._background.run(
                account.change_password(session, keys, new_password, reseal=reseal)
            )
        except Conflict as conflict:
            self._tell_conflict(conflict)
            return
        self._base = carried
        self._root_password = new_password
        print("Changed password")
        self.get_auth_token()

    @_plainly
    def logout(self) -> None:
        """Ends this device's token; the wallet stays here."""
        self._background.run(self._need_session().logout())
        self._end_session()
        print("Logged out")

    @_plainly
    def delete_account(self) -> None:
        """Deletes the account, its wallet and its history; what is here stays."""
        session = self._need_session()
        self._background.run(session.call(DeleteAccount(self._need_keys().password)))
        self._end_session()
        self._base = None
        print("Deleted account")

    # The wallet.

    def new_wallet_state(self) -> None:
        """Begins a wallet here; update_wallet() puts it on the server."""
        self._base, self._wallet, self._unsettled = None, NEW_WALLET, None

    @_plainly
    def cur_encrypted_wallet(self) -> str:
        """The wallet as it is here, with what is not on the server yet."""
        return self._need_wallet()

    @_plainly
    def change_encrypted_wallet(self, segment: str | None = None) -> None:
        """Appends a segment to the wallet here, at random unless given."""
        self._wallet = append_segment(self._need_wallet(), segment or secrets.token_hex(2))

    @_plainly
    def get_wallet(self) -> None:
        """Gets the latest wallet, and merges what was changed here on top of it."""
        session = self._need_session()
        self._settle()
        try:
            state = self._background.run(session.get())
        except NoWallet:
            text = "the account has no wallet yet: new_wallet_state(), then update_wallet()"
            raise NoWallet(text) from None
        self._merge(state)
        print(f"Got latest walletState:\n{self._base}")

    @_plainly
    def update_wallet(self) -> None:
        """Puts the wallet on the server, or merges what is there when it is newer."""
        self._need_session()
        self._need_wallet()
        self._settle()
        pushed = WalletState(self._next_sequence(), self._need_wallet())
        try:
            self._push(pushed)
        except Conflict as conflict:
            if not conflict.landed:
                self._tell_conflict(conflict)
                return
            self._base = pushed
            self._merge_conflict(conflict)
            print("Successfully updated wallet state on server; another device has followed")
        else:
            self._base = pushed
            print("Successfully updated wallet state on server")
        print(f"Got new walletState:\n{self._base}")

    # Looking around.

    @_plainly
    def devices(self) -> None:
        """Prints the devices of the account, and what each has applied."""
        session = self._need_session()
        for device in self._background.run(session.call(ListDevices())).devices:
            applied = device.applied_sequence
            has = f"has sequence {applied}" if applied else "has no wallet yet"
            here = ", this one" if device.current else ""
            print(f"{_describe_device(device)} {_describe_presence(device)} and {has}{here}")

    @_plainly
    def history(self) -> None:
        """Prints the versions that the server keeps, newest first."""
        session = self._need_session()
        for version in self._background.run(session.call(GetHistory())).versions:
            print(
                f"sequence {version.sequence}, {version.bytes:,} bytes, by device "
                f"{version.device_id[:8]}, {version.updated_at:%Y-%m-%d %H:%M:%S} UTC"
            )

    def listen(self) -> None:
        """Prints what is heard from now on, as it comes; returns at once."""
        self._listening = True

    def stop_listening(self) -> None:
        """Prints no more of what is heard."""
        self._listening = False

    def close(self) -> None:
        """Ends the connection; the token stays good, the wallet stays here."""
        atexit.unregister(self._leave)
        self._end_session()
        self._background.stop()

    # What the above have in common.

    def _is_logged_in(self) -> bool:
        return self._session is not None and self._session.ended is None

    def _need_account(self) -> None:
        if not self._email:
            raise NotAuthenticated("name the account first: set_account(email, password)")

    def _need_keys(self) -> Keys:
        assert self._keys is not None, "a session has keys"
        return self._keys

    def _need_wallet(self) -> str:
        if self._wallet is None:
            raise NoWallet("there is no wallet here yet: new_wallet_state() or get_wallet()")
        return self._wallet

    def _need_session(self) -> Session:
        if self._session is None:
            raise NotAuthenticated("log in first: get_auth_token()")
        if self._session.ended is not None:
            raise _with_note(self._session.ended, HOW_TO_LOG_IN)
        self._note_epoch()
        return self._session

    def _reach(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._background.run(attempt())
        except CannotConnect as error:
            raise _with_note(error, HOW_TO_START) from None

    async def _log_in(self) -> Session:
        session = Session(self.url, witness=self._witness, presence=True)
        await session.__aenter__()
        try:
            # Only then are they this account's: a server derives decoys for an unknown address.
            self._keys = await account.log_in(
                session,
                self._email,
                self._root_password,
                device_id=self.device_id,
                device_name=self.device_name,
                minimum_kdf=self._minimum_kdf,
                last_used=None if self._keys is None else self._keys.kdf,
            )
            devices = (await session.call(ListDevices())).devices
        except BaseException:
            await session.close()
            raise
        online = {device.device_id for device in devices if device.online}
        self._watcher = asyncio.create_task(self._watch(session, online))
        return session

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._background.run(session.close())

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                self._background.run(asyncio.wait_for(session.close(), LEAVING_TIMEOUT_S))

    def _next_sequence(self) -> int:
        return 1 if self._base is None else self._base.sequence + 1

    def _push(self, pushed: WalletState) -> None:
        session = self._need_session()
        self._unsettled = pushed
        try:
            self._background.run(session.push(pushed.sequence, pushed.encrypted_wallet))
        except (CallTimedOut, AnswerLost, SessionEnded, ServiceUnavailable, TooManyRequests):
            raise  # it may have landed, so it stays unsettled
        except WalletSyncError:
            self._unsettled = None
            raise
        self._unsettled = None

    def _settle(self) -> None:
        """Finds out whether an unanswered push landed, lest its change be merged a second time."""
        pushed = self._unsettled
        if pushed is None:
            return
        try:
            self._push(pushed)
        except Conflict as conflict:
            if not conflict.landed:
                return
        self._base = pushed

    def _note_epoch(self) -> None:
        if self._epoch is not None and self._epoch != self._witness.epoch:
            # The server's data was restored or reset: what both sides shared may be gone from it.
            self._base = self._unsettled = None
        self._epoch = self._witness.epoch

    def _merge(self, state: messages.WalletState) -> None:
        self._note_epoch()
        theirs = state.encrypted_wallet
        base = None if self._base is None else self._base.encrypted_wallet
        mine = theirs if self._wallet is None else self._wallet
        self._wallet = merge_append_logs(base, mine, theirs)
        self._base = WalletState(state.sequence, theirs)
        with contextlib.suppress(WalletSyncError):  # an acknowledgement may be lost
            self._background.run(self._need_session().call(Acknowledge(state.sequence)))

    def _merge_conflict(self, conflict: Conflict) -> None:
        if conflict.wallet is None:
            self._base = None
        else:
            self._merge(conflict.wallet)

    def _tell_conflict(self, conflict: Conflict) -> None:
        self._merge_conflict(conflict)
        print(
            "Wallet state out of date. Getting updated wallet state. Try posting again after this."
        )
        if self._base is None:
            print("There is none on the server.")
        else:
            print(f"Got new walletState:\n{self._base}")

    # What is heard, on the background thread.

    async def _watch(self, session: Session, online: set[str]) -> None:
        """Tells what is heard; ``online`` are the devices of which that is known already."""
        try:
            async for event in session.notifications():
                match event:
                    case WalletUpdated():
                        device = event.device_id[:8]
                        self._tell_aside(f"device {device} pushed sequence {event.sequence}")
                    case Device() if event.online != (event.device_id in online):
                        online ^= {event.device_id}
                        self._tell_aside(f"{_describe_device(event)} {_describe_presence(event)}")
                    case Offline():
                        self._tell_aside(f"{event.cause}; trying again in {event.retry_s:.1f} s")
                    case Online():
                        self._tell_aside("connected again")
        except WalletSyncError as error:
            self._tell_aside(f"{error}. {HOW_TO_LOG_IN}")

    def _tell_aside(self, text: str) -> None:
        if self._listening:
            _print_aside(f"Heard: {text}")


def _authenticate(state: WalletState, keys: Keys) -> SealedWallet:
    hmac = crypto.compute_hmac(keys.hmac_key, state.sequence, state.encrypted_wallet)
    return SealedWallet(state.sequence, state.encrypted_wallet, hmac)


def _with_note(error: Exception, note: str) -> Exception:
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


def _describe_device(device: Device) -> str:
    return f"device {device.device_id[:8]}" + (f" ({device.name})" if device.name else "")


def _describe_presence(device: Device) -> str:
    return "is online" if device.online else "is offline"


def _print_aside(line: str) -> None:
    """Prints a line from the background; at a prompt, above it."""
    prompt = getattr(sys, "ps1", None)
    if prompt is None or not sys.stdout.isatty():
        print(line, flush=True)
    else:
        print(f"\r\x1b[K{line}\n{prompt}", end="", flush=True)
