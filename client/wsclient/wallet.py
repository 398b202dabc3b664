"""A wallet that stays in sync: `SyncedWallet`, the shell around `wsclient.sync`.

It does what the core says: one session at a time, the file, the merge function. Everything here
runs on the event loop; what blocks (scrypt, the disk) runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import random
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from wsclient import account, crypto
from wsclient.crypto import DEFAULT_KDF, Keys
from wsclient.errors import (
    AnswerLost,
    BadCredentials,
    BadToken,
    CallTimedOut,
    CannotConnect,
    InternalError,
    LocalStateDamaged,
    MessageTooLarge,
    NoSuchVersion,
    NotAuthenticated,
    NoWallet,
    RpcError,
    ServiceUnavailable,
    SessionEnded,
    StateRefused,
    TooManyRequests,
    Unauthorized,
    WalletExists,
    WalletSyncError,
    WrongPassword,
)
from wsclient.events import Offline, Online
from wsclient.local_state import LocalState, decode_state, encode_state
from wsclient.merge import Merge
from wsclient.reconnection import Reconnection
from wsclient.session import CALL_TIMEOUT_S, Session
from wsclient.storage import LocalStore
from wsclient.sync import (
    Action,
    RunMerge,
    SendAck,
    SendGet,
    SendPasswordChange,
    SendPush,
    SyncCore,
)
from wsclient.wallet_events import (
    DeviceUpdated,
    PasswordNeeded,
    PushRefused,
    Status,
    StatusChanged,
    Stopped,
    WalletEvent,
)
from wsclient.witness import Witness
from wsschema.fields import lower_email
from wsschema.limits import HISTORY_LIMIT_DEFAULT
from wsschema.messages import (
    METHOD_OF,
    Acknowledge,
    Call,
    ChangePassword,
    DeleteAccount,
    Device,
    GetHistory,
    GetWallet,
    Kdf,
    ListDevices,
    Logout,
    Ping,
    PushWallet,
    RevokeDevice,
    SealedWallet,
    WalletUpdated,
    WalletVersion,
)

R = TypeVar("R")

MakeSession = Callable[[Witness], Session]
"""Makes a session that was not entered yet, and that reports to the witness."""

AskPassword = Callable[[PasswordNeeded], Awaitable[str | None]]
"""Gives the account's root password as it is now, or was; None stops the sync."""

DEBOUNCE_S: Final = 0.2
RETRY_S: Final = 1.0
"""Before the same is tried again, where the server did not say when."""
DEBOUNCES_MAX: Final = 10
"""A wallet that changes without a pause is pushed after as many times the pause."""
EVENTS_MAX: Final = 1000
"""What one reader of events may be behind; past that the oldest is dropped."""
PASSWORD_ATTEMPTS_MAX: Final = 3

_PASSING: Final = (
    *(CannotConnect, AnswerLost, CallTimedOut, ServiceUnavailable, TooManyRequests),
    *(InternalError, OSError),
)
"""After these it is tried again, by and by."""


