"""Which pages may open the WebSocket."""

from typing import Any

import pytest
from websockets.datastructures import Headers

from wsserver.config import Settings
from wsserver.http import PublicPages
from wsserver.server import find_allowed_origins, find_origin
from wsserver.transport import Request

APP = "https://app.example.com"


def make_settings(**given: Any) -> Settings:
    return Settings(**given)


def find_status(*origins: str, allowed: list[str] | None, path: str = "/v1") -> int | None:
    """The status that refuses; None where it goes on to the WebSocket."""
    headers = Headers([("Origin", origin) for origin in origins])
    pages = PublicPages(sends_mail=True, allowed_origins=allowed)
    response = pages.answer(Request(path, headers))
    return None if response is None else response.status_code


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://sub.app.example.com",
        "https://APP.example.com",
        "null",
        "",
    ],
)
def test_an_origin_that_is_not_allowed_to_the_letter_is_403(origin: str) -> None:
    assert find_status(origin, allowed=[APP]) == 403


def test_an_allowed_origin_and_an_app_go_on() -> None:
    assert find_status(APP, allowed=["https://other.example", APP]) is None
    assert find_status(allowed=[APP]) is None


def test_every_origin_that_is_named_must_be_allowed() -> None:
    assert find_status(APP, "https://evil.example", allowed=[APP]) == 403
    assert find_status("https://evil.example", APP, allowed=[APP]) == 403


def test_unless_told_otherwise_every_page_may_connect() -> None:
    assert find_allowed_origins(make_settings()) is None
    assert find_status("https://evil.example", allowed=None) is None


def test_pages_are_there_for_every_origin() -> None:
    assert find_status("https://evil.example", allowed=[APP], path="/verify?token=0") == 400
    assert find_status("https://evil.example", allowed=[APP], path="/else") == 404


def test_the_servers_own_pages_may_always_connect() -> None:
    settings = make_settings(allowed_origins=(APP,), public_url="https://sync.example.com/wallets")

    assert find_allowed_origins(settings) == frozenset({APP, "https://sync.example.com"})


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://sync.example.com", "https://sync.example.com"),
        ("https://Sync.Example.com:443/a/b", "https://sync.example.com"),
        ("http://localhost:8090/", "http://localhost:8090"),
        ("http://localhost:80", "http://localhost"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_the_origin_of_a_url_is_what_a_browser_says(url: str, origin: str) -> None:
    assert find_origin(url) == origin
