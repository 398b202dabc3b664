from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from wsserver.deadlines import Wheel


@dataclass(eq=False)
class Item:
    wheel_second: int = 0


def test_an_item_comes_up_once_and_not_before_its_deadline() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item()

    wheel.schedule(item, 10.5)

    assert wheel.take_due(10.9) == []
    assert wheel.take_due(11.0) == [item]
    assert wheel.take_due(12.0) == []


def test_an_earlier_deadline_counts_and_the_old_entry_brings_nobody_up_again() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item()
    wheel.schedule(item, 20)

    wheel.schedule(item, 10)

    assert wheel.take_due(10) == [item]
    assert wheel.take_due(20) == []


def test_an_item_that_is_scheduled_onto_its_old_entry_comes_up_once() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item()
    wheel.schedule(item, 20)
    wheel.schedule(item, 10)
    wheel.take_due(10)

    wheel.schedule(item, 20)

    assert wheel.take_due(20) == [item]


def test_after_a_long_absence_everything_due_comes_up_earliest_first() -> None:
    wheel: Wheel[Item] = Wheel()
    late, early = Item(), Item()
    wheel.schedule(late, 30)
    wheel.schedule(early, 20)

    assert wheel.take_due(100_000) == [early, late]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 20)) | st.integers(1, 5),
        max_size=40,
    )
)
def test_nobody_is_missed_and_nobody_comes_up_unasked(steps: list[tuple[int, int] | int]) -> None:
    wheel: Wheel[Item] = Wheel()
    items = [Item() for _ in range(4)]
    asked: dict[int, int] = {}
    now_s = 1
    for step in steps:
        if isinstance(step, tuple):
            which, ahead_s = step
            wheel.schedule(items[which], now_s + ahead_s)
            asked[which] = min(asked.get(which, now_s + ahead_s), now_s + ahead_s)
        else:
            now_s += step
            due = {which for which, deadline_s in asked.items() if deadline_s <= now_s}
            taken = wheel.take_due(now_s)
            assert {items.index(item) for item in taken} == due
            assert len(taken) == len(due)
            for which in due:
                del asked[which]
