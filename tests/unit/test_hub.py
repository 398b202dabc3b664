"""Who hears what, and who is online."""

from __future__ import annotations

import pytest

from wsschema.messages import Device, WalletState
from wsschema.times import time_from_ms
from wsserver.hub import Hub, device_message
from wsserver.operations import Applied, DeviceRecord, Published, Revoked

NOW_MS = 1_767_323_045_678
ACCOUNT = 7
NEWS = Published(ACCOUNT, WalletState(1, "wallet", "hmac", "phone", time_from_ms(NOW_MS)), author=1)


class Ear:
    """A listener that notes what it hears."""

    def __init__(
        self, connection_id: int, device_id: str = "phone", token: bytes | None = b"token"
    ) -> None:
        self.connection_id = connection_id
        self.device_id = device_id
        self.token_hash = token
        self.device: DeviceRecord | None = None
        self.updates: list[Published] = []
        self.devices: list[Device] = []
        self.reasons: list[str] = []

    idle_since_s = 0.0
    known_sequence = 0
    presence = True

    def crowd_out(self) -> None:
        raise NotImplementedError

    def open(self, *, applied: int = 0) -> None:
        self.device = DeviceRecord(self.device_id, None, NOW_MS - 5, NOW_MS - 1, applied)

    def wallet_updated(self, update: Published) -> None:
        self.updates.append(update)

    def device_updated(self, device: Device) -> None:
        self.devices.append(device)

    def revoked(self, reason: str) -> None:
        self.reasons.append(reason)


def open_in(hub: Hub, *ears: Ear, applied: int = 0) -> None:
    for ear in ears:
        hub.join(ACCOUNT, ear)
        ear.open(applied=applied)
        hub.announce(ACCOUNT, ear)


# Membership.


def test_the_hub_holds_whoever_joined_and_has_not_left() -> None:
    hub = Hub()
    phone, laptop, other = Ear(1), Ear(2, "laptop"), Ear(3)
    hub.join(ACCOUNT, phone)
    hub.join(ACCOUNT, laptop)
    hub.join(8, other)
    assert (len(hub), [*hub]) == (3, [phone, laptop, other])
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert (len(hub), [*hub]) == (2, [laptop, other])
    hub.leave(ACCOUNT, laptop, now_ms=NOW_MS)
    hub.leave(8, other, now_ms=NOW_MS)
    assert (len(hub), [*hub]) == (0, [])


def test_listeners_may_leave_while_all_are_gone_through() -> None:
    hub = Hub()
    ears = [Ear(number) for number in range(4)]
    for account_id, ear in enumerate(ears):
        hub.join(account_id, ear)
    seen = 0
    for account_id, listener in enumerate(hub):
        hub.leave(account_id, listener, now_ms=NOW_MS)
        seen += 1
    assert (seen, len(hub)) == (4, 0)


def test_the_listeners_of_an_account_are_in_the_order_in_which_they_joined() -> None:
    hub = Hub()
    phone, laptop = Ear(1), Ear(2, "laptop")
    hub.join(ACCOUNT, phone)
    hub.join(ACCOUNT, laptop)
    assert hub.listeners_of(ACCOUNT) == (phone, laptop)
    assert hub.listeners_of(8) == ()


def test_a_device_is_online_once_its_session_is_open_and_until_its_last_connection_left() -> None:
    hub = Hub()
    phone, twin = Ear(1), Ear(2)
    hub.join(ACCOUNT, phone)
    assert hub.find_online(ACCOUNT) == frozenset()
    phone.open()
    open_in(hub, twin)
    assert hub.find_online(ACCOUNT) == {"phone"}
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert hub.find_online(ACCOUNT) == {"phone"}
    hub.leave(ACCOUNT, twin, now_ms=NOW_MS)
    assert hub.find_online(ACCOUNT) == frozenset()
    assert hub.find_online(8) == frozenset()


# Updates.


