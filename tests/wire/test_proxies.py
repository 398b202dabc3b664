"""Whom a connection is for: the address that an application sees."""

from __future__ import annotations

import pytest

from tests.wire.harness import serving


async def find_address(*fields: str, trusted_proxies: list[str]) -> str:
    async with serving(trusted_proxies=trusted_proxies) as server:
        await server.open(*fields)
        return server.connection.remote_address


async def test_behind_a_trusted_proxy_the_address_is_the_clients() -> None:
    assert (
        await find_address("X-Forwarded-For: 203.0.113.9", trusted_proxies=["127.0.0.0/8"])
        == "203.0.113.9"
    )


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]], ids=["nobody", "others"])
async def test_what_anybody_else_forwards_counts_for_nothing(trusted: list[str]) -> None:
    assert (
        await find_address("X-Forwarded-For: 203.0.113.9", trusted_proxies=trusted) == "127.0.0.1"
    )


async def test_what_a_client_wrote_before_the_proxy_counts_for_nothing() -> None:
    for fields in (
        ["X-Forwarded-For: 1.2.3.4, 203.0.113.9"],
        ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 203.0.113.9"],
        ["X-Forwarded-For: 127.0.0.1, 203.0.113.9"],
    ):
        assert await find_address(*fields, trusted_proxies=["127.0.0.1"]) == "203.0.113.9"


@pytest.mark.parametrize("fields", [[], ["X-Forwarded-For: nonsense"]], ids=["none", "nonsense"])
async def test_a_proxy_that_tells_nobody_is_taken_for_the_client(fields: list[str]) -> None:
    assert await find_address(*fields, trusted_proxies=["127.0.0.1"]) == "127.0.0.1"
