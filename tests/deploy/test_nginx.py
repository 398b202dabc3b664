"""Nodes behind a real nginx with the project's configuration, over TLS."""

from __future__ import annotations

import ssl
import sys
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.certificates import Authority
from tests.deploy.conftest import MakeNginx
from tests.e2e.conftest import MakeProcess
from tests.e2e.rawclient import RawClient, open_client, open_socket
from tests.servers.nginx import Nginx
from wsserver.config import Settings

EMAIL = "joe@example.com"


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


async def open_from(nginx: Nginx, trust: ssl.SSLContext, address: str, **options: Any) -> RawClient:
    """A client whose connection comes from that address of this machine."""
    return RawClient(await open_socket(nginx.url, ssl=trust, local_addr=(address, 0), **options))


def test_nginx_takes_the_configuration(make_nginx: MakeNginx) -> None:
    assert make_nginx([8090, 8190]).check() == ""


def test_an_idle_device_is_pinged_before_nginx_gives_it_up(make_nginx: MakeNginx) -> None:
    text = (make_nginx([8090]).folder / "nginx.conf").read_text()
    fields = Settings.model_fields

    assert fields["ping_interval_s"].default + fields["pong_timeout_s"].default < 90
    assert text.count(" 90s;") == 2


async def test_a_wallet_of_the_largest_size_passes_and_is_heard_of(
    make_process: MakeProcess, make_nginx: MakeNginx, trust: ssl.SSLContext
) -> None:
    node = make_process()
    await node.start()
    nginx = make_nginx([node.port])
    nginx.start()

    async with (
        open_client(nginx.url, ssl=trust) as laptop,
        open_client(nginx.url, ssl=trust) as phone,
    ):
        await laptop.register(EMAIL)
        await laptop.login(EMAIL, "laptop")
        await phone.login(EMAIL, "phone")
        await laptop.push(1, "x" * 250_000)
        await phone.hear_sequence(1)
        assert (await phone.call("wallet.get"))["encryptedWallet"] == "x" * 250_000


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux")
async def test_limits_count_the_client_whatever_it_says_of_itself(
    make_process: MakeProcess, make_nginx: MakeNginx, trust: ssl.SSLContext
) -> None:
    node = make_process(rate_limits="on", anonymous_by_address_max=2, trusted_proxies="127.0.0.1")
    await node.start()
    nginx = make_nginx([node.port])
    nginx.start()

    held = [await open_from(nginx, trust, "127.0.1.1") for _ in range(2)]
    for client in held:
        await client.call("server.ping")
    forged = {"X-Forwarded-For": "203.0.113.9"}
    forger = await open_from(nginx, trust, "127.0.1.1", additional_headers=forged)
    assert await forger.closed() == 4429
    other = await open_from(nginx, trust, "127.0.1.2")
    await other.call("server.ping")
    for client in (*held, other):
        await client.close()


async def test_the_secret_of_a_mails_link_is_not_logged(
    make_process: MakeProcess, make_nginx: MakeNginx, trust: ssl.SSLContext
) -> None:
    node = make_process()
    await node.start()
    nginx = make_nginx([node.port])
    nginx.start()

    for path in ("/verify?token=hidden", "/elsewhere?token=hidden"):
        with pytest.raises(InvalidStatus):
            await open_socket(nginx.url.replace("/v1", path), ssl=trust)
    node.end()
    for path in ("/verify?token=hidden", "/elsewhere"):
        with pytest.raises(InvalidStatus, match="502"):
            await open_socket(nginx.url.replace("/v1", path), ssl=trust)
    nginx.stop()

    logged = nginx.access_log.read_text()
    assert "/elsewhere" in logged
    assert "hidden" not in logged + (nginx.folder / "error.log").read_text()
