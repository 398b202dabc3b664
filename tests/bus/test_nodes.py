"""What nodes tell each other, on every transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.bus.buses import Carrier, until
from tests.bus.nodes import Database, Ear, Node, meet
from wsschema.messages import SealedWallet


class Cluster:
    """Nodes on one database and one bus."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.database = Database()
        self.nodes: list[Node] = []

    async def start(self, count: int = 1) -> list[Node]:
        started = [Node(self.database, self.carrier.make()) for _ in range(count)]
        for node in started:
            await node.bus.open()
        self.nodes += started
        await meet(*self.nodes)
        return started

    async def stop(self, node: Node, *, farewell: bool = True) -> None:
        self.nodes.remove(node)
        if farewell:
            await node.bus.close()
        else:
            await kill(node)


async def kill(node: Node) -> None:
    """It says nothing any more, not that it ends either."""
    assert node.bus._tick is not None
    node.bus._tick.cancel()
    node.bus._tick = None
    await node.bus.close()


@pytest.fixture
async def cluster(carrier: Carrier) -> AsyncIterator[Cluster]:
    cluster = Cluster(carrier)
    yield cluster
    for node in [*cluster.nodes]:
        await cluster.stop(node)


@pytest.fixture
async def outside_cluster(outside_carrier: Carrier) -> AsyncIterator[Cluster]:
    cluster = Cluster(outside_carrier)
    yield cluster
    for node in [*cluster.nodes]:
        await cluster.stop(node)


async def test_a_push_at_one_node_is_heard_at_all_by_everyone_but_its_author(
    cluster: Cluster,
) -> None:
    one, two, three = await cluster.start(3)
    account_id = cluster.database.register()
    author, beside = one.log_in(account_id, "phone"), one.log_in(account_id, "laptop")
    others = [two.log_in(account_id, "tablet"), three.log_in(account_id, "desk")]
    for sequence in (1, 2, 3):
        assert author.push() == sequence
        await until(lambda: all(ear.known_sequence == sequence for ear in (beside, *others)))  # noqa: B023
    assert author.told == []


