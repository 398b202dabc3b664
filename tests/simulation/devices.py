"""A device: its disk, and the app that runs on it while somebody uses it.

The app is the real `SyncCore` in a shell that does what `wsclient.wallet.SyncedWallet` does, in the
same order: its tasks are generators that yield what they wait for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial
from random import Random
from typing import Any, Protocol, TypeVar

from tests.simulation import marks
from tests.simulation.audit import Audit, Violation
from tests.simulation.sessions import Done, Session
from tests.simulation.timeline import Timeline
from wsclient.crypto import Keys
from wsclient.errors import (
    AnswerLost,
    BadCredentials,
    BadToken,
    CallTimedOut,
    CannotConnect,
    NoSuchVersion,
    NoWallet,
    RpcError,
    ServiceUnavailable,
    SessionEnded,
    StateRefused,
    TooManyDevices,
    TooManyRequests,
    Unauthorized,
    WalletExists,
    WalletSyncError,
)
from wsclient.events import Offline, Online
from wsclient.local_state import LocalState, decode_state, encode_state
from wsclient.reconnection import Reconnection
from wsclient.sync import (
    Action,
    RunMerge,
    SendAck,
    SendGet,
    SendPasswordChange,
    SendPush,
    SyncCore,
)
from wsschema.messages import (
    Acknowledge,
    Call,
    ChangePassword,
    GetWallet,
    Kdf,
    KeyDerivation,
    Prelogin,
    PushWallet,
    SealedWallet,
    WalletUpdated,
)

R = TypeVar("R")

DERIVE_MS = 300.0
"""What keys take to be derived at most."""
TRAP_MS = 100.0
RETRY_MS = 1000.0
PASSWORD_ATTEMPTS_MAX = 3

_PASSING = (CannotConnect, AnswerLost, CallTimedOut, ServiceUnavailable, TooManyRequests)

Wait = Callable[[Done], None]
"""Begins something, and has it call back."""
Task = Generator[Wait, Any, R]


class Surroundings(Protocol):
    """What an app has around it."""

    timeline: Timeline
    audit: Audit
    email: str

    def connect(self, device: Device, session: Session) -> None:
        """Connect the session to a node, or tell it that there is none."""

    def derive_keys(self, root_password: str, client_salt_seed: str, kdf: Kdf) -> Keys: ...

    def make_password(self) -> tuple[str, str]:
        """A new root password, and a seed for it."""

    def tell_password(self) -> str:
        """The root password, as the user knows it."""


class Device:
    """What stays when the app ends."""

    alive = True

    def __init__(
        self,
        around: Surroundings,
        name: str,
        random: Random,
        *,
        deliver: str,
        presence: bool,
        receipt: bool,
        debounce_ms: float,
        merge_ms: float,
        save_ms: float,
    ) -> None:
        self.around = around
        self.name = name
        self.random = random
        self.deliver, self.presence, self.receipt = deliver, presence, receipt
        self.debounce_ms, self.merge_ms, self.save_ms = debounce_ms, merge_ms, save_ms
        self.disk: bytes | None = None
        self.made: set[bytes] = set()
        """The marks that were made here and are on disk, or were pushed."""
        self.app: App | None = None
        self.trap: Callable[[], None] | None = None
        """What is to happen, once, just after it has sent a push or a password change."""
        self.trap_waits_for_change = False
        """Whether a password change is meant, and no push."""
        self.node = 0
        """Which node it connects to, as long as that works."""
        self._marks = 0

    def start(self) -> None:
        """Open the app, unless it is."""
        if self.app is None:
            self.app = App(self)
            self.app.start()

    def stop(self) -> None:
        """End the app, wherever it is: what is not on disk is gone."""
        app, self.app = self.app, None
        if app is not None:
            app.end()

    def lose_disk(self) -> None:
        """The device is gone, and replaced by a new one."""
        self.stop()
        self.disk = None
        self.made = set()
        self.name += "'"

    def next_mark(self) -> bytes:
        self._marks += 1
        return f"{self.name}.{self._marks}".encode()


class App:
    """One run of the app: a wallet in sync."""

    def __init__(self, device: Device) -> None:
        around = device.around
        self.alive = True
        self.device = device
        self.around = around
        self.timeline = around.timeline
        self.audit = around.audit
        self.random = device.random
        self.stopped: WalletSyncError | None = None
        self.session: Session | None = None
        self.online = False
        state = LocalState(device.name) if device.disk is None else decode_state(device.disk)
        self.core = SyncCore(state)
        self._keys_are_old = False
        self._session_keys: Keys | None = None
        self._wants_password = False
        self._push_at_ms = 0.0
        # Saving.
        self._is_saving = False
        self._savers: list[Done] = []
        # The task, what it waits for, and what wakes it.
        self._task = self._run()
        self._wait_number = 0
        self._wake: Done | None = None
        self._has_work = False
        self._listens = False
        self._entered: Done | None = None

    def start(self) -> None:
        self._step(None)

    def end(self) -> None:
        """The process is gone."""
        self.alive = False
        self._task.close()
        if self.session is not None:
            self.session.close()

    # The task: it goes on when what it waits for has come.

    def _step(self, outcome: Any) -> None:
        self._wait_number += 1
        try:
            if isinstance(outcome, Exception):
                wait = self._task.throw(outcome)
            else:
                wait = self._task.send(outcome)
        except StopIteration:
            return
        except StateRefused as refused:
            raise Violation("refused", str(refused)) from refused
        wait(partial(self._go_on, self._wait_number))

    def _go_on(self, number: int, outcome: Any) -> None:
        if number == self._wait_number:  # or it has been told something else meanwhile
            self._step(outcome)

    def _pause(self, delay_ms: float) -> Task[None]:
        yield lambda done: self.timeline.after(delay_ms, self, done, None)

    def _wait_for_work(self, wait_ms: float) -> Task[None]:
        def begin(done: Done) -> None:
            self._wake = done
            if wait_ms:
                self.timeline.after(wait_ms, self, done, None)

        if not self._has_work:
            yield begin
        self._wake = None

    def wake(self) -> None:
        """There may be something to do."""
        self._has_work = True
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake(None)

    def _ask(self, session: Session, call: Call[R]) -> Task[R]:
        answer: R = yield partial(session.call, call)
        return answer

    # What the user does.

    def change(self) -> None:
        """Make a mark; it counts once it is on disk."""
        mark = self.device.next_mark()
        self.core.change(marks.add(self.core.state.value, mark))
        self._push_at_ms = self.timeline.now_ms + self.device.debounce_ms
        self._save_for(lambda _: self.device.made.add(mark))
        self.wake()

    def change_password(self) -> None:
        """Change the root password, once all is in sync."""
        self._wants_password = True
        self.wake()

    def call(self, call: Call[Any]) -> None:
        """Call, if there is a session, and look at nothing but whether the answer may be."""
        if self.online and self.session is not None:
            self.session.call(call, lambda outcome: None)

    # The disk.

    def _save(self) -> Task[None]:
        if self.core.dirty or self._is_saving:
            yield self._save_for

    def _save_first(self) -> Task[bool]:
        """Save what has changed; whether there was anything."""
        unsaved = self.core.dirty or self._is_saving
        yield from self._save()
        return unsaved

    def _save_for(self, done: Done) -> None:
        self._savers.append(done)
        if not self._is_saving:
            self._write()

    def _write(self) -> None:
        self._is_saving = True
        self.core.dirty = False
        payload = encode_state(self.core.state)
        savers, self._savers = self._savers, []
        delay_ms = self.device.save_ms * self.random.random()
        self.timeline.after(delay_ms, self, self._written, payload, savers)

    def _written(self, payload: bytes, savers: list[Done]) -> None:
        self.device.disk = payload
        self._is_saving = False
        if self._savers:
            self._write()
        for done in savers:
            done(None)

    # The sync.

    def _run(self) -> Task[None]:
        self.core.dirty = self.device.disk is None
        yield from self._save()
        reconnection = Reconnection(self.random.random)
        while self.stopped is None:
            wait_ms = 0.0
            try:
                yield from self._hold_session(reconnection)
            except _PASSING as error:
                now_s = self.timeline.now_s
                if isinstance(error, ServiceUnavailable | TooManyRequests):
                    reconnection.note_retry_after(error.retry_after_ms, now_s)
                wait_ms = reconnection.after_failed_opening(now_s).after_s * 1000
            except SessionEnded as ended:
                if not self._may_log_in_again(ended):
                    self.stopped = ended
            except (BadCredentials, TooManyDevices) as error:
                self.stopped = error
            yield from self._pause(wait_ms)

    def _hold_session(self, reconnection: Reconnection) -> Task[None]:
        session = self.session = Session(
            self,
            self.core.witness,
            timeline=self.timeline,
            audit=self.audit,
            random=self.random,
            connect=partial(self.around.connect, self.device),
            deliver=self.device.deliver,
            presence=self.device.presence,
        )
        try:
            yield self._enter
            yield from self._authenticate(session)
            reconnection.note_up(self.timeline.now_s)
            self.online = self._listens = True
            self._hear()
            yield from self._act(session)
        finally:
            self.online = self._listens = False
            self.session = None
            session.close()

    def _enter(self, done: Done) -> None:
        assert self.session is not None, "what is entered was made"
        self._entered = done
        self.session.start()

    def entered(self, error: WalletSyncError | None) -> None:
        assert self._entered is not None, "it was asked for"
        self._entered(error)

    def ended(self, session: Session, error: SessionEnded) -> None:
        if session is self.session:
            self._step(error)

    def _may_log_in_again(self, ended: SessionEnded) -> bool:
        state = self.core.state
        state.token, self.core.dirty = None, True
        if ended.reason in ("password_changed", "password_reset"):
            self._keys_are_old = state.password_change is None and state.keys is self._session_keys
            return True
        return ended.reason in ("expired", "bad_token")

    # Logging in.

    def _authenticate(self, session: Session) -> Task[None]:
        state = self.core.state
        change = state.password_change
        if change is not None and (yield from self._try_login(session, change.keys)):
            return
        if state.token is not None and state.keys is not None:
            session.witness.hmac_key = state.keys.hmac_key
            try:
                yield partial(session.resume, state.token)
            except BadToken:
                state.token = None
            else:
                self._begin(session, state.keys)
                return
        if state.keys is not None and not self._keys_are_old:
            if (yield from self._try_login(session, state.keys)):
                return
            if change is not None and (yield from self._try_login(session, change.keys)):
                return
            self._keys_are_old = True
        yield from self._log_in_with_password(session)

    def _try_login(self, session: Session, keys: Keys) -> Task[bool]:
        session.witness.hmac_key = keys.hmac_key
        try:
            yield partial(session.log_in, keys.email, keys.password, self.core.state.device_id)
        except BadCredentials:
            return False
        change = self.core.state.password_change
        if change is not None and keys == change.keys:
            self.core.finish_password_change(answered=False)
        elif change is not None and keys != self.core.state.keys:
            self.core.lose_password_change()
        self._begin(session, keys)
        yield from self._save()
        return True

    def _log_in_with_password(self, session: Session) -> Task[None]:
        for _ in range(PASSWORD_ATTEMPTS_MAX):
            root_password = self.around.tell_password()
            call = Prelogin(self.around.email)
            derivation: KeyDerivation = yield from self._ask(session, call)
            yield from self._pause(DERIVE_MS * self.random.random())
            keys = self.around.derive_keys(
                root_password, derivation.client_salt_seed, derivation.kdf
            )
            if (yield from self._try_login(session, keys)):
                self.core.dirty, self._keys_are_old = True, False
                yield from self._save()
                return
        raise BadCredentials

    def _begin(self, session: Session, keys: Keys) -> None:
        self.core.set_keys(keys)
        self._session_keys = keys
        self.core.see_opened(session.token)

    # In a session.

    def has_pushed(self, call: Call[Any]) -> None:
        if self.device.trap_waits_for_change and isinstance(call, PushWallet):
            return
        trap, self.device.trap = self.device.trap, None
        if trap is not None:
            self.timeline.after(TRAP_MS * self.random.random() ** 2, self.device, trap)

    def has_event(self) -> None:
        if self._listens:
            self._hear()

    def _hear(self) -> None:
        assert self.session is not None, "it is listened to"
        while (event := self.session.events.take()) is not None:
            try:
                match event:
                    case WalletUpdated(wallet=wallet) if wallet is not None:
                        self.core.accept(wallet)
                    case Offline():
                        self.online = False
                    case Online():
                        self.core.see_opened(self.session.token)
                        self.online = True
            except StateRefused as refused:
                raise Violation("refused", str(refused)) from refused
            self.wake()

    def _act(self, session: Session) -> Task[None]:
        core = self.core
        while True:
            self._has_work = False
            wait_ms = max(0.0, self._push_at_ms - self.timeline.now_ms)
            action = core.next_action(may_push=not wait_ms) if self.online else None
            if (yield from self._save_first()):
                continue  # More may have come in.
            if action is not None:
                yield from self._try_action(session, action)
                core.events.clear()
                continue
            if self.online and core.settled and self._wants_password:
                self._wants_password = False
                self._begin_password_change()
            yield from self._wait_for_work(wait_ms)

    def _begin_password_change(self) -> None:
        keys = self.core.state.keys
        assert keys is not None, "what is in sync has logged in"
        root_password, seed = self.around.make_password()
        new = self.around.derive_keys(root_password, seed, keys.kdf)

        def begin() -> None:
            if self.core.state.password_change is None:
                self.core.begin_password_change(new, seed)
                self.wake()

        self.timeline.after(DERIVE_MS * self.random.random(), self, begin)

    def _try_action(self, session: Session, action: Action) -> Task[None]:
        try:
            yield from self._carry_out(session, action)
        except (ServiceUnavailable, TooManyRequests) as error:
            yield from self._pause(error.retry_after_ms * (1 + self.random.random()))
        except (Unauthorized, WalletExists):
            yield from self._pause(RETRY_MS)
        except AnswerLost:
            pass
        except CallTimedOut:
            if self.online:
                raise

    def _carry_out(self, session: Session, action: Action) -> Task[None]:
        core = self.core
        match action:
            case RunMerge():
                merge = marks.merge_sets if self.audit.was_restored else marks.merge
                merged = merge(action.base, action.mine, action.theirs)
                if self.device.merge_ms:
                    yield from self._pause(self.device.merge_ms * self.random.random())
                core.take_merged(action, merged)
            case SendGet():
                with contextlib.suppress(NoWallet):
                    core.accept((yield from self._ask(session, GetWallet())))
            case SendPush(sealed=sealed):
                version = sealed.version
                self.audit.note_made(version.hmac, version.wallet)
                push = PushWallet(
                    version.sequence, sealed.encrypted_wallet, version.hmac, self.device.receipt
                )
                try:
                    answer = yield from self._ask(session, push)
                except RpcError as error:
                    core.take_push_answer(action, error)
                    _raise_if_passing(error)
                else:
                    core.take_push_answer(action, answer)
            case SendPasswordChange():
                yield from self._send_password_change(session, action)
            case SendAck():
                with contextlib.suppress(NoSuchVersion):
                    yield from self._ask(session, Acknowledge(action.sequence))
                core.note_acknowledged(action.sequence)

    def _send_password_change(self, session: Session, sent: SendPasswordChange) -> Task[None]:
        change, keys = sent.change, self.core.state.keys
        assert keys is not None, "a session has keys"
        wallet = None
        if change.sealed is not None:
            version = change.sealed.version
            self.audit.note_made(version.hmac, version.wallet)
            wallet = SealedWallet(version.sequence, change.sealed.encrypted_wallet, version.hmac)
        call = ChangePassword(
            keys.password, change.keys.password, change.client_salt_seed, change.keys.kdf, wallet
        )
        try:
            yield from self._ask(session, call)
        except RpcError as error:
            if self.core.take_password_error(error):
                _raise_if_passing(error)
        else:
            self.core.finish_password_change(answered=True)


def _raise_if_passing(error: WalletSyncError) -> None:
    if isinstance(error, ServiceUnavailable | TooManyRequests | Unauthorized | WalletExists):
        raise error
