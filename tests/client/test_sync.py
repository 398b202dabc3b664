"""The pure sync engine: what comes in, what it says to do next, what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from wsclient.crypto import Contents, Keys, compute_hmac, seal
from wsclient.errors import (
    BadCredentials,
    BadToken,
    Conflict,
    InvalidParams,
    RateLimited,
    StateRefused,
    Unavailable,
    WalletExists,
    WalletTooLarge,
)
from wsclient.local_state import LocalState, PasswordChange, decode_state, encode_state
from wsclient.sync import RunMerge, SendAck, SendGet, SendPasswordChange, SendPush, SyncCore
from wsclient.wallet_events import ConflictMerged, Pushed, PushRefused, Restored, ValueChanged
from wsschema.messages import Kdf, LoggedIn, PushWallet, Receipt, WalletState, WalletUpdated

KDF = Kdf.scrypt(2**14)
KEYS = Keys("joe@example.com", "secret", b"h" * 32, b"s" * 32, KDF)
NEW_KEYS = Keys("joe@example.com", "newer", b"H" * 32, b"S" * 32, KDF)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
ME, PHONE = "me", "phone"


def make_core() -> SyncCore:
    core = SyncCore(LocalState(ME))
    core.set_keys(KEYS)
    return core


def make_state(
    sequence: int,
    wallet: bytes,
    *,
    previous: str | None,
    devices: dict[str, int],
    author: str = PHONE,
    keys: Keys = KEYS,
) -> WalletState:
    encrypted = seal(keys, sequence, Contents(wallet, previous, devices))
    hmac = compute_hmac(keys.hmac_key, sequence, encrypted)
    return WalletState(sequence, encrypted, hmac, author, NOW)


def follow(core: SyncCore, wallet: bytes, *, keys: Keys = KEYS) -> WalletState:
    """The state with which the phone follows what this device shares with the server."""
    base = core.state.base
    if base is None:
        return make_state(1, wallet, previous=None, devices={PHONE: 1}, keys=keys)
    sequence = base.sequence + 1
    devices = {**base.devices, PHONE: sequence}
    return make_state(sequence, wallet, previous=base.hmac, devices=devices, keys=keys)


def open_session(core: SyncCore, latest: WalletState | None = None, *, epoch: str = "e1") -> None:
    sequence, hmac = (0, None) if latest is None else (latest.sequence, latest.hmac)
    core.witness.see_opened(LoggedIn("token", ME, NOW, epoch, sequence, hmac, None))
    core.see_opened("token")


def hear(core: SyncCore, state: WalletState) -> None:
    core.witness.see_updated(WalletUpdated(state.sequence, state.hmac, state.device_id, NOW, state))
    core.accept(state)


def next_push(core: SyncCore) -> SendPush:
    action = core.next_action()
    assert isinstance(action, SendPush)
    return action


def land(core: SyncCore, push: SendPush) -> None:
    version = push.sealed.version
    call = PushWallet(version.sequence, push.sealed.encrypted_wallet, version.hmac)
    receipt = Receipt(version.sequence, version.hmac, NOW)
    core.witness.see_answer(call, receipt, known_sequence=0)
    core.take_push_answer(push, receipt)


def put(core: SyncCore, wallet: bytes) -> None:
    """A change of this device's that goes all the way."""
    core.change(wallet)
    land(core, next_push(core))


def sent_state(push: SendPush) -> WalletState:
    version = push.sealed.version
    return WalletState(version.sequence, push.sealed.encrypted_wallet, version.hmac, ME, NOW)


def restart(core: SyncCore) -> SyncCore:
    """The same device after a crash: what was kept is all that is left."""
    return SyncCore(decode_state(encode_state(core.state)))


# Pushing.


def test_a_change_is_pushed_as_the_next_state_with_its_lineage() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    core.change(b"two")
    push = next_push(core)
    base = core.state.base
    assert base is not None
    version = push.sealed.version
    assert (version.sequence, version.wallet, version.previous) == (2, b"two", base.hmac)
    assert version.devices == {ME: 2}
    land(core, push)
    assert core.settled
    assert core.sequence == 2
    assert Pushed(2) in core.events


