"""Who of the other nodes is there, and what was missed of them."""

from __future__ import annotations

from wsserver.bus import peers
from wsserver.bus.messages import Entry, Message, Stands
from wsserver.bus.peers import FORGOTTEN_S, GONE_S, PEERS_MAX, SILENCE_S, Heard, Peers

NEWS: tuple[Entry, ...] = (Stands(7, 1),)


def say(number: int, *, node: str = "other", understood: bool = True) -> Message:
    return Message(node, number, NEWS if understood else (), understood)


def beat(number: int, node: str = "other") -> Message:
    return Message(node, number, ())


def test_of_who_is_new_something_was_missed() -> None:
    known = Peers("me", 0)
    assert (known.alone, len(known)) == (True, 0)
    assert known.hear(say(5), 0) is Heard.GAP
    assert known.hear(say(6), 0) is Heard.NEWS
    assert (known.alone, len(known), known.live) == (False, 1, frozenset({"other"}))


def test_a_number_that_is_left_out_is_a_gap() -> None:
    known = Peers("me", 0)
    known.hear(say(1), 0)
    assert [known.hear(say(n), 0) for n in (2, 4, 5)] == [Heard.NEWS, Heard.GAP, Heard.NEWS]


def test_a_heartbeat_tells_of_the_last_number() -> None:
    known = Peers("me", 0)
    known.hear(say(1), 0)
    assert known.hear(beat(1), 0) is Heard.NEWS
    assert known.hear(beat(2), 0) is Heard.GAP
    assert known.hear(beat(2), 0) is Heard.NEWS
    assert known.hear(beat(1), 0) is Heard.DOUBLE


def test_what_is_heard_twice_is_a_double() -> None:
    known = Peers("me", 0)
    known.hear(say(1), 0)
    assert known.hear(say(1), 0) is Heard.DOUBLE
    known.hear(say(2), 0)
    assert known.hear(say(1), 0) is Heard.DOUBLE


def test_a_message_that_is_not_understood_has_its_number_all_the_same() -> None:
    known = Peers("me", 0)
    known.hear(say(1), 0)
    assert known.hear(say(2, understood=False), 0) is Heard.NEWS
    assert known.hear(say(3), 0) is Heard.NEWS


def test_what_has_no_number_is_news() -> None:
    known = Peers("me", 0)
    known.hear(beat(4), 0)
    assert known.hear(say(0), 0) is Heard.NEWS
    assert known.hear(beat(4), 0) is Heard.NEWS


def test_a_node_hears_itself_or_is_deaf() -> None:
    known = Peers("me", 0)
    assert not known.is_deaf(SILENCE_S)
    assert known.is_deaf(SILENCE_S + 0.1)
    assert known.may_miss(SILENCE_S + 0.1)
    assert known.hear(beat(3, "me"), SILENCE_S + 0.1) is Heard.DOUBLE
    assert not known.may_miss(SILENCE_S + 0.1)
    assert known.alone


def test_who_falls_silent_may_say_what_is_not_heard_until_it_is_forgotten() -> None:
    known = Peers("me", 0)
    known.hear(beat(1), 0)
    assert not known.find_silent(SILENCE_S)
    later_s = SILENCE_S + 0.1
    assert known.find_silent(later_s)
    assert not known.find_silent(later_s)
    known.hear(beat(1, "me"), later_s)
    assert known.may_miss(later_s)
    assert (known.alone, len(known), known.live) == (False, 0, frozenset())
    assert not known.find_silent(FORGOTTEN_S + 0.1)
    assert known.alone


def test_of_who_is_heard_again_something_was_missed() -> None:
    known = Peers("me", 0)
    for number in (7, 0):
        known.hear(beat(7), 0)
        assert known.find_silent(1)
        assert known.hear(Message("other", number, ()), 1) is Heard.GAP
        known.dismiss("other")


def test_who_is_silent_for_long_is_gone_once() -> None:
    known = Peers("me", 0)
    known.hear(beat(1), 0)
    assert known.find_gone(GONE_S) == []
    assert known.find_gone(GONE_S + 0.1) == ["other"]
    assert known.find_gone(GONE_S + 0.2) == []
    known.hear(beat(1), 10)
    assert known.find_gone(10 + GONE_S + 0.1) == ["other"]


def test_who_takes_leave_is_known_no_more() -> None:
    known = Peers("me", 0)
    known.hear(beat(1), 0)
    known.dismiss("other")
    known.dismiss("other")
    assert known.alone


def test_no_more_nodes_are_kept_in_mind_than_there_may_be() -> None:
    known = Peers("me", 0)
    for number in range(PEERS_MAX + 1):
        known.hear(beat(1, f"node {number}"), 0)
    assert len(known) == PEERS_MAX
    assert known.hear(beat(1, "one more"), 0) is Heard.GAP


def test_silence_is_several_heartbeats_and_shorter_than_a_revocation_may_take() -> None:
    assert 3 * peers.HEARTBEAT_S < SILENCE_S < 1 - 2 * peers.HEARTBEAT_S
