"""What must never be seen in a log, and a letter that holds it."""

from __future__ import annotations

from email.headerregistry import Address

from wsserver.letters import Letter, make_link, verification_letter

RECIPIENT = "joe.secret@example.com"
TOKEN = "5ec2e7" * 10 + "abcd"
USER = "wallet"
PASSWORD = "päss:w/rd@1"
QUOTED_PASSWORD = "p%C3%A4ss:w%2Frd%401"
SENDER = Address("Wallet sync", "wallet", "example.org")


def make_letter(recipient: str = RECIPIENT) -> Letter:
    """A letter with a token."""
    link = make_link("https://sync.example.org/wallets", "verify", TOKEN)
    return verification_letter(recipient, link)