def test_a_change_is_not_pushed_while_more_of_it_is_gathered() -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    assert core.next_action(may_push=False) is None
    assert not core.settled
    assert isinstance(core.next_action(), SendPush)


def test_what_is_the_same_is_not_pushed() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    core.dirty = False
    core.change(b"one")
    assert not core.dirty
    assert core.settled


def test_an_unanswered_push_is_repeated_to_the_letter_after_a_crash() -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    push = next_push(core)
    assert core.dirty
    core = restart(core)
    core.change(b"one, then two")
    open_session(core)
    assert next_push(core) == push


def test_a_push_that_is_repeated_in_a_later_session_acknowledges_nothing() -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    push = next_push(core)
    open_session(core, sent_state(push))
    land(core, next_push(core))
    assert core.next_action() == SendAck(1)


def test_a_push_that_landed_before_the_crash_is_known_again() -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    push = next_push(core)
    core = restart(core)
    core.change(b"one, then two")
    open_session(core, sent_state(push))
    core.accept(sent_state(push))
    assert (core.sequence, core.state.pushed) == (1, None)
    assert next_push(core).sealed.version.sequence == 2


@pytest.mark.parametrize("error", [Unavailable(retry_after_ms=1), RateLimited(retry_after_ms=1)])
def test_a_push_that_could_not_be_stored_now_is_repeated(error: Exception) -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    push = next_push(core)
    core.take_push_answer(push, error)  # type: ignore[arg-type]  # both are WalletSyncErrors
    assert next_push(core) == push


def test_what_the_server_does_not_take_stays_here_until_it_changes() -> None:
    core = make_core()
    open_session(core)
    core.change(b"too much")
    push = next_push(core)
    error = WalletTooLarge("wallet is too large", max_bytes=1)
    core.take_push_answer(push, error)
    assert core.next_action() is None
    assert core.settled
    assert core.unsynced
    assert PushRefused(error) in core.events
    core.change(b"less")
    assert next_push(core).sealed.version.wallet == b"less"


# Merging.


def test_what_another_device_pushed_is_taken_over_and_acknowledged() -> None:
    core = make_core()
    open_session(core)
    hear(core, follow(core, b"theirs"))
    assert core.state.value == b"theirs"
    assert core.events == [ValueChanged(b"theirs", 1, PHONE)]
    assert core.next_action() == SendAck(1)
    core.note_acknowledged(1)
    assert core.next_action() is None


def test_a_conflict_is_merged_with_the_base_that_both_share_and_pushed_again() -> None:
    core = make_core()
    open_session(core)
    put(core, b"base")
    core.change(b"mine")
    push = next_push(core)
    theirs = follow(core, b"theirs")
    core.take_push_answer(push, Conflict(wallet=theirs))
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert (merge.base, merge.mine, merge.theirs) == (b"base", b"mine", b"theirs")
    assert core.take_merged(merge, b"both")
    assert ConflictMerged(b"base", b"mine", b"theirs", b"both", 2) in core.events
    version = next_push(core).sealed.version
    assert (version.sequence, version.wallet, version.previous) == (3, b"both", theirs.hmac)
    assert version.devices == {ME: 3, PHONE: 2}


def test_a_push_that_landed_unanswered_is_the_base_of_the_next_merge() -> None:
    core = make_core()
    open_session(core)
    put(core, b"base")
    core.change(b"base, mine")
    push = next_push(core)
    mine = push.sealed.version
    theirs = make_state(3, b"base, mine, theirs", previous=mine.hmac, devices={ME: 2, PHONE: 3})
    core.change(b"base, mine, more")
    core.take_push_answer(push, Conflict(wallet=theirs, landed=True))
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert merge.base == b"base, mine"


