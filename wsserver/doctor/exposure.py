"""What the network can reach: who may register, the admin port, plain text, and whom to believe."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Final

from wsserver.config import Settings
from wsserver.doctor.findings import Finding, fail, ok, warn

WIDEST_PREFIXES: Final = {4: 8, 6: 32}
"""Nobody's proxies fill more than that of either kind of address."""


def check_exposure(settings: Settings) -> Iterator[Finding]:
    """All that strangers might reach."""
    yield _check_registration(settings)
    yield _check_admin_port(settings)
    yield _check_plain_text(settings)
    yield _check_proxies(settings)
    if settings.rate_limits == "off":
        yield (warn if reaches_loopback_only(settings.host) else fail)(
            "limits",
            "the limits that hold crowds off are lifted (rate_limits=off)",
            "leave that to load tests: take WSSERVER_RATE_LIMITS away",
        )


def reaches_loopback_only(host: str) -> bool:
    """Whether nobody but this machine reaches what listens on that host."""
    return all(address.is_loopback for address in _find_addresses(host))


def _check_registration(settings: Settings) -> Finding:
    text = f"{settings.verification}, on {settings.host}"
    if settings.verification != "open":
        return ok("registration", text)
    advice = "this mode is for development: WSSERVER_VERIFICATION=allowlist, or email"
    if not reaches_loopback_only(settings.host):
        return fail("registration", f"{text}: whoever reaches it may register", advice)
    if settings.trusted_proxies or settings.public_url:
        return warn("registration", f"{text}: whoever reaches the proxy may register", advice)
    return ok("registration", f"{text}: programs of this machine alone may register")


def _check_admin_port(settings: Settings) -> Finding:
    if not settings.admin_port:
        return warn(
            "admin port",
            "it is off: nothing can tell whether the server is well",
            "set WSSERVER_ADMIN_PORT=8091; it listens on loopback",
        )
    addresses = _find_addresses(settings.admin_host)
    text = f"on {settings.admin_host} port {settings.admin_port}"
    advice = "bind it to loopback or a private address: WSSERVER_ADMIN_HOST=127.0.0.1"
    if any(address.is_global for address in addresses):
        return fail("admin port", f"{text}: the whole internet may read its figures", advice)
    if any(address.is_unspecified for address in addresses):
        advice += "; in a container or behind a firewall that keeps strangers off, this may stay"
        return warn("admin port", f"{text}: every address of this machine has it", advice)
    return ok("admin port", text)


def _check_plain_text(settings: Settings) -> Finding:
    if settings.tls_cert is not None:
        return ok("encryption", "TLS, by the server itself")
    if reaches_loopback_only(settings.host):
        return ok("encryption", "plain text, on loopback alone")
    if settings.trusted_proxies:
        return ok("encryption", "plain text behind a proxy; TLS is the proxy's")
    return warn(
        "encryption",
        f"plain text on {settings.host}: whoever is on the way reads passwords of logins",
        "set WSSERVER_TLS_CERT and WSSERVER_TLS_KEY, or put a proxy before it and name that in "
        "WSSERVER_TRUSTED_PROXIES; clients refuse ws:// to other machines",
    )


def _check_proxies(settings: Settings) -> Finding:
    trusted = settings.trusted_proxies
    for network in trusted:
        if network.prefixlen < WIDEST_PREFIXES[network.version]:
            return fail(
                "proxies",
                f"trusted_proxies has {network}: strangers in it may call themselves anybody",
                "name the addresses that your proxies connect from, and nothing else",
            )
    if trusted:
        shown = ", ".join(map(str, trusted))
        return ok("proxies", f"X-Forwarded-For counts where it comes from {shown}")
    secure_elsewhere = (settings.public_url or "").startswith("https:") and not settings.tls_cert
    if secure_elsewhere:
        return warn(
            "proxies",
            "the public URL is https, TLS is not the server's, and no proxy is trusted: all "
            "clients would share the limits of one",
            "set WSSERVER_TRUSTED_PROXIES to the address that the proxy connects from",
        )
    return ok("proxies", "none is trusted: whoever connects is the client")


def _find_addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(host or "0.0.0.0")]  # noqa: S104  # it means that
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
