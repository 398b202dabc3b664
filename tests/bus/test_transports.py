"""What every transport does, in process and on the real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bus.buses import Carrier, End, NatsCarrier, PostgreSQLCarrier, until
from tests.servers.nats import Nats
from tests.servers.nats_credentials import Operator
from tests.servers.postgresql import PostgreSQL
from tests.servers.processes import find_port
from wsserver.bus.messages import PAYLOAD_BYTES_MAX
from wsserver.bus.nats import NatsBus
from wsserver.bus.postgresql import PostgreSQLBus
from wsserver.bus.transports import QUEUE_MESSAGES_MAX, BusError


async def test_every_node_hears_what_is_said_to_all_the_one_that_says_it_too(
    carrier: Carrier,
) -> None:
    ends = [await carrier.open() for _ in range(3)]
    said = [f"message {number}" for number in range(50)]
    for payload in said:
        assert ends[0].transport.send(payload)
    await until(lambda: all(len(end.heard) == 50 for end in ends))
    assert all(end.heard == said for end in ends)


async def test_what_concerns_an_account_comes_to_those_who_follow_it(carrier: Carrier) -> None:
    speaker, follower, other = [await carrier.open() for _ in range(3)]
    await follower.follow(7)
    await other.follow(8)
    speaker.transport.send("of the account", 7)
    await until(lambda: follower.heard == ["of the account"])
    speaker.transport.send("of all")
    await until(lambda: "of all" in other.heard)
    assert ("of the account" in other.heard) is not speaker.transport.by_account


async def test_who_follows_an_account_no_more_hears_no_more_of_it(carrier: Carrier) -> None:
    speaker, follower = [await carrier.open() for _ in range(2)]
    await follower.follow(7)
    follower.transport.unfollow(7)
    await follower.follow(8)  # What is done after it has been done.
    speaker.transport.send("gone", 7)
    speaker.transport.send("last", 8)
    await until(lambda: "last" in follower.heard)
    assert ("gone" in follower.heard) is not speaker.transport.by_account


async def test_the_longest_payload_comes_whole(carrier: Carrier) -> None:
    speaker, hearer = [await carrier.open() for _ in range(2)]
    longest = "x" * PAYLOAD_BYTES_MAX
    assert speaker.transport.send(longest)
    await until(lambda: hearer.heard == [longest])


async def test_what_waits_is_sent_before_it_closes(carrier: Carrier) -> None:
    hearer = await carrier.open()
    speaker = End(carrier.make())
    await speaker.open()
    for number in range(100):
        speaker.transport.send(f"message {number}")
    await speaker.transport.close()
    await until(lambda: len(hearer.heard) == 100)


async def test_a_killed_server_is_found_again_and_told_as_a_loss(outside_carrier: Carrier) -> None:
    carrier = outside_carrier
    assert isinstance(carrier.server, PostgreSQL | Nats)
    ends = [await carrier.open() for _ in range(2)]
    await asyncio.gather(*(end.follow(7) for end in ends))
    assert all(end.transport.connected for end in ends)
    beating = [asyncio.create_task(_beat(end)) for end in ends]
    await asyncio.to_thread(carrier.server.kill)
    await until(lambda: not any(end.transport.connected for end in ends))
    await asyncio.to_thread(carrier.server.start)
    await until(lambda: all(end.transport.connected and end.losses for end in ends))
    for task in beating:
        task.cancel()
    ends[0].transport.send("again", 7)
    await until(lambda: all("again" in end.heard for end in ends))


async def test_a_server_that_is_cut_off_is_given_up_and_found_again(
    outside_carrier: Carrier,
) -> None:
    server = outside_carrier.server
    assert server is not None
    end = await outside_carrier.open()
    server.freeze()
    try:
        beating = asyncio.create_task(_beat(end))
        await until(lambda: not end.transport.connected)
    finally:
        server.thaw()
    await until(lambda: end.transport.connected and end.losses > 0)
    beating.cancel()
    end.transport.send("again")
    await until(lambda: "again" in end.heard)


async def _beat(end: End) -> None:
    while True:
        end.transport.send("heartbeat")
        await asyncio.sleep(0.1)


async def test_the_queue_is_bounded(outside_carrier: Carrier) -> None:
    end = await outside_carrier.open()
    taken = [end.transport.send("more") for _ in range(QUEUE_MESSAGES_MAX + 1)]
    assert taken == [True] * QUEUE_MESSAGES_MAX + [False]


async def test_where_there_is_no_server_it_does_not_open() -> None:
    port = find_port()
    with pytest.raises(BusError, match="PostgreSQL, can't be used"):
        await End(PostgreSQLBus(f"postgresql+psycopg://x:secret@127.0.0.1:{port}/x")).open()
    with pytest.raises(BusError, match="NATS, can't be used"):
        await End(NatsBus(f"nats://x:secret@127.0.0.1:{port}")).open()


async def test_nats_is_told_the_name_and_the_password_that_the_url_has() -> None:
    with Nats(options=["--user", "bus", "--pass", "secret"]) as server:
        carrier = NatsCarrier(server)
        with pytest.raises(BusError):
            await carrier.open()
        carrier.url = f"nats://bus:secret@127.0.0.1:{server.port}"
        end = await carrier.open()
        end.transport.send("let in")
        await until(lambda: end.heard == ["let in"])
        await carrier.close()


async def test_nats_lets_in_who_has_the_credentials_of_a_user(tmp_path: Path) -> None:
    operator, another = Operator(), Operator()
    operator.write_configuration(tmp_path / "nats.conf")
    operator.add_user(tmp_path / "bus.creds")
    another_path = tmp_path / "another.creds"
    another.add_user(another_path)
    with Nats(options=["--config", str(tmp_path / "nats.conf")]) as server:
        for stranger in (NatsBus(server.url), NatsBus(server.url, credentials=another_path)):
            with pytest.raises(BusError, match="Authorization Violation"):
                await End(stranger).open()
        end = End(NatsBus(server.url, credentials=tmp_path / "bus.creds"))
        await end.open()
        end.transport.send("let in")
        await until(lambda: end.heard == ["let in"])
        await end.transport.close()


async def test_nats_is_spoken_to_with_tls(tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, trusted = (tmp_path / name for name in ("chain.pem", "key.pem", "trusted.pem"))
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(trusted))
    for path in (chain, key, trusted):
        path.chmod(0o644)
    with Nats(options=["--tls", "--tlscert", str(chain), "--tlskey", str(key)]) as server:
        url = f"tls://127.0.0.1:{server.port}"
        with pytest.raises(BusError):
            await End(NatsBus(url)).open()
        end = End(NatsBus(url, authorities=trusted))
        await end.open()
        end.transport.send("sealed")
        await until(lambda: end.heard == ["sealed"])
        await end.transport.close()


async def test_with_two_servers_of_nats_one_is_enough(nats_server: Nats) -> None:
    end = End(NatsBus(f"nats://127.0.0.1:{find_port()},{nats_server.url}"))
    await end.open()
    end.transport.send("here")
    await until(lambda: end.heard == ["here"])
    await end.transport.close()


def test_carriers_are_on_databases_of_their_own(postgresql: PostgreSQL) -> None:
    assert PostgreSQLCarrier(postgresql).url != PostgreSQLCarrier(postgresql).url