def test_a_merge_is_void_when_the_wallet_changed_under_it() -> None:
    core = make_core()
    open_session(core)
    core.change(b"mine")
    hear(core, follow(core, b"theirs"))
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert merge.base is None
    core.change(b"mine, and more")
    assert not core.take_merged(merge, b"lossy")
    again = core.next_action()
    assert isinstance(again, RunMerge)
    assert again.mine == b"mine, and more"


def test_a_newer_state_takes_the_place_of_one_that_waits_to_be_merged() -> None:
    core = make_core()
    open_session(core)
    put(core, b"base")
    core.change(b"mine")
    second = follow(core, b"second")
    hear(core, second)
    third = make_state(3, b"third", previous=second.hmac, devices={ME: 1, PHONE: 3})
    hear(core, third)
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert (merge.theirs, merge.incoming.sequence) == (b"third", 3)


def test_an_answer_to_a_push_that_was_decided_meanwhile_changes_nothing() -> None:
    core = make_core()
    open_session(core)
    core.change(b"one")
    push = next_push(core)
    hear(core, sent_state(push))
    theirs = follow(core, b"two")
    hear(core, theirs)
    land(core, push)
    assert core.sequence == 2


def test_a_state_that_was_only_heard_of_is_asked_for() -> None:
    core = make_core()
    state = follow(core, b"theirs")
    open_session(core, state)
    assert core.next_action() == SendGet()
    core.accept(state)
    assert core.state.value == b"theirs"


# What cannot be.


def refused(core: SyncCore, state: WalletState) -> str:
    kept = encode_state(core.state)
    with pytest.raises(StateRefused) as caught:
        core.accept(state)
    assert encode_state(core.state) == kept
    return caught.value.reason


def test_a_state_that_lost_this_devices_push_is_refused() -> None:
    core = make_core()
    open_session(core)
    put(core, b"mine")
    assert refused(core, make_state(3, b"x", previous="?", devices={PHONE: 3})) == "overwritten"


def test_a_state_that_lost_another_devices_push_is_refused() -> None:
    core = make_core()
    open_session(core)
    hear(core, follow(core, b"theirs"))
    assert refused(core, make_state(3, b"x", previous="?", devices={"tv": 3})) == "forked"


def test_a_state_that_does_not_replace_the_one_before_it_is_refused() -> None:
    core = make_core()
    open_session(core)
    put(core, b"mine")
    state = make_state(2, b"x", previous="another", devices={ME: 1, PHONE: 2})
    assert refused(core, state) == "forked"


def test_a_state_with_a_push_that_this_device_never_made_is_refused() -> None:
    core = make_core()
    open_session(core)
    put(core, b"mine")
    assert refused(core, make_state(5, b"x", previous="?", devices={ME: 4, PHONE: 5})) == "forked"


def test_a_push_that_is_said_to_have_landed_and_has_not_is_refused() -> None:
    core = make_core()
    open_session(core)
    put(core, b"base")
    core.change(b"mine")
    push = next_push(core)
    with pytest.raises(StateRefused) as caught:
        core.take_push_answer(push, Conflict(wallet=follow(core, b"theirs"), landed=True))
    assert caught.value.reason == "overwritten"
    assert core.state.pushed == push.sealed


def test_a_state_of_another_sequence_or_key_is_refused() -> None:
    core = make_core()
    open_session(core)
    state = follow(core, b"theirs")
    moved = WalletState(2, state.encrypted_wallet, state.hmac, PHONE, NOW)
    assert refused(core, moved) == "cannot_open"
    assert refused(core, follow(core, b"theirs", keys=NEW_KEYS)) == "cannot_open"


def test_a_full_lineage_may_have_dropped_who_pushed_longest_ago() -> None:
    core = make_core()
    open_session(core)
    hear(core, make_state(1, b"-", previous=None, devices={"old": 1}))
    devices = {f"device {n}": n for n in range(2, 66)}
    hear(core, make_state(65, b"x", previous="?", devices=devices))
    assert core.sequence == 65
    core.change(b"mine")
    pushed = next_push(core).sealed.version.devices
    assert len(pushed) == 64
    assert pushed[ME] == 66
    assert "device 2" not in pushed


