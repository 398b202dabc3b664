"""The close code is the policy."""

from __future__ import annotations

from wsschema.close_codes import CloseCode, may_reconnect


def test_a_client_stays_away_after_its_own_faults_and_after_a_revocation() -> None:
    away = {code for code in CloseCode if not may_reconnect(code)}
    assert away == {1002, 1003, 1007, 4401}


def test_a_client_comes_back_after_every_other_code() -> None:
    for code in (1000, 1001, 1006, 1009, 1011, 1012, 1013, 4000, 4408, 4429, 4999):
        assert may_reconnect(code)
