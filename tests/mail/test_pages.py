"""The pages as values: what they let in, and the headers that they come with."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import pytest

from tests.mail.secrets import TOKEN
from wsserver.pages import Page, reset_page, verify_page

every_page = pytest.mark.parametrize("render", [verify_page, reset_page])
Render = Callable[[str | None], Page]


def read_policy(page: Page) -> dict[str, str]:
    rules = page.headers["Content-Security-Policy"].split("; ")
    return dict(rule.split(" ", 1) for rule in rules)


def hash_of(tag: str, page: Page) -> str:
    source = re.search(rf"<{tag}>(.*)</{tag}>".encode(), page.body, re.DOTALL)
    assert source is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(source[1]).digest()).decode()}'"


@every_page
def test_a_page_has_its_token_once(render: Render) -> None:
    page = render(TOKEN)

    assert page.status == 200
    assert page.body.count(TOKEN.encode()) == 1
    assert TOKEN not in repr(page)


@every_page
@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        TOKEN[:-1],
        TOKEN + "a",
        TOKEN + "\n",
        TOKEN.upper(),
        "g" * 64,
        "\uff11" * 64,
        '"><script>alert(1)</script>',
        "{style}",
    ],
)
def test_anything_but_a_token_gets_a_page_without_it(render: Render, token: str | None) -> None:
    page = render(token)

    assert page.status == 400
    assert page.body == render(None).body
    assert b"This link is incomplete" in page.body
    assert b"<script" not in page.body
    assert read_policy(page)["script-src"] == "'none'"


@every_page
def test_a_page_allows_its_own_style_and_script_alone(render: Render) -> None:
    page = render(TOKEN)

    assert read_policy(page) == {
        "default-src": "'none'",
        "script-src": hash_of("script", page),
        "style-src": hash_of("style", page),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@every_page
@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_page_is_not_kept_nor_named_to_others(render: Render, token: str | None) -> None:
    headers = render(token).headers

    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


@every_page
def test_a_page_loads_nothing_from_elsewhere(render: Render) -> None:
    assert not re.search(rb"https?://|src=|@import|url\(", render(TOKEN).body)


def test_the_reset_page_calls_nothing() -> None:
    assert b"WebSocket" not in reset_page(TOKEN).body