def test_an_update_goes_to_every_connection_of_the_account_but_its_author() -> None:
    hub = Hub()
    author, twin, laptop, opening, stranger = (
        Ear(1),
        Ear(2),
        Ear(3, "laptop"),
        Ear(4, "tablet", None),
        Ear(5),
    )
    open_in(hub, author, twin, laptop)
    hub.join(ACCOUNT, opening)
    hub.join(8, stranger)
    hub.publish(NEWS)
    assert [len(ear.updates) for ear in (author, twin, laptop, opening, stranger)] == [
        0,
        1,
        1,
        1,
        0,
    ]
    assert laptop.updates[0] is NEWS


def test_what_concerns_nobody_who_is_connected_is_published_to_nobody() -> None:
    hub = Hub()
    for event in (NEWS, Applied(ACCOUNT, "phone", 1), Revoked(ACCOUNT, "expired")):
        hub.publish(event)
    assert len(hub) == 0


# Presence.


def test_a_device_comes_with_its_first_connection_and_goes_with_its_last() -> None:
    hub = Hub()
    laptop, phone, twin = Ear(1, "laptop"), Ear(2), Ear(3)
    open_in(hub, laptop, phone, twin)
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    hub.leave(ACCOUNT, twin, now_ms=NOW_MS)
    assert [(device.device_id, device.online) for device in laptop.devices] == [
        ("phone", True),
        ("phone", False),
    ]
    assert [device.last_seen_at for device in laptop.devices] == [
        time_from_ms(NOW_MS - 1),
        time_from_ms(NOW_MS),
    ]
    assert not any(device.current for device in laptop.devices)


def test_a_device_hears_nothing_of_itself() -> None:
    hub = Hub()
    phone, twin = Ear(1), Ear(2)
    open_in(hub, phone, twin)
    hub.publish(Applied(ACCOUNT, "phone", 3))
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert phone.devices == twin.devices == []


def test_a_listener_that_leaves_before_its_session_was_open_never_came() -> None:
    hub = Hub()
    laptop, phone = Ear(1, "laptop"), Ear(2)
    open_in(hub, laptop)
    hub.join(ACCOUNT, phone)
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert laptop.devices == []


def test_an_opening_listener_hears_of_devices_too() -> None:
    hub = Hub()
    opening, phone = Ear(1, "laptop", None), Ear(2)
    hub.join(ACCOUNT, opening)
    open_in(hub, phone)
    assert [device.device_id for device in opening.devices] == ["phone"]


def test_an_acknowledgement_is_kept_for_all_connections_of_the_device_and_told_once() -> None:
    hub = Hub()
    laptop, phone, twin, opening = Ear(1, "laptop"), Ear(2), Ear(3), Ear(4)
    open_in(hub, laptop, phone, twin)
    hub.join(ACCOUNT, opening)
    laptop.devices.clear()
    hub.publish(Applied(ACCOUNT, "phone", 3))
    assert [(device.applied_sequence, device.online) for device in laptop.devices] == [(3, True)]
    assert phone.device is twin.device
    assert phone.device is not None
    assert phone.device.applied_sequence == 3
    assert opening.device is None


def test_an_acknowledgement_of_a_device_that_is_gone_is_not_told() -> None:
    hub = Hub()
    laptop = Ear(1, "laptop")
    open_in(hub, laptop)
    hub.publish(Applied(ACCOUNT, "phone", 3))
    assert laptop.devices == []


@pytest.mark.parametrize(("kept", "read"), [(4, 3), (3, 4)])
def test_a_second_connection_knows_the_newest_that_its_device_applied(kept: int, read: int) -> None:
    hub = Hub()
    phone, twin = Ear(1), Ear(2)
    open_in(hub, phone, applied=kept)
    open_in(hub, twin, applied=read)
    assert twin.device is not None
    assert twin.device.applied_sequence == 4


# Revocation.