# Another epoch.


def test_after_an_announced_restore_it_is_merged_with_no_base() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    put(core, b"two")
    core.change(b"three")
    next_push(core)
    older = make_state(1, b"zero", previous=None, devices={PHONE: 1})
    open_session(core, older, epoch="e2")
    assert Restored("e2") in core.events
    assert core.next_action() == SendGet()
    core.accept(older)
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert (merge.base, merge.mine) == (None, b"three")


def test_a_restore_is_noticed_before_anything_is_pushed() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    core.change(b"two")
    next_push(core)
    # The session is back, and nobody has told the core yet.
    core.witness.see_opened(LoggedIn("token", ME, NOW, "e2", 0, None, None))
    push = next_push(core)
    assert (push.sealed.version.sequence, push.sealed.version.wallet) == (1, b"two")


def test_what_was_refused_may_be_believed() -> None:
    core = make_core()
    open_session(core)
    put(core, b"mine")
    forked = make_state(2, b"theirs", previous="?", devices={PHONE: 2})
    assert refused(core, forked) == "overwritten"
    core.believe()
    core = restart(core)
    open_session(core, forked)
    assert core.next_action() == SendGet()
    core.accept(forked)
    merge = core.next_action()
    assert isinstance(merge, RunMerge)
    assert (merge.base, merge.mine, merge.theirs) == (None, b"mine", b"theirs")


# The root password.


def begin_change(core: SyncCore) -> SendPasswordChange:
    core.begin_password_change(NEW_KEYS, "5" * 64)
    action = core.next_action()
    assert isinstance(action, SendPasswordChange)
    return action


def test_a_password_change_takes_the_wallet_along() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    core.change(b"two")
    push = next_push(core)
    core.begin_password_change(NEW_KEYS, "5" * 64)
    assert next_push(core) == push, "what is on its way comes first"
    land(core, push)
    sent = core.next_action()
    assert isinstance(sent, SendPasswordChange)
    assert sent.change.sealed is not None
    assert sent.change.sealed.version.sequence == 3
    core.finish_password_change(answered=True)
    assert (core.sequence, core.state.keys, core.state.password_change) == (3, NEW_KEYS, None)
    assert core.settled or core.witness.sequence < 3


def test_a_password_change_ends_this_devices_token_too() -> None:
    core = make_core()
    open_session(core)
    begin_change(core)
    core.finish_password_change(answered=True)
    assert restart(core).state.token is None


def test_a_login_with_the_new_keys_does_not_tell_which_wallet_was_sealed_for_them() -> None:
    core = make_core()
    open_session(core)
    assert begin_change(core).change.sealed is None, "sent before there was a wallet"
    core.change(b"one")
    sent = core.next_action()
    assert isinstance(sent, SendPasswordChange)
    assert sent.change.sealed is not None, "and again with one"
    core.finish_password_change(answered=False)
    open_session(core)
    assert core.sequence == 0
    push = next_push(core)
    assert push.sealed == sent.change.sealed
    land(core, push)
    assert (core.sequence, core.state.pushed) == (1, None)


def test_a_password_change_that_another_followed_is_found_in_the_lineage() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    mine = begin_change(core).change.sealed
    assert mine is not None
    base, newest = mine.version, Keys("joe@example.com", "newest", b"n" * 32, b"N" * 32, KDF)
    theirs = make_state(
        3, b"two", previous=base.hmac, devices={**base.devices, PHONE: 3}, keys=newest
    )
    core.lose_password_change()
    core.set_keys(newest)
    open_session(core, theirs)
    assert core.next_action() == SendGet()
    core.accept(theirs)
    assert (core.sequence, core.state.value, core.state.pushed) == (3, b"two", None)
    assert core.state.password_change is None


def test_where_there_is_no_wallet_the_password_is_changed_without_one() -> None:
    core = make_core()
    open_session(core)
    assert begin_change(core).change.sealed is None
    core.finish_password_change(answered=True)
    assert core.state.keys == NEW_KEYS


