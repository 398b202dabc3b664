"""Who is behind a proxy: the address that limits count, out of ``X-Forwarded-For``. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def find_client(peer: str, forwarded_for: Iterable[str], trusted: Sequence[Network]) -> str:
    """The address of the client that the connection from ``peer`` is for.

    ``forwarded_for``: the values of the header, in their order; each hop appends whom it was asked
    by. Only what trusted hops wrote counts: from the right, the first address that is not itself a
    trusted proxy's. Whatever a client wrote there stands further left and is never reached.
    """
    client = peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    while hops and is_trusted(client, trusted):
        hop = hops.pop()
        try:
            client = str(ipaddress.ip_address(hop))
        except ValueError:
            break
    return client


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Whether the address is one of the trusted proxies'."""
    if not trusted:
        return False
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted)
