"""The letters that an account's owner gets: pure, the same words as text and as HTML.

An address without an account gets none when a reset is asked for: mail that nobody asked for helps
nobody but who sends it to strangers.
"""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent, and to whom. Its ``repr`` shows nothing of it."""

    recipient: str = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)


def make_link(public_url: str, page: str, token: str) -> str:
    """The link to a page (``verify``, ``reset``) under the server's public URL."""
    return f"{public_url.rstrip('/')}/{page}?token={token}"


def verification_letter(recipient: str, link: str) -> Letter:
    """To whom registered: the link that shows that the address is theirs."""
    site = _name_site(link)
    return _write(
        recipient,
        f"Confirm your email address for {site}",
        f"Somebody, we hope you, has registered this address at {site}, "
        "which keeps wallets in sync between devices.",
        "If it was you, open this link and press the button on the page:",
        _Link(link),
        "The link works once, and for two days. If you asked for several mails, only the link in "
        "the newest one works.",
        "If it was not you, don't open the link: it would confirm the account of whoever "
        "registered. If you do nothing, nothing happens.",
    )


def address_taken_letter(recipient: str, public_url: str) -> Letter:
    """To an owner whose address somebody tried to register with."""
    site = _name_site(public_url)
    return _write(
        recipient,
        f"You already have an account at {site}",
        f"Somebody, perhaps you, tried to register with this address at {site}. "
        "You have an account there already, and nothing about it has changed.",
        "If it was you, log in with the password that you have. If you have forgotten it, ask for "
        "a reset in the app; read what it says before you go on.",
        "If it was not you, there is nothing to do. Whoever it was has not been told that there "
        "is an account.",
    )


def reset_letter(recipient: str, link: str) -> Letter:
    """To an owner who has forgotten the root password: the link, and what it costs."""
    site = _name_site(link)
    return _write(
        recipient,
        f"Reset your account at {site}",
        f"Somebody, we hope you, asked to reset your account at {site}, because the password is "
        "forgotten.",
        "A reset deletes the wallet that is stored on the server, and its history. It is locked "
        "with the old password, so nobody can open it without, not even we. A device that still "
        "holds a copy of the wallet can send it to the server again afterwards.",
        "To go on, open this link. It shows a code that the app asks for:",
        _Link(link),
        "The link works once, and for one hour. Give neither the link nor the code to anybody.",
        "If it was not you, or if you remember the password, do nothing: nothing changes then.",
    )


@dataclass(frozen=True, slots=True)
class _Link:
    url: str


def _write(recipient: str, subject: str, *paragraphs: str | _Link) -> Letter:
    return Letter(recipient, subject, _write_text(paragraphs), _write_html(subject, paragraphs))


def _write_text(paragraphs: tuple[str | _Link, ...]) -> str:
    # A link stays on a line of its own, however long: a broken one is no link.
    parts = [part.url if isinstance(part, _Link) else textwrap.fill(part) for part in paragraphs]
    return "\n\n".join(parts) + "\n"


def _write_html(subject: str, paragraphs: tuple[str | _Link, ...]) -> str:
    parts = []
    for part in paragraphs:
        if isinstance(part, _Link):
            url = html.escape(part.url)
            parts.append(f'<p><a href="{url}">{url}</a></p>')
        else:
            parts.append(f"<p>{html.escape(part)}</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(subject)}</title></head>\n<body>\n" + "\n".join(parts) + "\n</body>\n"
        "</html>\n"
    )


def _name_site(url: str) -> str:
    return urlsplit(url).netloc