async def test_many_pushes_of_many_accounts_are_all_heard(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    pairs: list[tuple[Ear, Ear]] = []
    for _ in range(40):
        account_id = cluster.database.register()
        pairs.append((one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")))
    for _ in range(10):
        for phone, laptop in pairs:
            phone.push()
            laptop.push()
    await until(
        lambda: all(phone.known_sequence == 20 == ear.known_sequence for phone, ear in pairs)
    )
    assert all(ear.told == sorted(set(ear.told)) for pair in pairs for ear in pair)


@pytest.mark.parametrize(
    ("bring_about", "reason"),
    [
        (lambda phone: phone.change_password(), "password_changed"),
        (lambda phone: phone.revoke("laptop"), "device_revoked"),
        (lambda phone: phone.delete_account(), "account_deleted"),
        (lambda phone: phone.node.log_in(phone.account_id, "laptop"), "replaced"),
    ],
    ids=["password changed", "device revoked", "account deleted", "replaced"],
)
async def test_a_session_whose_token_has_ended_is_over_at_every_node(
    cluster: Cluster, bring_about: object, reason: str
) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    assert callable(bring_about)
    await two.rest()
    bring_about(phone)
    await until(lambda: laptop.reasons != [], "the end of the session")
    assert laptop.reasons == [reason]


async def test_whose_token_lives_goes_on(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    tablet = one.log_in(account_id, "tablet")
    tablet.log_out()
    phone.push()
    await until(lambda: laptop.told == [1])
    assert (laptop.reasons, phone.reasons, tablet.reasons) == ([], [], ["logged_out"])


async def test_who_has_been_left_behind_hears_of_no_state_that_it_has_no_key_for(
    cluster: Cluster,
) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    phone.push()
    await until(lambda: laptop.told == [1])
    one.mute = True  # What it tells is lost.
    phone.change_password(SealedWallet(2, "sealed anew", "h"))
    again = two.log_in(account_id, "phone")
    again.push()
    await until(lambda: laptop.reasons != [])
    assert laptop.told == [1]


async def test_devices_of_all_nodes_are_online(cluster: Cluster) -> None:
    one, two, three = await cluster.start(3)
    account_id = cluster.database.register()
    one.log_in(account_id, "phone")
    two.log_in(account_id, "laptop")
    for node in (one, two, three):
        assert await node.find_online(account_id) == {"phone", "laptop"}
    assert await one.find_online(cluster.database.register()) == frozenset()


async def test_who_asked_for_it_hears_of_devices_that_come_acknowledge_and_go_elsewhere(
    cluster: Cluster,
) -> None:
    one, two, three = await cluster.start(3)
    account_id = cluster.database.register()
    ear = one.log_in(account_id, "phone", presence=True)
    deaf = one.log_in(account_id, "desk")
    await until(lambda: bool(ear.devices))
    ear.devices.clear()

    laptop = two.log_in(account_id, "laptop")
    await until(lambda: [(it.device_id, it.online) for it in ear.devices] == [("laptop", True)])
    twin = three.log_in(account_id, "laptop")
    await until(lambda: laptop.reasons == ["replaced"])
    laptop.leave()
    ear.push()
    await until(lambda: twin.told == [1])
    twin.acknowledge(1)
    await until(lambda: ear.devices[-1].applied_sequence == 1)
    assert all(it.online for it in ear.devices)
    twin.leave()
    await until(lambda: not ear.devices[-1].online)
    assert deaf.devices == []


async def test_a_device_that_is_removed_elsewhere_is_told_to_be_offline(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    ear = one.log_in(account_id, "phone", presence=True)
    laptop = two.log_in(account_id, "laptop")
    await until(lambda: bool(ear.devices))
    ear.revoke("laptop")
    await until(lambda: laptop.reasons == ["device_revoked"])
    laptop.leave()
    await until(lambda: not ear.devices[-1].online)


async def test_the_devices_of_a_node_that_ends_or_dies_are_offline(cluster: Cluster) -> None:
    one, two, three = await cluster.start(3)
    account_id = cluster.database.register()
    ear = one.log_in(account_id, "phone", presence=True)
    two.log_in(account_id, "laptop")
    three.log_in(account_id, "tablet")
    await until(lambda: {it.device_id for it in ear.devices} == {"laptop", "tablet"})
    await cluster.stop(two)
    await until(lambda: [it.online for it in ear.devices if it.device_id == "laptop"][-1] is False)
    assert ear.devices[-1].device_id == "laptop"
    await cluster.stop(three, farewell=False)
    await until(lambda: [it.online for it in ear.devices if it.device_id == "tablet"][-1] is False)
    assert await one.find_online(account_id) == {"phone"}


async def test_what_a_node_committed_before_it_died_is_not_missed(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    account_id, other_id = cluster.database.register(), cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    away, here = one.log_in(other_id, "phone"), two.log_in(other_id, "laptop")
    await until(lambda: not two.bus._looking.waiting)
    one.mute = True
    phone.push()
    away.change_password()
    await cluster.stop(one, farewell=False)
    await until(lambda: laptop.told == [1])
    await until(lambda: here.reasons == ["expired"])
    assert two.bus.gaps > 0


async def test_while_the_database_fails_it_is_asked_again_and_again(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    ear = two.log_in(account_id, "desk", presence=True)
    await until(lambda: bool(ear.devices))
    cluster.database.fails = True
    phone.push()
    asked = len(two.asked)
    await until(lambda: len(two.asked) > asked + 3)
    assert laptop.told == []
    cluster.database.fails = False
    await until(lambda: laptop.told == [1])


async def test_a_node_alone_says_nothing_and_asks_nothing(cluster: Cluster) -> None:
    (one,) = await cluster.start()
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), one.log_in(account_id, "laptop")
    for _ in range(5):
        phone.push()
    await until(lambda: laptop.told == [1, 2, 3, 4, 5])
    assert await one.find_online(account_id) == {"phone", "laptop"}
    assert (one.asked, one.bus.messages["sent"]) == ([], 0)


async def test_a_node_that_comes_later_knows_what_was_before(cluster: Cluster) -> None:
    (one,) = await cluster.start()
    account_id = cluster.database.register()
    one.log_in(account_id, "phone")
    (two,) = await cluster.start()
    ear = two.log_in(account_id, "laptop", presence=True)
    await until(lambda: [it.device_id for it in ear.devices] == ["phone"])
    assert await two.find_online(account_id) == {"phone", "laptop"}


async def test_nothing_is_missed_while_the_bus_is_cut_off(outside_cluster: Cluster) -> None:
    cluster, server = outside_cluster, outside_cluster.carrier.server
    assert server is not None
    one, two = await cluster.start(2)
    account_id, other_id = cluster.database.register(), cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    away, here = one.log_in(other_id, "phone"), two.log_in(other_id, "laptop")
    server.freeze()
    try:
        await until(lambda: not two.bus.connected)
        phone.push()
        away.change_password()
        await until(lambda: laptop.told == [1])
        await until(lambda: here.reasons != [])
    finally:
        server.thaw()
    await meet(one, two)
    await until(lambda: one.bus.connected and two.bus.connected)
    laptop.push()
    await until(lambda: phone.told == [2])


async def test_a_message_that_is_not_understood_is_a_gap(cluster: Cluster) -> None:
    one, two = await cluster.start(2)
    account_id = cluster.database.register()
    phone, laptop = one.log_in(account_id, "phone"), two.log_in(account_id, "laptop")
    await until(lambda: not two.bus._missed)
    one.mute = True
    phone.push()
    one.transport.send('{"v":2,"n":"newer","i":1,"e":[]}')
    await until(lambda: laptop.told == [1])
    phone.push()
    one.transport.send('{"v":1,"n":"newer","i":1,"e":[["of tomorrow",1]]}')
    await until(lambda: laptop.told == [1, 2])