class SyncedWallet:
    """One device's wallet of an account, kept the same as on all of its other devices.

    ::

        async with SyncedWallet(
            "wss://sync.example.com/v1", "joe@example.com", "correct horse", folder, merge
        ) as wallet:
            await wallet.change(b'{"entries": []}')
            async for event in wallet.events():
                ...

    Entering opens the folder, which is one device's of one account, and raises FolderInUse,
    WrongPassword and LocalStateDamaged. It needs no connection: what is changed without one is kept
    sealed, and goes out when there is one. Everything else goes on in the background: pushes are
    made and repeated, what other devices push is merged, a lost connection is made again, an ended
    token is replaced by a new login.

    Where that may not go on, it stops, and `stopped` says why: StateRefused (the server showed what
    cannot be; see `recover`), SessionEnded (the device was revoked, the account deleted, ...),
    BadCredentials, WeakKdf, or what ``merge`` raised.

    ``server``: its address, or what makes a `Session`. ``root_password``: None where ``local_key``,
    which an earlier `local_key` gave, opens the folder. ``merge``: see `wsclient.merge`.
    ``device_name``: what the account's other devices see. ``ask_password``: asked when the root
    password was changed on another device, or was another when the folder was sealed.
    ``minimum_kdf``: the weakest key derivation to accept on first contact. ``debounce_s``: how long
    changes are gathered before they are pushed. ``ca``, ``allow_plaintext``: as of `Session`.
    """

    def __init__(
        self,
        server: str | MakeSession,
        email: str,
        root_password: str | None,
        folder: str | os.PathLike[str],
        merge: Merge,
        *,
        local_key: bytes | None = None,
        device_name: str | None = None,
        ask_password: AskPassword | None = None,
        minimum_kdf: Kdf = DEFAULT_KDF,
        debounce_s: float = DEBOUNCE_S,
        ca: str | os.PathLike[str] | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        def make_session(witness: Witness) -> Session:
            assert isinstance(server, str), "else it makes the sessions"
            return Session(
                server,
                witness=witness,
                deliver="state",
                presence=True,
                ca=ca,
                allow_plaintext=allow_plaintext,
            )

        self.email = email
        self.folder = Path(folder)
        self.status = Status.OFFLINE
        self.stopped: Exception | None = None
        """Why the sync has stopped; None while it has not."""
        self.round_trip_s: float | None = None
        """How long the last call took to be answered."""
        self._make_session = make_session if isinstance(server, str) else server
        self._root_password = root_password
        """One that was not tried yet."""
        self._local_key = local_key
        self._merge = merge
        self._device_name = device_name
        self._ask_password = ask_password
        self._minimum_kdf = minimum_kdf
        self._core = SyncCore(LocalState.new())
        self._store: LocalStore | None = None
        self._saving = asyncio.Lock()
        self._tidy_passwords: Callable[[], None] | None = None
        """What is to be done to the passwords of the folder before the state is saved."""
        self._debounce = _Debounce(debounce_s)
        self._session: Session | None = None
        self._session_keys: Keys | None = None
        self._keys_are_old = False
        self._asks_latest = False
        self._refusal: WalletSyncError | None = None
        self._devices: dict[str, Device] = {}
        # One that nobody holds any more is not kept for its events.
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._waiters: set[asyncio.Future[None]] = set()
        self._has_work = asyncio.Event()
        self._has_reason_to_connect = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        unsynced = ", unsynced changes" if self.unsynced else ""
        return f"<SyncedWallet in {self.folder}: {self.status}, sequence {self.sequence}{unsynced}>"

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a SyncedWallet is entered once; make another for the same folder")
        self._store, opened_with = await self._open_folder()
        try:
            payload = self._store.load()
            if payload is None:
                self._core.dirty = True
                await self._save()
            else:
                self._core = SyncCore(self._decode_state(payload))
                if self._core.state.keys is not None and self._root_password == opened_with:
                    self._root_password = None  # What it derives is here already.
        except BaseException:
            self._store.close()
            self._store = None
            raise
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the sync here; what has not gone out stays on disk, and the token stays good."""
        if self._store is None:
            return
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        try:
            await self._save()
        finally:
            self._store.close()
            self._store = None
            for reader in tuple(self._readers):
                reader.end()
            self._notify()

    # What is here.

    @property
    def value(self) -> bytes | None:
        """The wallet as it is here; None: there is none yet."""
        return self._core.state.value

    @property
    def sequence(self) -> int:
        """The newest state of the server that is merged into the value; 0: none."""
        return self._core.sequence

    @property
    def unsynced(self) -> bool:
        """Whether the value has changes that the server has not acknowledged."""
        return self._core.unsynced

    @property
    def device_id(self) -> str:
        """This device's id, made with the folder."""
        return self._core.state.device_id

    @property
    def local_key(self) -> bytes:
        """The key of what is on disk: opens the folder with no root password. Keep it secret."""
        return self._opened_store().local_key

    def events(self) -> AsyncIterator[WalletEvent]:
        """What happens from now on, after the status as it is, until the wallet is closed.

        Each call makes a reader of its own. One that is more than 1,000 events behind loses the
        oldest.
        """
        reader = _Reader()
        self._readers.add(reader)
        reader.put(StatusChanged(self.status))
        return reader

    # What to do.

    async def change(self, value: bytes | Callable[[bytes | None], bytes]) -> None:
        """The wallet is another from now on: ``value``, or what it makes of the present one.

        Returns once that is on this device's disk; OSError when it can't be, and nothing is
        changed. It goes out by itself.
        """
        before = self.value
        after = value(before) if callable(value) else value
        self._core.change(after)
        self._debounce.note_change(time.monotonic())
        try:
            await self._save()
        except OSError:
            if self.value == after:
                self._core.state.value = before
            raise
        self._tell()
        self._has_work.set()

    async def sync(self, timeout_s: float | None = None) -> None:
        """Returns once the server has what is here, and its latest is merged into it.

        Raises what the sync has stopped with, what a push was refused with (WalletTooLarge, ...),
        and TimeoutError.
        """
        self._debounce.end()
        self._has_work.set()
        self._has_reason_to_connect.set()
        await self._wait_until(
            lambda: self._is_online() and not self._asks_latest and self._core.settled, timeout_s
        )
        if self.unsynced:
            assert self._refusal is not None, "what is settled and not synced was refused"
            raise self._refusal

    async def pull(self, timeout_s: float | None = None) -> None:
        """Like `sync`, but asks the server for its latest first."""
        self._asks_latest = True
        await self.sync(timeout_s)

    async def change_password(self, new_root_password: str) -> None:
        """Changes the account's root password; every other device has to be told the new one.

        Interrupted anywhere, it is finished when the wallet is open the next time, and until then
        the folder opens with either password. Raises what the server refused it with.
        """
        await self.sync()
        keys = self._core.state.keys
        assert keys is not None, "what is in sync has logged in"
        seed = account.new_salt_seed()
        new = await asyncio.to_thread(
            crypto.derive_keys, self.email, new_root_password, seed, keys.kdf
        )
        async with self._saving:
            await _finish_in_thread(self._opened_store().add_password, new_root_password)
        self._refusal = None
        self._core.begin_password_change(new, seed)
        await self._save()
        self._has_work.set()
        await self._wait_until(lambda: self._core.state.password_change is None, None)
        await self._save()
        if self._refusal is not None:
            raise self._refusal

    async def devices(self) -> tuple[Device, ...]:
        """The account's devices; without a connection as they were last seen, none online."""
        if self._is_online():
            with contextlib.suppress(SessionEnded, *_PASSING):
                devices = (await self._call(ListDevices())).devices
                self._devices = {device.device_id: device for device in devices}
                return devices
        return tuple(replace(device, online=False) for device in self._devices.values())

    async def history(self, limit: int = HISTORY_LIMIT_DEFAULT) -> tuple[WalletVersion, ...]:
        """The versions that the server keeps, newest first."""
        return (await self._call(GetHistory(limit))).versions

    async def load_version(self, sequence: int) -> bytes:
        """The wallet as it was; NoSuchVersion when it is not kept any more."""
        return self._core.open_version(await self._call(GetWallet(sequence)))

    async def revoke_device(self, device_id: str) -> None:
        """Ends another device's token; it can log in again while it has the root password."""
        await self._call(RevokeDevice(device_id))

    async def ping(self) -> float:
        """Seconds of a round trip to the server and back."""
        await self._call(Ping())
        assert self.round_trip_s is not None, "a call was answered"
        return self.round_trip_s

    async def logout(self) -> None:
        """Ends this device's token, and the sync; the wallet stays here."""
        await self._call(Logout())
        await self._wait_for_stop()

    async def delete_account(self) -> None:
        """Deletes the account, its wallet and its history on the server; what is here stays."""
        keys = self._core.state.keys
        if keys is None:
            raise NotAuthenticated("this device has never logged in")
        await self._call(DeleteAccount(keys.password))
        await self._wait_for_stop()

    async def recover(self) -> None:
        """Goes on after a stop.

        After StateRefused what the server has now is believed, as at a first contact, and merged
        with no base: a decision for the user, for the server had gone back in time, or lied.
        """
        if self.stopped is None:
            return
        if isinstance(self.stopped, StateRefused):
            self._core.believe()
            await self._save()
        self.stopped = None
        self._has_reason_to_connect.set()

    # The sync, in the background.

    async def _run(self) -> None:
        reconnection = Reconnection(random.random)
        while True:
            wait_s: float | None = 0.0
            try:
                await self._hold_session(reconnection)
            except _PASSING as error:
                if isinstance(error, ServiceUnavailable | TooManyRequests):
                    reconnection.note_retry_after(error.retry_after_ms, time.monotonic())
                wait_s = reconnection.after_failed_opening(time.monotonic()).after_s
                self._set_status(Status.OFFLINE, str(error), wait_s)
            except SessionEnded as ended:
                if not self._may_log_in_again(ended):
                    self._stop(ended)
            except Exception as error:  # whatever it is, whoever waits is told
                self._stop(error)
            if self.stopped is not None:
                wait_s = None
            self._has_reason_to_connect.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._has_reason_to_connect.wait()

    async def _hold_session(self, reconnection: Reconnection) -> None:
        """One session, from its login to its end, which is what it raises."""
        self._set_status(Status.CONNECTING)
        async with self._make_session(self._core.witness) as session:
            await self._authenticate(session)
            reconnection.note_up(time.monotonic())
            self._session = session
            self._set_status(Status.SYNCING)
            tasks = [
                asyncio.create_task(self._listen(session)),
                asyncio.create_task(self._act(session)),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._session = None
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            for task in done:
                task.result()

    def _may_log_in_again(self, ended: SessionEnded) -> bool:
        """Whether a new login may follow by itself; the token is good no more."""
        state = self._core.state
        if ended.reason != "closed":
            state.token, self._core.dirty = None, True
        if ended.reason in ("password_changed", "password_reset"):
            # Unless it was this device that changed it, its keys are good no more either.
            self._keys_are_old = state.password_change is None and state.keys is self._session_keys
            return True
        return ended.reason in ("expired", "bad_token")

    def _stop(self, error: Exception) -> None:
        self.stopped = error
        self._put(Stopped(error))
        self._set_status(Status.STOPPED, str(error))

    # Logging in.

    async def _authenticate(self, session: Session) -> None:
        """Resumes, or logs in by the keys that are here or by the root password."""
        state = self._core.state
        change = state.password_change
        if change is not None and await self._try_login(session, change.keys):
            return  # What was begun has been carried out.
        if state.token is not None and state.keys is not None:
            try:
                await session.resume(state.token, state.keys)
            except BadToken:
                state.token = None
            else:
                self._begin(session, state.keys)
                return
        if state.keys is not None and not self._keys_are_old:
            if await self._try_login(session, state.keys):
                return
            if change is not None and await self._try_login(session, change.keys):
                return  # What was begun has been carried out just now.
            self._keys_are_old = True
        await self._log_in_with_password(session)

    async def _try_login(self, session: Session, keys: Keys) -> bool:
        try:
            await session.login(keys, device_id=self.device_id, device_name=self._device_name)
        except BadCredentials:
            return False
        await self._take_up(session, keys)
        return True

    async def _take_up(self, session: Session, keys: Keys) -> None:
        """Go on with the keys that a login has succeeded with."""
        change = self._core.state.password_change
        if change is not None and keys == change.keys:
            self._finish_password_change(answered=False)
        elif change is not None and keys != self._core.state.keys:
            self._core.lose_password_change()
            self._refusal = BadCredentials("another device changed the password first")
        self._begin(session, keys)
        await self._save()

    async def _log_in_with_password(self, session: Session) -> None:
        """By the root password that was given, or else by what is asked for."""
        state = self._core.state
        for _ in range(PASSWORD_ATTEMPTS_MAX):
            # Kept until the server has said whether it is right: this may be cut short.
            if self._root_password is None:
                self._root_password = await self._ask(PasswordNeeded("changed_elsewhere"))
            root_password = self._root_password
            if root_password is None:
                break
            try:
                keys = await account.log_in(
                    session,
                    self.email,
                    root_password,
                    device_id=self.device_id,
                    device_name=self._device_name,
                    minimum_kdf=self._minimum_kdf,
                    last_used=None if state.keys is None else state.keys.kdf,
                )
            except BadCredentials:
                self._root_password = None
            else:
                await self._take_up(session, keys)
                self._root_password = None
                store = self._opened_store()
                self._tidy_passwords = functools.partial(store.keep_only_password, root_password)
                self._core.dirty, self._keys_are_old = True, False
                await self._save()
                return
        raise BadCredentials("the root password of the account is another")

    async def _ask(self, needed: PasswordNeeded) -> str | None:
        self._put(needed)
        return None if self._ask_password is None else await self._ask_password(needed)

    def _begin(self, session: Session, keys: Keys) -> None:
        self._core.set_keys(keys)
        self._session_keys = keys
        self._core.see_opened(session.token)
        self._tell()

    # In a session.

    async def _listen(self, session: Session) -> None:
        async for event in session.notifications():
            match event:
                case WalletUpdated():
                    if event.wallet is not None:
                        self._core.accept(event.wallet)
                case Device():
                    self._devices[event.device_id] = event
                    self._put(DeviceUpdated(event))
                case Offline():
                    self._set_status(Status.OFFLINE, event.cause, event.retry_s)
                case Online():
                    self._core.see_opened(session.token)
                    self._set_status(Status.SYNCING)
            self._tell()
            self._has_work.set()

    async def _act(self, session: Session) -> None:
        """Does what the core says, one action after the other; nothing while it is offline."""
        while True:
            self._has_work.clear()
            wait_s = self._debounce.wait_s(time.monotonic())
            action = self._next_action(may_push=wait_s == 0) if self._is_online() else None
            if self._is_unsaved():
                # What comes in while it is written may call for something else.
                await self._save()
                continue
            if action is not None:
                if not isinstance(action, SendAck):
                    self._set_status(Status.SYNCING)
                await self._try_action(session, action)
                self._tell()
                continue
            if self._is_online() and self._core.settled:
                self._debounce.end()
                self._set_status(Status.SYNCED)
            self._notify()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s or None):
                    await self._has_work.wait()

    def _next_action(self, *, may_push: bool) -> Action | None:
        return SendGet() if self._asks_latest else self._core.next_action(may_push=may_push)

    async def _try_action(self, session: Session, action: Action) -> None:
        """Carries it out; what can't be now is left for later."""
        try:
            await self._carry_out(session, action)
        except (ServiceUnavailable, TooManyRequests) as error:
            await asyncio.sleep(error.retry_after_ms / 1000 * (1 + random.random()))  # noqa: S311  # spreads those who were refused together
        except (InternalError, Unauthorized, WalletExists):
            # Whose token has ended is about to be told why: that ends this session.
            await asyncio.sleep(RETRY_S)
        except AnswerLost:
            pass  # The session comes back, or ends, by itself.
        except CallTimedOut:
            if self._is_online():
                raise  # What does not answer any more is left for a new connection.

    async def _carry_out(self, session: Session, action: Action) -> None:
        match action:
            case RunMerge():
                merged = self._merge(action.base, action.mine, action.theirs)
                if inspect.isawaitable(merged):
                    merged = await merged
                self._core.take_merged(action, merged)
            case SendGet():
                with contextlib.suppress(NoWallet):
                    self._core.accept(await self._ask_server(session, GetWallet()))
                self._asks_latest = False
            case SendPush(sealed=sealed):
                version = sealed.version
                push = PushWallet(
                    version.sequence, sealed.encrypted_wallet, version.hmac, receipt=True
                )
                try:
                    answer = await self._ask_server(session, push)
                except (RpcError, MessageTooLarge) as error:
                    self._core.take_push_answer(action, error)
                    _raise_if_passing(error)
                else:
                    self._core.take_push_answer(action, answer)
            case SendPasswordChange():
                await self._send_password_change(session, action)
            case SendAck():
                with contextlib.suppress(NoSuchVersion):
                    await self._ask_server(session, Acknowledge(action.sequence))
                self._core.note_acknowledged(action.sequence)

    async def _send_password_change(self, session: Session, sent: SendPasswordChange) -> None:
        change, keys = sent.change, self._core.state.keys
        assert keys is not None, "a session has keys"
        wallet = None
        if change.sealed is not None:
            version = change.sealed.version
            wallet = SealedWallet(version.sequence, change.sealed.encrypted_wallet, version.hmac)
        try:
            await self._ask_server(
                session,
                ChangePassword(
                    keys.password,
                    change.keys.password,
                    change.client_salt_seed,
                    change.keys.kdf,
                    wallet,
                ),
            )
        except (RpcError, MessageTooLarge) as error:
            if self._core.take_password_error(error):
                _raise_if_passing(error)
            else:
                self._refusal = error
                self._tidy_passwords = self._opened_store().drop_newest_password
        else:
            self._finish_password_change(answered=True)

    def _finish_password_change(self, *, answered: bool) -> None:
        self._core.finish_password_change(answered=answered)
        self._tidy_passwords = self._opened_store().keep_newest_password

    # What the above have in common.

    async def _call(self, call: Call[R]) -> R:
        """The answer of the server; waits for a connection as long as for an answer."""
        try:
            await self._wait_until(self._is_online, CALL_TIMEOUT_S)
        except TimeoutError:
            raise CallTimedOut(METHOD_OF[type(call)].name, CALL_TIMEOUT_S) from None
        assert self._session is not None, "online is with a session"
        return await self._ask_server(self._session, call)

    async def _ask_server(self, session: Session, call: Call[R]) -> R:
        sent_s = time.monotonic()
        answer = await session.call(call)
        self.round_trip_s = time.monotonic() - sent_s
        return answer

    def _is_online(self) -> bool:
        return self._session is not None and self.status in (Status.SYNCING, Status.SYNCED)

    async def _wait_until(self, holds: Callable[[], bool], timeout_s: float | None) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                if self.stopped is not None:
                    raise self.stopped
                if self._store is None:
                    raise SessionEnded("closed")
                await self._wait_for_news()

    async def _wait_for_stop(self) -> None:
        while self.stopped is None and self._store is not None:
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self) -> None:
        """Tells what the core has to tell."""
        events, self._core.events = self._core.events, []
        for event in events:
            if isinstance(event, PushRefused):
                self._refusal = event.error
            self._put(event)
        self._notify()

    def _put(self, event: WalletEvent) -> None:
        for reader in self._readers:
            reader.put(event)

    def _set_status(
        self, status: Status, cause: str | None = None, retry_s: float | None = None
    ) -> None:
        if status is not self.status or status is Status.OFFLINE:
            self.status = status
            self._put(StatusChanged(status, cause, retry_s))
            self._notify()

    # The folder.

    async def _open_folder(self) -> tuple[LocalStore, str | None]:
        """The store, and the root password that opened it."""
        root_password = self._root_password
        for attempts_left in reversed(range(PASSWORD_ATTEMPTS_MAX)):
            try:
                store = await _finish_in_thread(
                    functools.partial(
                        LocalStore.open,
                        self.folder,
                        root_password=root_password,
                        local_key=self._local_key,
                        kdf=self._minimum_kdf,
                    )
                )
                return store, root_password
            except WrongPassword:
                if not attempts_left:
                    raise
                asked = await self._ask(PasswordNeeded("sealed_before"))
                if asked is None:
                    raise
                root_password = asked
        raise AssertionError("the last attempt returns or raises")

    def _decode_state(self, payload: bytes) -> LocalState:
        try:
            state = decode_state(payload)
        except ValueError as error:
            text = f"holds what this version can't read: {error}"
            raise LocalStateDamaged(self.folder, text, "update this software") from None
        if state.keys is not None and state.keys.email != lower_email(self.email):
            raise ValueError(f"{self.folder} is the wallet of another account")
        return state

    def _opened_store(self) -> LocalStore:
        if self._store is None:
            raise SessionEnded("closed")
        return self._store

    def _is_unsaved(self) -> bool:
        return self._core.dirty or self._tidy_passwords is not None or self._saving.locked()

    async def _save(self) -> None:
        """Writes what has changed, durably; OSError when it can't be."""
        async with self._saving:
            store = self._opened_store()
            if self._tidy_passwords is not None:
                # First: while the state speaks of a change, the next start finds out how it ended.
                await _finish_in_thread(self._tidy_passwords)
                self._tidy_passwords = None
            if self._core.dirty:
                self._core.dirty = False
                payload = encode_state(self._core.state)
                try:
                    await _finish_in_thread(store.save, payload)
                except BaseException:
                    self._core.dirty = True
                    raise


