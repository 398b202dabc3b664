"""What holds for every test of mail."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.mail.secrets import PASSWORD, QUOTED_PASSWORD, RECIPIENT, TOKEN


@pytest.fixture
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither an address nor a token nor a password, whatever happens, at any level."""
    caplog.set_level(logging.CRITICAL, "mail.log")  # aiosmtpd's own: the other side
    caplog.set_level(logging.DEBUG)
    yield
    formatter = logging.Formatter()
    logged = "\n".join(formatter.format(record) for record in caplog.get_records("call"))
    for secret in (RECIPIENT, "joe", TOKEN, PASSWORD, QUOTED_PASSWORD):
        assert secret not in logged
