"""What a server may show a device, given what it showed before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wsclient.crypto import compute_hmac
from wsclient.errors import StateRefused
from wsclient.witness import Witness
from wsschema.errors import Conflict, NoSuchVersion, NoWallet, Unavailable
from wsschema.messages import (
    ChangePassword,
    Empty,
    GetWallet,
    Kdf,
    Ping,
    PushWallet,
    Receipt,
    SealedWallet,
    SessionOpened,
    WalletState,
    WalletUpdated,
)

KEY = b"k" * 32
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def state(sequence: int, wallet: str = "-", *, hmac: str | None = None) -> WalletState:
    hmac = compute_hmac(KEY, sequence, wallet) if hmac is None else hmac
    return WalletState(sequence, wallet, hmac, "phone", NOW)


def opened(
    epoch: str, latest: WalletState | None = None, *, bring_wallet: bool = False
) -> SessionOpened:
    sequence, hmac = (0, None) if latest is None else (latest.sequence, latest.hmac)
    return SessionOpened("laptop", NOW, epoch, sequence, hmac, latest if bring_wallet else None)


def updated(latest: WalletState, *, bring_wallet: bool = False) -> WalletUpdated:
    wallet = latest if bring_wallet else None
    return WalletUpdated(latest.sequence, latest.hmac, "phone", NOW, wallet)


def push(sequence: int, wallet: str = "-") -> PushWallet:
    return PushWallet(sequence, wallet, compute_hmac(KEY, sequence, wallet))


def make_witness(latest: WalletState | None = None, epoch: str | None = "e1") -> Witness:
    witness = Witness(epoch=epoch)
    witness.hmac_key = KEY
    if latest is not None:
        witness.sequence, witness.hmac = latest.sequence, latest.hmac
    return witness


def known(witness: Witness) -> tuple[str | None, int, str | None]:
    return witness.epoch, witness.sequence, witness.hmac


FIFTH = state(5)
CHANGE = ChangePassword("old", "new", "a" * 64, Kdf.scrypt(2**14), SealedWallet(6, "-", "hmac"))


def test_first_contact_believes_what_is_there() -> None:
    witness = make_witness(epoch=None)
    assert witness.see_opened(opened("e1", FIFTH)) is False
    assert known(witness) == ("e1", 5, FIFTH.hmac)


@pytest.mark.parametrize("latest", [state(5), state(6)])
def test_the_same_state_or_a_newer_one_is_let_in(latest: WalletState) -> None:
    witness = make_witness(FIFTH)
    assert witness.see_opened(opened("e1", latest, bring_wallet=True)) is False
    witness.see_answer(GetWallet(), latest, known_sequence=5)
    assert known(witness) == ("e1", latest.sequence, latest.hmac)


def test_another_epoch_lets_any_sequence_in_and_says_so() -> None:
    witness = make_witness(FIFTH)
    assert witness.see_opened(opened("e2", state(3), bring_wallet=True)) is True
    assert known(witness) == ("e2", 3, state(3).hmac)
    assert witness.see_opened(opened("e3")) is True
    assert known(witness) == ("e3", 0, None)


def show(witness: Witness, shown: SessionOpened | WalletUpdated | WalletState) -> None:
    match shown:
        case SessionOpened():
            witness.see_opened(shown)
        case WalletUpdated():
            witness.see_updated(shown)
        case WalletState():
            witness.see_answer(GetWallet(), shown, known_sequence=5)


def refusals() -> list[tuple[str, str, SessionOpened | WalletUpdated | WalletState]]:
    forged = state(6, hmac="00" * 32)
    other = state(5, "other")
    return [
        ("a session that went back", "went_back", opened("e1", state(4))),
        ("a session without a wallet", "went_back", opened("e1")),
        ("a session with another state", "changed", opened("e1", other)),
        ("a session with a forged state", "bad_hmac", opened("e1", forged, bring_wallet=True)),
        ("a forged state under a new epoch", "bad_hmac", opened("e2", forged, bring_wallet=True)),
        ("a notification of another state", "changed", updated(other)),
        ("a notification of a forged one", "bad_hmac", updated(forged, bring_wallet=True)),
        ("an older state", "went_back", state(4)),
        ("another state", "changed", other),
        ("a forged state", "bad_hmac", forged),
        ("a state moved to the next sequence", "bad_hmac", state(6, hmac=FIFTH.hmac)),
    ]


@pytest.mark.parametrize(
    ("reason", "shown"), [pytest.param(*case[1:], id=case[0]) for case in refusals()]
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    reason: str, shown: SessionOpened | WalletUpdated | WalletState
) -> None:
    witness = make_witness(FIFTH)

    with pytest.raises(StateRefused) as refused:
        show(witness, shown)

    assert refused.value.reason == reason
    assert known(witness) == ("e1", 5, FIFTH.hmac)


def test_a_wallet_that_is_not_the_one_named_beside_it_is_refused() -> None:
    witness = make_witness(FIFTH)
    session = SessionOpened("laptop", NOW, "e1", 7, state(7).hmac, state(6))
    notification = WalletUpdated(7, state(7).hmac, "phone", NOW, state(6))
    with pytest.raises(StateRefused, match="refused state 6 from the server: the session names"):
        witness.see_opened(session)
    with pytest.raises(StateRefused, match="refused state 6 from the server: the notification"):
        witness.see_updated(notification)
    assert known(witness) == ("e1", 5, FIFTH.hmac)


def test_no_wallet_is_refused_where_there_was_one() -> None:
    with pytest.raises(StateRefused, match="sequence 5 was there already"):
        make_witness(FIFTH).see_answer(GetWallet(), NoWallet(), known_sequence=5)
    make_witness().see_answer(GetWallet(), NoWallet(), known_sequence=0)


@pytest.mark.parametrize("call", [push(6, "mine"), CHANGE])
def test_the_latest_state_in_a_conflict_is_checked_too(call: PushWallet | ChangePassword) -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(call, Conflict(wallet=state(7)), known_sequence=5)
    assert witness.sequence == 7
    with pytest.raises(StateRefused):
        witness.see_answer(call, Conflict(wallet=None), known_sequence=5)


def test_errors_and_results_that_show_no_state_change_nothing() -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(push(6), Unavailable(), known_sequence=5)
    witness.see_answer(GetWallet(2), NoSuchVersion(), known_sequence=5)
    witness.see_answer(Ping(), Empty(), known_sequence=5)
    assert known(witness) == ("e1", 5, FIFTH.hmac)


def test_an_answer_may_be_behind_what_came_since_it_was_asked_for() -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(GetWallet(), state(4), known_sequence=3)
    assert witness.sequence == 5


def test_a_notification_is_news_once_and_late_ones_are_none() -> None:
    witness = make_witness(FIFTH)
    assert witness.see_updated(updated(state(7), bring_wallet=True)) is True
    assert witness.see_updated(updated(state(7))) is False
    assert witness.see_updated(updated(state(6))) is False
    assert witness.sequence == 7


def test_a_version_is_the_one_asked_for() -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(GetWallet(3), state(3), known_sequence=5)
    assert witness.sequence == 5
    with pytest.raises(StateRefused, match="sequence 3 was asked for"):
        witness.see_answer(GetWallet(3), state(4), known_sequence=5)
    with pytest.raises(StateRefused) as refused:
        witness.see_answer(GetWallet(3), state(3, hmac="00"), known_sequence=5)
    assert refused.value.reason == "bad_hmac"


@pytest.mark.parametrize(
    "answer",
    [
        state(6, "mine"),
        Receipt(6, push(6, "mine").hmac, NOW),
    ],
)
def test_the_answer_to_a_push_is_what_was_pushed(answer: WalletState | Receipt) -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(push(6, "mine"), answer, known_sequence=5)
    assert known(witness) == ("e1", 6, answer.hmac)


@pytest.mark.parametrize(
    "answer",
    [
        state(7, "mine"),
        state(6, "theirs"),
        state(6, "theirs", hmac=push(6, "mine").hmac),
        Receipt(6, "00", NOW),
    ],
)
def test_another_answer_to_a_push_is_refused(answer: WalletState | Receipt) -> None:
    witness = make_witness(FIFTH)
    with pytest.raises(StateRefused) as refused:
        witness.see_answer(push(6, "mine"), answer, known_sequence=5)
    assert refused.value.reason == "mismatched"
    assert witness.sequence == 5


def test_a_push_that_landed_where_another_did_is_refused() -> None:
    witness = make_witness(state(6, "theirs"))
    with pytest.raises(StateRefused) as refused:
        witness.see_answer(push(6, "mine"), state(6, "mine"), known_sequence=5)
    assert refused.value.reason == "changed"


def test_a_push_overtaken_by_a_notification_leaves_the_newer_sequence() -> None:
    witness = make_witness(state(7))
    witness.see_answer(push(6, "mine"), state(6, "mine"), known_sequence=5)
    assert witness.sequence == 7


def test_a_password_change_counts_as_the_push_that_it_brought() -> None:
    witness = make_witness(FIFTH)
    witness.see_answer(CHANGE, Empty(), known_sequence=5)
    assert known(witness) == ("e1", 6, "hmac")


def test_the_refusal_of_a_state_names_no_wallet_and_no_hmac() -> None:
    with pytest.raises(StateRefused) as refused:
        make_witness(FIFTH).see_answer(GetWallet(), state(5, "coins"), known_sequence=5)
    assert "coins" not in str(refused.value)
    assert FIFTH.hmac not in f"{refused.value} {make_witness(FIFTH)!r}"
