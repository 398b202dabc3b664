"""What this device has seen of a wallet, and what that rules out: rule 7 of the wallet, pure.

A server that went back in time, or shows two devices two histories, contradicts something that it
said before. So every state that comes in passes here first, and is refused before it changes
anything.
"""

from __future__ import annotations

from typing import Any

from wsclient import crypto
from wsclient.errors import StateRefused
from wsschema.errors import Conflict, NoWallet
from wsschema.messages import (
    Call,
    ChangePassword,
    Empty,
    GetWallet,
    LoggedIn,
    Login,
    PushWallet,
    Receipt,
    Resume,
    SealedWallet,
    SessionOpened,
    WalletState,
    WalletUpdated,
)


class Witness:
    """The newest state that this device knows of: its epoch, sequence (0: none) and hmac.

    Give one witness to every session of the same account and device, or a server could show the
    next session an older state. A method that raises StateRefused has changed nothing.
    """

    __slots__ = ("epoch", "hmac", "hmac_key", "sequence")

    def __init__(
        self, *, epoch: str | None = None, sequence: int = 0, hmac: str | None = None
    ) -> None:
        self.epoch = epoch
        self.sequence = sequence
        self.hmac = hmac
        self.hmac_key: bytes | None = None
        """Set by login; without it no HMAC can be checked, so no state is let in."""

    def __repr__(self) -> str:
        return f"<Witness epoch {self.epoch}, sequence {self.sequence}>"

    def see_opened(self, opened: LoggedIn | SessionOpened) -> bool:
        """Takes in the answer to login or resume; True when the epoch is another than before.

        Under another epoch the server's data was restored or reset, and says so: whatever was seen
        before counts no more.
        """
        wallet = opened.wallet
        if wallet is not None:
            if (wallet.sequence, wallet.hmac) != (opened.sequence, opened.hmac):
                raise StateRefused("mismatched", wallet.sequence, "the session names another")
            self._check_hmac(wallet)
        renewed = self.epoch is not None and self.epoch != opened.epoch
        if self.epoch == opened.epoch:
            self._check_not_before(opened.sequence, self.sequence)
            self._check_unchanged(opened.sequence, opened.hmac)
        self.epoch, self.sequence, self.hmac = opened.epoch, opened.sequence, opened.hmac
        return renewed

    def see_answer(self, call: Call[Any], outcome: Any, *, known_sequence: int) -> None:
        """Takes in what a call was answered with, a result or an error.

        ``known_sequence`` is what was known when the call was sent. The answer may be behind what
        came since, but never behind that.
        """
        match call, outcome:
            case PushWallet() | ChangePassword(), Conflict(wallet=wallet):
                self._see_latest(wallet, known_sequence)
            case PushWallet(), WalletState() | Receipt():
                self._see_pushed(outcome, call)
            case ChangePassword(wallet=SealedWallet() as resealed), Empty():
                self._advance(resealed.sequence, resealed.hmac)
            case GetWallet(sequence=None), NoWallet():
                self._see_latest(None, known_sequence)
            case GetWallet(sequence=None), WalletState():
                self._see_latest(outcome, known_sequence)
            case GetWallet(sequence=int(asked)), WalletState():
                self._see_version(outcome, asked)
            case Login() | Resume(), LoggedIn() | SessionOpened():
                self.see_opened(outcome)

    def see_updated(self, updated: WalletUpdated) -> bool:
        """Takes in a notification; False when it tells nothing new."""
        if updated.wallet is not None:
            wallet = updated.wallet
            if (wallet.sequence, wallet.hmac) != (updated.sequence, updated.hmac):
                raise StateRefused("mismatched", wallet.sequence, "the notification names another")
            self._check_hmac(wallet)
        return self._advance(updated.sequence, updated.hmac)

    def _see_latest(self, state: WalletState | None, known_sequence: int) -> None:
        sequence = 0 if state is None else state.sequence
        self._check_not_before(sequence, known_sequence)
        if state is not None:
            self._check_hmac(state)
            self._advance(state.sequence, state.hmac)

    def _see_version(self, state: WalletState, asked_sequence: int) -> None:
        if state.sequence != asked_sequence:
            text = f"sequence {asked_sequence} was asked for"
            raise StateRefused("mismatched", state.sequence, text)
        self._check_hmac(state)
        self._advance(state.sequence, state.hmac)

    def _see_pushed(self, answer: WalletState | Receipt, push: PushWallet) -> None:
        same = (answer.sequence, answer.hmac) == (push.sequence, push.hmac)
        if isinstance(answer, WalletState):
            same = same and answer.encrypted_wallet == push.encrypted_wallet
        if not same:
            text = f"sequence {push.sequence} was pushed, and the answer names another state"
            raise StateRefused("mismatched", answer.sequence, text)
        self._advance(push.sequence, push.hmac)

    def _advance(self, sequence: int, hmac: str) -> bool:
        self._check_unchanged(sequence, hmac)
        if sequence <= self.sequence:
            return False
        self.sequence, self.hmac = sequence, hmac
        return True

    def _check_unchanged(self, sequence: int, hmac: str | None) -> None:
        if sequence == self.sequence and hmac != self.hmac:
            text = "this device knows another state under that sequence"
            raise StateRefused("changed", sequence, text)

    def _check_not_before(self, sequence: int, known_sequence: int) -> None:
        if sequence < known_sequence:
            text = f"sequence {known_sequence} was there already, and no restore was announced"
            raise StateRefused("went_back", sequence, text)

    def _check_hmac(self, state: WalletState) -> None:
        assert self.hmac_key is not None, "log in before asking for states"
        crypto.check_hmac(self.hmac_key, state.sequence, state.encrypted_wallet, state.hmac)