@pytest.mark.parametrize(
    ("event", "ended"),
    [
        (Revoked(ACCOUNT, "r"), [1, 2, 3, 4]),
        (Revoked(ACCOUNT, "r", "phone"), [1, 2, 3]),
        (Revoked(ACCOUNT, "r", "phone", kept_token_hash=b"new"), [1, 2]),
        (Revoked(ACCOUNT, "r", token_hash=b"old"), [1, 2]),
        (Revoked(ACCOUNT, "r", token_hash=b"none"), []),
        (Revoked(ACCOUNT, "r", "none"), []),
        (Revoked(8, "r"), [6]),
    ],
)
def test_a_revocation_ends_those_whom_it_concerns(event: Revoked, ended: list[int]) -> None:
    hub = Hub()
    ears = [
        Ear(1, "phone", b"old"),
        Ear(2, "phone", b"old"),
        Ear(3, "phone", b"new"),
        Ear(4, "laptop", b"laptop"),
        Ear(5, "phone", None),  # its login is not committed yet
    ]
    stranger = Ear(6, "phone", b"other")
    for ear in ears:
        hub.join(ACCOUNT, ear)
    hub.join(8, stranger)
    hub.publish(event)
    assert [ear.connection_id for ear in (*ears, stranger) if ear.reasons] == ended


def test_listeners_may_leave_while_they_are_revoked() -> None:
    hub = Hub()

    class Leaver(Ear):
        def revoked(self, reason: str) -> None:
            super().revoked(reason)
            hub.leave(ACCOUNT, self, now_ms=NOW_MS)

    phone, laptop = Leaver(1), Leaver(2, "laptop")
    open_in(hub, phone, laptop)
    hub.publish(Revoked(ACCOUNT, "account_deleted"))
    assert phone.reasons == laptop.reasons == ["account_deleted"]
    assert len(hub) == 0


# The wire.


def test_the_message_of_a_device_has_what_is_stored_of_it() -> None:
    record = DeviceRecord("phone", "Joe's phone", NOW_MS - 5, NOW_MS, 3)
    assert device_message(record, online=False, current=True) == Device(
        "phone", "Joe's phone", time_from_ms(NOW_MS - 5), time_from_ms(NOW_MS), False, True, 3
    )


def test_a_listener_is_announced_only_with_an_open_session() -> None:
    hub, phone = Hub(), Ear(1)
    hub.join(ACCOUNT, phone)
    with pytest.raises(AssertionError, match="before its session was open"):
        hub.announce(ACCOUNT, phone)


def test_who_did_not_ask_for_presence_is_told_of_no_device() -> None:
    hub, phone, laptop = Hub(), Ear(1, "phone"), Ear(2, "laptop")
    laptop.presence = False
    open_in(hub, laptop, phone)

    hub.publish(Applied(ACCOUNT, "phone", 3))
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)

    assert laptop.devices == []


def test_a_push_is_an_acknowledgement_of_its_device() -> None:
    hub, phone, laptop = Hub(), Ear(1, "phone"), Ear(2, "laptop")
    open_in(hub, laptop, phone)
    laptop.devices.clear()

    hub.publish(NEWS)

    assert phone.device is not None
    assert phone.device.applied_sequence == 1
    assert [(device.device_id, device.applied_sequence) for device in laptop.devices] == [
        ("phone", 1)
    ]


# Other nodes.


def test_who_watches_is_told_whose_listeners_change() -> None:
    hub = Hub()
    changed: list[int] = []
    hub.changed = changed.append
    phone = Ear(1)
    open_in(hub, phone)
    assert (changed, [*hub.account_ids]) == ([ACCOUNT, ACCOUNT], [ACCOUNT])
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert (changed, [*hub.account_ids]) == ([ACCOUNT] * 3, [])


def test_a_device_that_is_online_elsewhere_has_not_gone() -> None:
    hub = Hub()
    hub.find_elsewhere = lambda account_id: {"phone"} if account_id == ACCOUNT else set()
    phone, laptop = Ear(1), Ear(2, "laptop")
    open_in(hub, laptop, phone)
    laptop.devices.clear()
    assert hub.is_online(ACCOUNT, "phone")
    hub.leave(ACCOUNT, phone, now_ms=NOW_MS)
    assert hub.is_online(ACCOUNT, "phone")
    assert not hub.is_online(8, "phone")
    assert laptop.devices == []