class _Debounce:
    """When a wallet that changes may be pushed: after a pause, or when it makes none."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._first_change_s: float | None = None
        self._push_at_s = 0.0

    def note_change(self, now_s: float) -> None:
        """The wallet has just changed."""
        if self._first_change_s is None:
            self._first_change_s = now_s
        latest_s = self._first_change_s + DEBOUNCES_MAX * self._pause_s
        self._push_at_s = min(now_s + self._pause_s, latest_s)

    def wait_s(self, now_s: float) -> float:
        """How long a push is to be put off."""
        return max(0.0, self._push_at_s - now_s)

    def end(self) -> None:
        """What has changed may be pushed now."""
        self._first_change_s, self._push_at_s = None, 0.0


class _Reader(AsyncIterator[WalletEvent]):
    """One reader's events, the newest `EVENTS_MAX` of them."""

    def __init__(self) -> None:
        self._events: deque[WalletEvent] = deque(maxlen=EVENTS_MAX)
        self._has_event = asyncio.Event()
        self._ended = False

    def put(self, event: WalletEvent) -> None:
        self._events.append(event)
        self._has_event.set()

    def end(self) -> None:
        self._ended = True
        self._has_event.set()

    async def __anext__(self) -> WalletEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._has_event.clear()
            await self._has_event.wait()
        return self._events.popleft()


async def _finish_in_thread(function: Callable[..., R], *arguments: Any) -> R:
    """What the function gives, from a thread; cancelled, it is waited for all the same."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _raise_if_passing(error: WalletSyncError) -> None:
    if isinstance(error, (*_PASSING, Unauthorized, WalletExists)):
        raise error