def test_a_password_change_is_repeated_to_the_letter_after_a_crash() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    sent = begin_change(core)
    latest = core.state.base
    assert latest is not None
    core = restart(core)
    open_session(core, WalletState(1, "-", latest.hmac, ME, NOW))
    assert core.next_action() == sent


def test_a_password_change_that_was_too_late_is_made_anew() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    sent = begin_change(core)
    theirs = follow(core, b"theirs")
    core.witness.see_updated(WalletUpdated(2, theirs.hmac, PHONE, NOW, theirs))
    assert core.take_password_error(Conflict(wallet=theirs))
    again = core.next_action()
    assert isinstance(again, SendPasswordChange)
    assert again.change.sealed is not None
    assert again.change.sealed.version.wallet == b"theirs"
    assert again != sent


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (Unavailable(retry_after_ms=1), True),
        (BadToken(), True),
        (WalletExists(), True),
        (BadCredentials(), True),
        (InvalidParams("no", path="kdf", reason="out_of_range"), False),
    ],
)
def test_a_password_change_goes_on_until_it_is_refused_for_good(
    error: Exception, goes_on: bool
) -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    begin_change(core)
    assert core.take_password_error(error) is goes_on  # type: ignore[arg-type]  # WalletSyncErrors
    assert (core.state.password_change is not None) is goes_on
    assert core.state.keys == KEYS


def test_after_a_password_change_elsewhere_a_push_under_the_old_key_is_never_sent() -> None:
    core = make_core()
    open_session(core)
    put(core, b"one")
    core.change(b"one, mine")
    push = next_push(core)
    resealed = follow(core, b"one", keys=NEW_KEYS)
    core.set_keys(NEW_KEYS)
    open_session(core, resealed)
    assert core.next_action() == SendGet()
    core.accept(resealed)
    again = next_push(core)
    assert again.sealed.version.sequence == 3
    assert again != push


def test_a_push_under_the_old_key_that_no_one_followed_is_made_anew() -> None:
    core = make_core()
    open_session(core)
    core.change(b"mine")
    push = next_push(core)
    core.set_keys(NEW_KEYS)
    open_session(core)
    again = next_push(core)
    assert again != push
    assert again.sealed.version.sequence == 1


# What is kept.


def test_all_that_is_kept_comes_back() -> None:
    core = make_core()
    open_session(core)
    put(core, bytes(range(256)))
    core.change(b"\xff")
    next_push(core)
    state = core.state
    state.password_change = PasswordChange(NEW_KEYS, "5" * 64, state.pushed)
    assert decode_state(encode_state(state)) == state
    assert decode_state(encode_state(LocalState("x"))) == LocalState("x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["device_id"], 5),
        (["epoch"], []),
        (["sequence"], "1"),
        (["sequence"], True),
        (["base", "devices"], [1]),
        (["base", "devices"], {"laptop": None}),
        (["base", "previous"], {}),
        (["pushed", "encrypted_wallet"], None),
        (["keys", "kdf", "n"], 3),
        (["keys", "kdf"], [1, 2]),
        (["password_change", "client_salt_seed"], 1),
    ],
    ids=str,
)
def test_what_is_kept_under_another_type_is_a_value_error(path: list[str], value: Any) -> None:
    core = make_core()
    open_session(core)
    put(core, b"wallet")
    core.change(b"changed")
    next_push(core)
    core.state.password_change = PasswordChange(NEW_KEYS, "5" * 64, core.state.pushed)
    kept = member = orjson.loads(encode_state(core.state))
    for name in path[:-1]:
        member = member[name]
    assert path[-1] in member
    member[path[-1]] = value

    with pytest.raises(ValueError, match="not in the form of this version"):
        decode_state(orjson.dumps(kept))


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"v": 2}', b'{"v": 1, "device_id": "x"}', b"\xff"]
)
def test_what_another_version_kept_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_state(payload)
