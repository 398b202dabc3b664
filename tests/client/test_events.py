"""The slots in which news waits for a slow reader."""

from __future__ import annotations

from datetime import UTC, datetime

from wsclient.events import DEVICE_SLOTS_MAX, EventSlots, Offline, Online
from wsschema.messages import Device, WalletUpdated

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def updated(sequence: int) -> WalletUpdated:
    return WalletUpdated(sequence, "hmac", "phone", NOW)


def device(device_id: str, applied_sequence: int = 0) -> Device:
    return Device(device_id, None, NOW, NOW, True, False, applied_sequence)


def take_all(slots: EventSlots) -> list[object]:
    taken: list[object] = []
    while (event := slots.take()) is not None:
        taken.append(event)
    return taken


def test_the_newest_update_takes_the_place_of_older_ones() -> None:
    slots = EventSlots()
    for sequence in range(1, 1001):
        slots.put(updated(sequence))
    assert len(slots) == 1
    assert take_all(slots) == [updated(1000)]


def test_each_device_has_a_slot_of_its_own() -> None:
    slots = EventSlots()
    for event in (device("phone", 1), device("laptop", 1), device("phone", 2)):
        slots.put(event)
    assert take_all(slots) == [device("laptop", 1), device("phone", 2)]


def test_of_going_and_coming_back_the_last_counts() -> None:
    slots = EventSlots()
    slots.put(Online("e2"))
    slots.put(Offline("lost", 1.0))
    slots.put(updated(1))
    slots.put(Online("e2"))
    assert take_all(slots) == [updated(1), Online("e2")]


def test_an_update_that_counts_no_more_is_dropped() -> None:
    slots = EventSlots()
    slots.put(updated(9))
    slots.put(Online("e2"))
    slots.drop_wallet()
    slots.drop_wallet()
    assert take_all(slots) == [Online("e2")]


def test_even_devices_without_number_fill_no_more_than_their_slots() -> None:
    slots = EventSlots()
    slots.put(updated(1))
    for number in range(DEVICE_SLOTS_MAX + 10):
        slots.put(device(str(number)))
    assert len(slots) == DEVICE_SLOTS_MAX + 1
    assert take_all(slots)[:2] == [updated(1), device("10")]
