"""The live view, driven by its keys and by what happens to a wallet that has no server."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import pytest

from tests.live.fake_wallet import OTHER_ID, OWN_ID, FakeWallet, make_device
from tests.live.stage import Stage, open_stage
from wsclient.errors import SessionEnded, StateRefused, WalletTooLarge
from wsclient.live.app import LiveApp
from wsclient.live.dialogs import PasswordDialog, QuestionDialog, ValueDialog
from wsclient.live.merge_dialog import MergeDialog
from wsclient.live.themes import DARK, LIGHT
from wsclient.wallet_events import DeviceUpdated, PushRefused, Restored, Status
from wsschema.errors import BadCredentials

WALLET = b'{"owner":"Joe","accounts":[{"id":"a","balance":10},{"id":"b","balance":20}]}'
SMALL, LARGE = (80, 24), (140, 40)

WENT_BACK = StateRefused("went_back", 39, "sequence 41 was there already")


# What is shown.


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_the_wallet_its_devices_and_how_it_stands_are_shown(size: tuple[int, int]) -> None:
    async with open_stage(WALLET, size=size) as stage:
        for text in (
            "home · joe@example.com · wss://sync.example.com/v1",
            "● synced   sequence 1   ⇄ 1.2 ms",
            'owner: "Joe"',
            "accounts: [2]",
            "├─▾ 0 {2}",
            "● laptop  ✓ 1  this one",
            "● phone   ✓ 1",
            "12:00:00 online",
            "e Edit",
            "q Quit",
        ):
            await stage.until_shown(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "no wallet yet"),
        (b"42", "wallet 42"),
        (b"[]", "wallet []"),
        (b"coffee:12\nrent:800", "    2 rent:800"),
        (b"\x00wallet", "    1 00 77 61 6c 6c 65 74"),
    ],
)
async def test_a_wallet_of_any_kind_is_shown(value: bytes | None, text: str) -> None:
    async with open_stage(value) as stage:
        await stage.until_shown(text)


async def test_what_steers_a_terminal_is_shown_as_an_escape() -> None:
    name = "pho\x1b[31mne"
    value = json.dumps({"evil\x9b": "\x1b]0;title\x07"}).encode()

    def rename(wallet: FakeWallet) -> None:
        wallet.account["x"] = make_device("x", name)

    async with open_stage(value, prepare=rename) as stage:
        await stage.until_shown(r"pho\u001b[31mne")
        stage.wallet.set_status(Status.OFFLINE, "\x1b[2J")
        await stage.until_shown(r"offline: \u001b[2J")
        assert r'evil\u009b: "\u001b]0;title\u0007"' in stage.text
        assert all(line.isprintable() for line in stage.text.split("\n"))


async def test_markup_in_a_wallet_is_shown_as_it_is() -> None:
    async with open_stage(b'{"[bold]":"[/red]"}') as stage:
        await stage.press("down")
        await stage.until_shown('[bold]: "[/red]"')
        await stage.until_shown('["[bold]"]')
        await stage.press("e")
        await stage.until_shown('Edit ["[bold]"]')


# What is heard.


async def test_a_change_made_elsewhere_is_shown_glows_and_is_told() -> None:
    async with open_stage(WALLET) as stage:
        stage.wallet.arrive(WALLET.replace(b"20", b"35"))

        await stage.until_shown("balance: 35")
        await stage.until_told("phone changed accounts[1].balance")
        assert stage.app.wallet_tree.glowing == {("accounts", 1, "balance")}
        await stage.until_shown("sequence 2")


async def test_the_first_wallet_that_arrives_is_shown() -> None:
    async with open_stage(None) as stage:
        stage.wallet.arrive(b'{"coffee":1}')

        await stage.until_shown("coffee: 1")
        await stage.until_told("phone changed coffee")


async def test_offline_says_why_and_counts_down_and_then_online_again() -> None:
    async with open_stage() as stage:
        stage.wallet.unsynced = True
        stage.wallet.set_status(Status.OFFLINE, "cannot connect: connection refused", 12.0)

        await stage.until_shown("● offline, next try in 12 s   sequence 1   ✎ unsynced changes")
        await stage.until_told("12:00:00 offline: cannot connect: connection refused")
        assert "⇄" not in stage.text
        await stage.until_shown("next try in 11 s")

        stage.wallet.set_status(Status.CONNECTING)
        await stage.until_shown("● connecting")
        assert "\n cannot connect: connection refused\n" in stage.text, "the reason stays"
        stage.wallet.set_status(Status.OFFLINE, "cannot connect: connection refused", 20.0)
        await stage.until_shown("next try in 20 s")
        told = [line for line in stage.app.event_log.plain_lines if "offline" in line]
        assert len(told) == 1, "each reason is told once"
        stage.wallet.set_status(Status.SYNCED)
        await stage.until_shown("● synced")
        assert "\n cannot connect" not in stage.text


async def test_devices_come_go_and_apply_what_was_pushed() -> None:
    async with open_stage() as stage:
        stage.wallet.sequence = 3
        stage.wallet.tell(DeviceUpdated(make_device(OTHER_ID, "phone", online=False)))
        await stage.until_told("phone went")
        await stage.until_shown("○ phone   1 2 behind  just now")
        stage.wallet.tell(DeviceUpdated(make_device("new", "tablet", applied_sequence=0)))
        await stage.until_shown("● tablet  nothing yet")
        stage.wallet.tell(DeviceUpdated(make_device("new", "tablet", applied_sequence=3)))
        await stage.until_told("tablet has sequence 3")
        await stage.until_shown("● tablet  ✓ 3")


async def test_a_wallet_that_the_server_refuses_and_a_restored_server_are_told() -> None:
    async with open_stage() as stage:
        stage.wallet.tell(PushRefused(WalletTooLarge()))
        stage.wallet.tell(Restored("new epoch"))

        await stage.until_told("not taken by the server: the wallet is too large")
        await stage.until_notified("the wallet is too large")
        await stage.until_told("the server was restored from a backup")


# What the keys do.


async def test_e_edits_the_selected_value_which_goes_out_at_once() -> None:
    async with open_stage(WALLET) as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter('"Ann"')
        await stage.press("enter")

        await stage.until_called("sync")
        assert json.loads(stage.wallet.value or b"") == json.loads(WALLET) | {"owner": "Ann"}
        await stage.until_shown('owner: "Ann"')
        await stage.until_told("sequence 2 is on the server")
        await stage.until_told("you changed owner")
        assert stage.app.wallet_tree.glowing == {("owner",)}


async def test_enter_edits_a_value_and_folds_a_container() -> None:
    async with open_stage(WALLET) as stage:
        await stage.press("down", "down", "enter")
        await stage.until_shown("accounts: [2] {…}, {…}")
        await stage.press("enter")
        await stage.until_shown("balance: 20")
        await stage.press("up", "enter")
        await stage.until_asked(ValueDialog)


async def test_what_is_no_json_cannot_be_saved() -> None:
    async with open_stage(WALLET) as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter("Ann")
        await stage.until_shown("no JSON: Expecting value")
        await stage.press("enter")
        await stage.until_asked(ValueDialog)
        await stage.enter("12.50")
        await stage.until_shown("a number")
        await stage.press("escape")
        await stage.until(lambda: len(stage.app.screen_stack) == 1)
        assert stage.wallet.changes == []


async def test_a_container_is_edited_on_lines() -> None:
    async with open_stage(b'{"list":[1,2]}') as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        await stage.until_shown("a list of 2")
        await stage.enter("[3]")
        await stage.press("ctrl+s")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"list":[3]}'


async def test_a_adds_a_member_whose_name_is_not_taken() -> None:
    async with open_stage(b'{"a":1}') as stage:
        await stage.press("a")
        await stage.until_asked(ValueDialog)
        await stage.enter("a")
        await stage.until_shown("there is a member a already")
        await stage.enter("b")
        await stage.press("enter")
        await stage.enter("true")
        await stage.until_shown("true or false")
        await stage.press("enter")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"a":1,"b":true}'


@pytest.mark.parametrize(("downs", "value"), [(1, b"[1,2,9]"), (2, b"[1,9,2]")])
async def test_a_adds_an_entry_to_the_selected_list_or_after_the_selected_entry(
    downs: int, value: bytes
) -> None:
    async with open_stage(b'{"list":[1,2]}') as stage:
        await stage.press(*["down"] * downs, "a")
        await stage.until_asked(ValueDialog)
        await stage.enter("9")
        await stage.press("enter")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"list":' + value + b"}"


async def test_a_begins_a_wallet() -> None:
    async with open_stage(None) as stage:
        await stage.press("a")
        await stage.until_asked(ValueDialog)
        await stage.enter("coffee")
        await stage.press("enter")
        await stage.enter("2")
        await stage.press("enter")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"coffee":2}'


async def test_d_deletes_once_it_is_confirmed() -> None:
    async with open_stage(WALLET) as stage:
        await stage.press("down", "down", "d")
        await stage.until_asked(QuestionDialog)
        await stage.until_shown("Delete accounts?")
        await stage.press("enter")  # what has the focus is No
        await stage.until(lambda: len(stage.app.screen_stack) == 1)
        assert stage.wallet.changes == []

        await stage.press("d")
        await stage.until_asked(QuestionDialog)
        await stage.press("y")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"owner":"Joe"}'


async def test_what_another_device_changed_meanwhile_is_not_deleted() -> None:
    async with open_stage(b'{"a":1}') as stage:
        await stage.press("down", "d")
        await stage.until_asked(QuestionDialog)
        stage.wallet.arrive(b'{"a":500}')
        await stage.press("y")
        await stage.until_notified("It was changed on another device meanwhile")
        assert stage.wallet.value == b'{"a":500}'


async def test_what_cannot_be_written_or_kept_is_not_changed() -> None:
    deepest = b"[" * 100 + b"1" + b"]" * 100
    async with open_stage(deepest) as stage:
        await stage.press("end", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter("[1]")
        await stage.press("enter")
        await stage.until_notified("Not changed: cannot merge: the merged wallet is no JSON")

        stage.wallet.refusal = OSError(errno.ENOSPC, "no space \x1b[2J left")
        await stage.press("e")
        await stage.until_asked(ValueDialog)
        await stage.press("enter")
        await stage.until_notified(r"no space \u001b[2J left")
        assert stage.wallet.value == deepest


async def test_a_click_selects_the_row_under_it() -> None:
    async with open_stage(WALLET) as stage:
        (y,) = (y for y, line in enumerate(stage.text.split("\n")) if "owner" in line)
        await stage.pilot.click(offset=(10, y))
        assert stage.app.wallet_tree.selected == ("owner",)
        await stage.pilot.click(offset=(10, y))
        await stage.until_asked(ValueDialog)


async def test_lines_of_a_text_are_edited_added_and_deleted() -> None:
    async with open_stage(b"one\ntwo\n") as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter("1")
        await stage.press("enter")
        await stage.until(lambda: stage.wallet.value == b"1\ntwo\n")
        await stage.press("a")
        await stage.until_asked(ValueDialog)
        await stage.enter("1.5")
        await stage.press("enter")
        await stage.until(lambda: stage.wallet.value == b"1\n1.5\ntwo\n")
        await stage.press("d")
        await stage.until_asked(QuestionDialog)
        await stage.until_shown("Delete line 1?")
        await stage.press("y")
        await stage.until(lambda: stage.wallet.value == b"1.5\ntwo\n")


async def test_a_binary_wallet_is_not_edited() -> None:
    async with open_stage(b"\x00\x01") as stage:
        await stage.press("e", "a", "d", "down", "enter", "d")
        await stage.pause()
        assert len(stage.app.screen_stack) == 1


async def test_an_edit_finds_its_value_where_another_device_has_moved_it() -> None:
    async with open_stage(b'["a","b"]') as stage:
        await stage.press("down", "down", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter('"B"')
        stage.wallet.arrive(b'["new","a","b"]')
        await stage.press("enter")
        await stage.until_called("change")
        assert stage.wallet.value == b'["new","a","B"]'


async def test_an_edit_of_what_another_device_changed_meanwhile_asks_once_more() -> None:
    async with open_stage(b'{"a":1}') as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        await stage.enter("2")
        stage.wallet.arrive(b'{"a":5}')
        await stage.press("enter")
        await stage.until_shown("Changed on another device meanwhile, to 5")
        assert stage.wallet.value == b'{"a":5}'
        await stage.press("enter")
        await stage.until_called("change")
        assert stage.wallet.value == b'{"a":2}'


async def test_an_edit_of_what_another_device_removed_changes_nothing() -> None:
    async with open_stage(b'{"a":1,"b":2}') as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        stage.wallet.arrive(b'{"b":2}')
        await stage.press("enter")
        await stage.until_notified("removed on another device")
        assert stage.wallet.value == b'{"b":2}'


async def test_a_member_that_another_device_has_added_meanwhile_is_not_overwritten() -> None:
    async with open_stage(b"{}") as stage:
        await stage.press("a")
        await stage.until_asked(ValueDialog)
        await stage.enter("a")
        await stage.press("enter")
        await stage.enter("1")
        stage.wallet.arrive(b'{"a":5}')
        await stage.press("enter")
        await stage.until_shown("Another device has added a member of that name")
        assert stage.wallet.value == b'{"a":5}'


async def test_p_pushes_and_l_pulls() -> None:
    async with open_stage() as stage:
        await stage.press("p")
        await stage.until_called("sync")
        await stage.until_shown("Everything is on the server.")
        await stage.press("l")
        await stage.until_called("pull")
        await stage.until_shown("What the server has is here.")


async def test_a_push_without_a_server_says_that_it_goes_on_by_itself() -> None:
    async with open_stage() as stage:
        stage.wallet.set_status(Status.OFFLINE, "connection refused", 5.0)
        await stage.press("p")
        await stage.until_shown("Not yet: it goes on by itself")


async def test_t_turns_dark_into_light_and_back() -> None:
    async with open_stage() as stage:
        assert stage.app.theme == DARK.name
        await stage.press("t")
        assert stage.app.theme == LIGHT.name
        await stage.press("t")
        assert stage.app.theme == DARK.name


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_q_ends_it(key: str) -> None:
    async with open_stage() as stage:
        await stage.press(key)
        await stage.until(lambda: stage.app._exit)


async def test_the_tasks_of_the_wallet_begin_as_they_did_without_it() -> None:
    loop = asyncio.get_running_loop()

    def begin_at_once(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop)

    app = LiveApp(FakeWallet().as_real)
    loop.set_task_factory(begin_at_once)
    async with app.run_test():
        assert loop.get_task_factory() is None


# What is asked.


async def test_a_refused_state_is_believed_only_if_that_is_wanted() -> None:
    async with open_stage() as stage:
        stage.wallet.stop(WENT_BACK)
        await stage.until_asked(QuestionDialog)
        await stage.until_shown("The server was not believed: refused state 39")
        await stage.press("n")
        await stage.until_shown("● stopped")
        assert "sequence 41 was there already" in stage.text
        assert stage.wallet.changes == []

        await stage.until_shown("r Go on")
        await stage.press("r")
        await stage.until_asked(QuestionDialog)
        await stage.press("y")
        await stage.until_called("recover")
        await stage.until_shown("● synced")
        assert "r Go on" not in stage.text


async def test_a_wallet_that_had_stopped_before_it_was_shown_asks_too() -> None:
    def stop(wallet: FakeWallet) -> None:
        wallet.stopped, wallet.status = WENT_BACK, Status.STOPPED

    async with open_stage(prepare=stop) as stage:
        await stage.until_asked(QuestionDialog)


async def test_after_any_other_stop_r_tries_again() -> None:
    async with open_stage() as stage:
        stage.wallet.stop(BadCredentials("the root password of the account is another"))
        await stage.until_told("stopped: the root password of the account is another")
        await stage.press("r")
        await stage.until_called("recover")


async def test_a_stopped_sync_is_told_to_who_pushes() -> None:
    async with open_stage() as stage:
        stage.wallet.stop(SessionEnded("device_revoked"))
        await stage.until_shown("● stopped")
        await stage.press("p")
        await stage.until_notified("this device was revoked")


async def test_the_new_root_password_is_asked_for_and_never_shown() -> None:
    async with open_stage() as stage:
        asking = stage.begin(stage.wallet.need_password())
        await stage.until_asked(PasswordDialog)
        await stage.until_shown("The root password was changed on another device")
        await stage.press("enter")  # empty: nothing is given
        await stage.press(*"hunter2")
        assert "hunter2" not in stage.text
        await stage.press("enter")
        assert await asking == "hunter2"


async def test_a_password_that_is_not_given_stops_the_sync() -> None:
    async with open_stage() as stage:
        asking = stage.begin(stage.wallet.need_password())
        await stage.until_asked(PasswordDialog)
        await stage.press("escape")
        assert await asking is None


async def test_a_question_waits_until_what_is_being_typed_is_done() -> None:
    async with open_stage() as stage:
        await stage.press("down", "e")
        await stage.until_asked(ValueDialog)
        asking = stage.begin(stage.wallet.need_password())
        await stage.until_asked(ValueDialog)
        await stage.enter("7")
        await stage.press("enter")
        await stage.until_asked(PasswordDialog)
        await stage.press("x", "enter")
        assert await asking == "x"
        assert stage.wallet.value == b'{"a":7}'


async def test_a_question_that_is_withdrawn_goes_from_the_screen() -> None:
    async with open_stage() as stage:
        asking = stage.begin(stage.wallet.need_password())
        await stage.until_asked(PasswordDialog)
        asking.cancel()
        await stage.until(lambda: len(stage.app.screen_stack) == 1)


async def test_who_leaves_has_answered_nothing() -> None:
    async with open_stage() as stage:
        asking = stage.begin(stage.wallet.need_password())
        await stage.until_asked(PasswordDialog)
    assert await asking is None


# Merging by hand.


CONFLICT = (b'{"a":1,"b":1,"c":1}', b'{"a":2,"b":2,"c":1}', b'{"a":3,"b":3,"c":9}')


async def open_conflict(stage: Stage) -> asyncio.Task[bytes]:
    await stage.press("m")
    await stage.until_shown("merging by hand")
    merging = stage.begin(stage.wallet.conflict(*CONFLICT))
    await stage.until_asked(MergeDialog)
    return merging


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_conflicts_are_merged_by_hand_one_after_the_other(size: tuple[int, int]) -> None:
    async with open_stage(CONFLICT[1], size=size) as stage:
        merging = await open_conflict(stage)
        await stage.until_shown("1 of 2  a")
        for title in ("before", "mine, here", "theirs, elsewhere"):
            assert title in stage.text
        await stage.press("right", "enter")
        await stage.until_shown("2 of 2  b")
        await stage.press("left", "enter")

        assert await merging == b'{"a":3,"b":1,"c":9}'
        await stage.until_told("merged with sequence 2")
        await stage.until_shown("a: 3")


async def test_one_can_go_back_and_choose_otherwise() -> None:
    async with open_stage(CONFLICT[1]) as stage:
        merging = await open_conflict(stage)
        await stage.press("enter", "up", "right", "enter", "enter")
        assert await merging == b'{"a":3,"b":2,"c":9}'


async def test_a_side_is_chosen_with_the_mouse() -> None:
    async with open_stage(CONFLICT[1]) as stage:
        merging = await open_conflict(stage)
        await stage.pilot.click("#theirs")
        await stage.press("enter", "enter")
        assert await merging == b'{"a":3,"b":2,"c":9}'


async def test_escape_leaves_a_conflict_to_the_merge_of_the_wallet() -> None:
    async with open_stage(CONFLICT[1]) as stage:
        merging = await open_conflict(stage)
        await stage.press("escape")
        assert await merging == CONFLICT[1]


async def test_a_base_that_is_not_shared_cannot_be_chosen() -> None:
    async with open_stage(CONFLICT[1]) as stage:
        await stage.press("m")
        merging = stage.begin(stage.wallet.conflict(None, *CONFLICT[1:]))
        await stage.until_asked(MergeDialog)
        await stage.until_shown("(nothing that both share)")
        await stage.pilot.click("#base")
        await stage.press("left", "left", *["enter"] * 3)
        assert await merging == b'{"a":2,"b":2,"c":1}'


async def test_without_the_mode_the_merge_of_the_wallet_decides() -> None:
    async with open_stage(CONFLICT[1]) as stage:
        await stage.press("m", "m")
        assert await stage.wallet.conflict(*CONFLICT) == CONFLICT[1]


async def test_the_own_id_is_never_taken_for_another_device() -> None:
    async with open_stage() as stage:
        stage.wallet.arrive(b'{"a":2}', OWN_ID)
        await stage.until_told("you changed a")
