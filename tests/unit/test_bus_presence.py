"""Devices that are online at other nodes."""

from __future__ import annotations

from wsserver.bus.presence import Elsewhere

PHONE, LAPTOP = (7, "phone"), (7, "laptop")


def test_a_device_is_online_from_the_first_node_that_has_it_to_the_last() -> None:
    elsewhere = Elsewhere()
    assert elsewhere.come("a", PHONE)
    assert not elsewhere.come("b", PHONE)
    assert not elsewhere.come("b", PHONE)
    assert elsewhere.come("a", LAPTOP)
    assert elsewhere.find(7) == {"phone", "laptop"}
    assert not elsewhere.go("a", PHONE)
    assert not elsewhere.go("a", PHONE)
    assert elsewhere.go("b", PHONE)
    assert not elsewhere.go("b", PHONE)
    assert elsewhere.find(7) == {"laptop"}
    assert elsewhere.go("a", LAPTOP)
    assert elsewhere.find(7) == frozenset()
    assert not elsewhere.go("a", (8, "phone"))


def test_the_devices_of_some_nodes() -> None:
    elsewhere = Elsewhere()
    elsewhere.come("a", PHONE)
    elsewhere.come("b", LAPTOP)
    assert elsewhere.find_at(7, frozenset({"a", "c"})) == {"phone"}
    assert elsewhere.find_at(8, frozenset({"a"})) == frozenset()


def test_an_account_that_is_served_no_more_is_forgotten() -> None:
    elsewhere = Elsewhere()
    elsewhere.come("a", PHONE)
    elsewhere.forget(7)
    elsewhere.forget(7)
    assert elsewhere.find(7) == frozenset()


def test_what_nobody_says_anew_is_swept_away() -> None:
    elsewhere = Elsewhere()
    elsewhere.come("a", PHONE)
    elsewhere.come("a", LAPTOP)
    elsewhere.come("b", LAPTOP)
    elsewhere.begin_round()
    elsewhere.come("b", LAPTOP)
    assert elsewhere.sweep() == [PHONE]
    assert elsewhere.find(7) == {"laptop"}
    assert elsewhere.sweep() == []


def test_a_lost_node_takes_its_devices_with_it() -> None:
    elsewhere = Elsewhere()
    elsewhere.come("a", PHONE)
    elsewhere.come("b", PHONE)
    elsewhere.come("a", LAPTOP)
    elsewhere.come("a", (8, "pad"))
    assert elsewhere.lose("a") == [LAPTOP, (8, "pad")]
    assert elsewhere.find(7) == {"phone"}
    assert elsewhere.lose("a") == []
