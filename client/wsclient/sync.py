"""The sync engine, pure: what came in goes in, `SyncCore.next_action` says what to do next.

One action is under way at a time. Whatever changed the state (`SyncCore.dirty`) is written to disk
before an action is carried out: a push that was sent is known again after a crash, and only what is
on disk is acknowledged.

Each state that comes in has passed `wsclient.witness`. Here it is opened, and its lineage is held
against what this device knows (``docs/protocol.md``, "Key derivation and sealing"): a server that
let one device overwrite another, or that shows two devices two histories, is found out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wsclient import crypto
from wsclient.crypto import LINEAGE_DEVICES_MAX, Contents, Keys
from wsclient.errors import (
    Conflict,
    InternalError,
    MessageTooLarge,
    RpcError,
    ServiceUnavailable,
    StateRefused,
    TooManyRequests,
    Unauthorized,
    WalletExists,
    WalletSyncError,
)
from wsclient.local_state import LocalState, PasswordChange, Sealed, Version
from wsclient.wallet_events import (
    ConflictMerged,
    Pushed,
    PushRefused,
    Restored,
    ValueChanged,
    WalletEvent,
)
from wsclient.witness import Witness
from wsschema.messages import Receipt, WalletState


@dataclass(frozen=True, slots=True)
class RunMerge:
    """Merge, and hand the outcome to `SyncCore.take_merged`."""

    base: bytes | None = field(repr=False)
    mine: bytes = field(repr=False)
    theirs: bytes = field(repr=False)
    incoming: Version


@dataclass(frozen=True, slots=True)
class SendGet:
    """Ask for the latest state, and hand it to `SyncCore.accept`."""


@dataclass(frozen=True, slots=True)
class SendPush:
    """Push this state, and hand what is answered to `SyncCore.take_push_answer`."""

    sealed: Sealed


@dataclass(frozen=True, slots=True)
class SendPasswordChange:
    """Change the password, then `SyncCore. `finish_password_change` or `take_password_error`."""

    change: PasswordChange


@dataclass(frozen=True, slots=True)
class SendAck:
    """Tell that this device has applied the state, then `SyncCore.note_acknowledged`."""

    sequence: int


Action = RunMerge | SendGet | SendPush | SendPasswordChange | SendAck


class SyncCore:
    """One device's wallet: what is kept of it, what came in, and what is to be done.

    A method that raises StateRefused has changed nothing.
    """

    def __init__(self, state: LocalState) -> None:
        self.state = state
        self.witness = Witness(epoch=state.epoch, sequence=state.sequence, hmac=state.hmac)
        """What the sessions of this device report to."""
        if state.keys is not None:
            self.witness.hmac_key = state.keys.hmac_key
        self.dirty = False
        """Whether the state has changed since it was last written."""
        self.events: list[WalletEvent] = []
        """What is to be told, the oldest first; the shell empties it."""
        self._incoming: Version | None = None
        """A state that waits to be merged."""
        self._pushed_is_void = False
        """Whether what is on its way was sealed under keys that are the account's no more."""
        self._pushed_before = False
        """Whether what is on its way was made before this session, in which it may have landed."""
        self._acknowledged = 0
        self._refused: bytes | None = None
        """A value that the server does not take."""

    @property
    def sequence(self) -> int:
        """The newest state that is merged into the value; 0: none."""
        return 0 if self.state.base is None else self.state.base.sequence

    @property
    def unsynced(self) -> bool:
        """Whether the value has something that the server has not acknowledged."""
        value, base = self.state.value, self.state.base
        return value is not None and (base is None or value != base.wallet)

    @property
    def settled(self) -> bool:
        """Whether both sides have the same, as far as is known, or can't have it."""
        return (
            self._incoming is None
            and self.state.pushed is None
            and self.state.password_change is None
            and self.witness.sequence <= self.sequence
            and (not self.unsynced or self.state.value == self._refused)
        )

    def next_action(self, *, may_push: bool = True) -> Action | None:
        """What to do next with a session that is logged in; None: nothing.

        ``may_push``: False puts new pushes off, to gather what changes in a moment.
        """
        state = self.state
        if self._incoming is not None:
            assert state.value is not None, "where there is nothing to merge, none is needed"
            base = None if state.base is None else state.base.wallet
            return RunMerge(base, state.value, self._incoming.wallet, self._incoming)
        self._read_witness()
        if state.pushed is not None and not self._pushed_is_void:
            return SendPush(state.pushed)
        if state.sequence > self.sequence:
            return SendGet()
        if state.password_change is not None:
            return SendPasswordChange(self._reseal(state.password_change))
        if may_push and self.unsynced and state.value != self._refused:
            assert state.value is not None, "what is unsynced is there"
            assert state.keys is not None, "a session has keys"
            state.pushed = self._seal(state.value, state.keys)
            self.dirty = True
            return SendPush(state.pushed)
        if self._acknowledged < self.sequence:
            return SendAck(self.sequence)
        return None

    # What the application does.

    def change(self, value: bytes) -> None:
        """The wallet is another from now on."""
        if value == self.state.value:
            return
        self.state.value = value
        self.dirty = True
        self._tell_value(self.state.device_id)

    def begin_password_change(self, keys: Keys, client_salt_seed: str) -> None:
        """From now on `next_action` changes the password, until it is done or refused."""
        self.state.password_change = PasswordChange(keys, client_salt_seed)
        self.dirty = True

    def believe(self) -> None:
        """Take what the server has from now on, as at a first contact: merged, with no base."""
        self.witness = Witness()
        if self.state.keys is not None:
            self.witness.hmac_key = self.state.keys.hmac_key
        self._read_witness()
        self._drop_base()

    # What a session tells.

    def set_keys(self, keys: Keys) -> None:
        """The account's keys, once a login with them has succeeded."""
        if keys == self.state.keys:
            return
        self.state.keys = keys
        self.witness.hmac_key = keys.hmac_key
        self.dirty = True

    def see_opened(self, token: str | None) -> None:
        """A session of this device is open, or open again: its witness knows what was answered."""
        state = self.state
        if token != state.token:
            state.token, self.dirty = token, True
        self._acknowledged = 0
        self._read_witness()
        pushed = state.pushed
        self._pushed_before = pushed is not None
        assert state.keys is not None, "a session has keys"
        if pushed is not None and not _is_under(state.keys, pushed):
            # Sealed under a password that was changed since. Whether it landed is told by the
            # lineage of what followed; where nothing did, it is made anew.
            self._pushed_is_void = True
            if state.sequence < pushed.version.sequence:
                self._settle_pushed()

    def finish_password_change(self, *, answered: bool) -> None:
        """The change was carried out.

        ``answered``: so it was answered; else a login with the keys to come has succeeded.
        """
        change = self.state.password_change
        assert change is not None, "only a change that was begun is finished"
        self.state.password_change = None
        self.set_keys(change.keys)
        # It has ended every token. One that a restore brings back is another password's.
        self.state.token = None
        sealed = change.sealed
        if sealed is not None and sealed.version.sequence > self.sequence:
            if answered:
                self._land(sealed)
            else:
                # It may have been sent before there was a wallet too: pushed again, this one lands
                # once.
                self.state.pushed = sealed
        self.dirty = True

    def drop_password_change(self) -> None:
        """The change was refused for good."""
        self.state.password_change = None
        self.dirty = True

    def lose_password_change(self) -> None:
        """A login with yet other keys has succeeded: another device has changed the password.

        What was sealed for this device's change may have landed before: the lineage tells.
        """
        change = self.state.password_change
        assert change is not None, "only a change that was begun is lost"
        self.drop_password_change()
        if change.sealed is not None:
            self.state.pushed = change.sealed

    def accept(self, latest: WalletState, *, landed: bool = False) -> None:
        """Take in a state of the server's that the witness has let pass.

        ``landed``: it is said to come from what was pushed last.

        Raises StateRefused: ``cannot_open``, ``overwritten`` (this device's own push is not among
        what it comes from), ``forked`` (it does not come from a state that was shown before).
        """
        state = self.state
        if latest.sequence <= self.sequence:
            return
        if self._incoming is not None and latest.sequence <= self._incoming.sequence:
            return
        assert state.keys is not None, "a session has keys"
        theirs = self._open(state.keys, latest)
        self._check_lineage(theirs, landed=landed)
        pushed = state.pushed
        if pushed is not None:
            if theirs.devices.get(state.device_id) == pushed.version.sequence:
                self._land(pushed)
            self._settle_pushed()
            if theirs.sequence <= self.sequence:
                return
        if state.value is None or not self.unsynced or state.value == theirs.wallet:
            self._apply(theirs, theirs.wallet)
            if latest.device_id != state.device_id:
                self._tell_value(latest.device_id)
        elif state.base is not None and state.base.wallet == theirs.wallet:
            self._apply(theirs, state.value)
        else:
            self._incoming = theirs

    def take_merged(self, merge: RunMerge, merged: bytes) -> bool:
        """Take in what `RunMerge` came to; False when a side has changed, so that it is void."""
        if merge.incoming is not self._incoming or merge.mine != self.state.value:
            return False
        self._apply(merge.incoming, merged)
        self.events.append(
            ConflictMerged(merge.base, merge.mine, merge.theirs, merged, merge.incoming.sequence)
        )
        if merged != merge.mine:
            newest = max(merge.incoming.devices.items(), key=lambda item: item[1], default=("", 0))
            self._tell_value(newest[0])
        return True

    def take_push_answer(
        self, push: SendPush, answer: WalletState | Receipt | WalletSyncError
    ) -> None:
        """Take in what a push was answered with; without an answer it is repeated as it is."""
        if self.state.pushed is not push.sealed:
            return  # Decided meanwhile, by a state that followed it.
        match answer:
            case WalletState() | Receipt():
                self._land(push.sealed)
                self._settle_pushed()
            case Conflict(wallet=WalletState() as latest):
                self.accept(latest, landed=answer.landed)
                if self.state.pushed is push.sealed:
                    self._settle_pushed()
            case ServiceUnavailable() | TooManyRequests() | Unauthorized() | InternalError():
                pass  # To be repeated to the letter.
            case RpcError() | MessageTooLarge():
                self._settle_pushed()
                self._refused = push.sealed.version.wallet
                self.events.append(PushRefused(answer))

    def take_password_error(self, error: WalletSyncError) -> bool:
        """Take in why a change was not carried out; False when it was refused for good."""
        match error:
            case Conflict(wallet=WalletState() as latest):
                self.accept(latest)
                return True
            case ServiceUnavailable() | TooManyRequests() | InternalError():
                return True  # To be tried again.
            case Unauthorized():
                # Somebody changed it first, and that may be this device, by a call of which the
                # answer was lost: the next login tells.
                return True
            case WalletExists():
                return True  # The first of all states has just come: it is about to be heard of.
        self.drop_password_change()
        return False

    def note_acknowledged(self, sequence: int) -> None:
        """The server knows that this device has applied the state."""
        self._acknowledged = max(self._acknowledged, sequence)

    def open_version(self, state: WalletState) -> bytes:
        """The wallet of a state that is kept; StateRefused."""
        assert self.state.keys is not None, "a session has keys"
        return self._open(self.state.keys, state).wallet

    # How.

    def _read_witness(self) -> None:
        """Take over what was seen; under another epoch than before, nothing is shared any more."""
        state, witness = self.state, self.witness
        seen = witness.epoch, witness.sequence, witness.hmac
        if (state.epoch, state.sequence, state.hmac) == seen:
            return
        if witness.epoch is not None and state.epoch not in (None, witness.epoch):
            self._drop_base()
            self.events.append(Restored(witness.epoch))
        state.epoch, state.sequence, state.hmac = seen
        self.dirty = True

    def _drop_base(self) -> None:
        state = self.state
        state.base = self._incoming = None
        self._settle_pushed()
        if state.password_change is not None:
            change = state.password_change
            state.password_change = PasswordChange(change.keys, change.client_salt_seed)
        self.dirty = True

    def _apply(self, theirs: Version, value: bytes) -> None:
        self.state.base, self.state.value, self._incoming = theirs, value, None
        self.dirty = True

    def _land(self, sealed: Sealed) -> None:
        """What this device made is stored, so that both sides share it."""
        self.state.base, self.dirty = sealed.version, True
        if not self._pushed_before:
            # A push acknowledges its own sequence; a repeated one changes nothing.
            self.note_acknowledged(sealed.version.sequence)
        self.events.append(Pushed(sealed.version.sequence))

    def _settle_pushed(self) -> None:
        """It is known whether what was on its way has landed."""
        self.state.pushed, self.dirty = None, True
        self._pushed_is_void = self._pushed_before = False

    def _newest_own_push(self) -> int:
        return max(
            (version.devices.get(self.state.device_id, 0) for version in self._held()), default=0
        )

    def _held(self) -> list[Version]:
        return [version for version in (self.state.base, self._incoming) if version is not None]

    def _check_lineage(self, theirs: Version, *, landed: bool) -> None:
        me, pushed = self.state.device_id, self.state.pushed
        floor = min(theirs.devices.values(), default=0)
        full = len(theirs.devices) >= LINEAGE_DEVICES_MAX
        for held in self._held():
            for device_id, known in held.devices.items():
                named = theirs.devices.get(device_id, 0)
                # A lineage that is full has dropped those that pushed longest ago.
                if named < known and not (named == 0 and full and known <= floor):
                    if device_id == me:
                        text = f"this device's push {known} is not in what it comes from"
                        raise StateRefused("overwritten", theirs.sequence, text)
                    raise _forked(theirs, f"a push {known} was shown that it does not come from")
            if theirs.sequence == held.sequence + 1 and theirs.previous != held.hmac:
                raise _forked(theirs, f"it does not replace the state {held.sequence} that was")
        if not self._held() and not landed:
            return
        own, known = theirs.devices.get(me, 0), self._newest_own_push()
        has_landed = pushed is not None and own == pushed.version.sequence
        if landed and not has_landed:
            text = "it is said to come from this device's last push, and does not"
            raise StateRefused("overwritten", theirs.sequence, text)
        if own > known and not has_landed:
            text = (
                f"it names a push {own} of this device, which made none; is a copy of its folder "
                "in use elsewhere?"
            )
            raise _forked(theirs, text)

    def _open(self, keys: Keys, state: WalletState) -> Version:
        contents = crypto.open_sealed(keys, state.sequence, state.encrypted_wallet)
        return Version(
            state.sequence,
            state.hmac,
            contents.wallet,
            contents.previous,
            dict(contents.devices),
        )

    def _seal(self, value: bytes, keys: Keys) -> Sealed:
        """The next state."""
        base = self.state.base
        sequence, previous, devices = (
            (1, None, {}) if base is None else (base.sequence + 1, base.hmac, dict(base.devices))
        )
        devices[self.state.device_id] = sequence
        while len(devices) > LINEAGE_DEVICES_MAX:
            del devices[min(devices, key=lambda device_id: devices[device_id])]
        encrypted = crypto.seal(keys, sequence, Contents(value, previous, devices))
        hmac = crypto.compute_hmac(keys.hmac_key, sequence, encrypted)
        return Sealed(Version(sequence, hmac, value, previous, devices), encrypted)

    def _reseal(self, change: PasswordChange) -> PasswordChange:
        """The change with the next state under the keys to come; the same one while it fits."""
        value, sealed = self.state.value, change.sealed
        if value is None:
            return change
        if sealed is None or sealed.version.sequence != self.sequence + 1:
            change = PasswordChange(
                change.keys, change.client_salt_seed, self._seal(value, change.keys)
            )
            self.state.password_change, self.dirty = change, True
        return change

    def _tell_value(self, device_id: str) -> None:
        assert self.state.value is not None, "what has changed is there"
        self.events.append(ValueChanged(self.state.value, self.sequence, device_id))


def _forked(theirs: Version, text: str) -> StateRefused:
    return StateRefused("forked", theirs.sequence, text)


def _is_under(keys: Keys, sealed: Sealed) -> bool:
    version = sealed.version
    hmac = crypto.compute_hmac(keys.hmac_key, version.sequence, sealed.encrypted_wallet)
    return hmac == version.hmac
