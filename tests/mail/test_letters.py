"""The letters: plain words, the same ones in both parts, and nothing that is not escaped."""

from __future__ import annotations

import html
import re

import pytest

from tests.mail.secrets import SENDER, TOKEN
from wsserver.letters import (
    Letter,
    address_taken_letter,
    make_link,
    reset_letter,
    verification_letter,
)
from wsserver.mail import compose

SITE = "https://sync.example.org/wallets"
LETTERS = {
    "verification": verification_letter("joe@example.com", make_link(SITE, "verify", TOKEN)),
    "address taken": address_taken_letter("joe@example.com", SITE),
    "reset": reset_letter("joe@example.com", make_link(SITE, "reset", TOKEN)),
}
every_letter = pytest.mark.parametrize("letter", LETTERS.values(), ids=list(LETTERS))


def read_html(source: str) -> str:
    """What a mail program shows of it, in one line."""
    body = source[source.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.mark.parametrize("public_url", [SITE, f"{SITE}/"])
def test_a_link_lies_under_the_public_url(public_url: str) -> None:
    assert make_link(public_url, "verify", "ab") == f"{SITE}/verify?token=ab"


@every_letter
def test_both_parts_say_the_same(letter: Letter) -> None:
    assert read_html(letter.html) == " ".join(letter.text.split())


@every_letter
def test_a_letter_names_the_server_and_says_what_to_do_if_it_was_not_asked_for(
    letter: Letter,
) -> None:
    assert "sync.example.org" in letter.subject
    assert "If it was not you" in " ".join(letter.text.split())


@every_letter
def test_a_letter_is_plain_ascii_in_short_lines(letter: Letter) -> None:
    message = compose(letter, SENDER)
    parts = list(message.iter_parts())

    assert [part["Content-Transfer-Encoding"] for part in parts] == ["7bit", "7bit"]
    words = [line for line in letter.text.splitlines() if "://" not in line]
    assert max(map(len, words)) <= 70


@pytest.mark.parametrize(("name", "page"), [("verification", "verify"), ("reset", "reset")])
def test_a_link_stands_alone_on_its_line_in_full(name: str, page: str) -> None:
    link = f"{SITE}/{page}?token={TOKEN}"

    assert f"\n\n{link}\n\n" in LETTERS[name].text
    assert f'<a href="{link}">{link}</a>' in LETTERS[name].html


def test_the_letter_about_a_taken_address_carries_no_token() -> None:
    letter = LETTERS["address taken"]

    assert "token" not in letter.text
    assert "already" in letter.subject
    assert "nothing about it has changed" in " ".join(letter.text.split())


def test_the_reset_letter_says_what_is_lost_before_it_gives_the_link() -> None:
    text = LETTERS["reset"].text

    assert "deletes the wallet" in text[: text.index("https://")]


def test_html_is_escaped() -> None:
    link = 'https://sync.example.org/a"b<c>&d/verify?token=ab'

    letter = verification_letter("joe@example.com", link)

    assert link in letter.text
    assert '<a href="https://sync.example.org/a&quot;b&lt;c&gt;&amp;d/' in letter.html
    assert "b<c>" not in letter.html
