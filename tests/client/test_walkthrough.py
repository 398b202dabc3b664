"""client/README.md is true: every line of it, against a real server."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import walkthrough

# What was promised before there was a page: statements and output, random parts as they may come.
PROMISED = """\
>>> from wsclient import Client
>>> c1 = Client()
>>> c2 = Client()
>>> c1.set_account("joe2@example.com", "123abc2")
>>> c2.set_account("joe2@example.com", "123abc2")
>>> c1.register()
Registered
>>> c1.get_auth_token()
Got auth token: b646a357038d394ef7b70f350c666aeb29e24072c7eeaaad4fb6759c1fca281a
>>> c2.get_auth_token()
Got auth token: bd24ae67cb1bde2da8a27f2c2e5ec8ff1f9bebccb11e16dd35aea31bf422133c
>>> c1.new_wallet_state()
>>> c1.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=1, encrypted_wallet='-')
>>> c2.get_wallet()
Got latest walletState:
WalletState(sequence=1, encrypted_wallet='-')
>>> c2.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=2, encrypted_wallet='-')
>>> c1.get_wallet()
Got latest walletState:
WalletState(sequence=2, encrypted_wallet='-')
>>> c1.cur_encrypted_wallet()
'-'
>>> c1.change_encrypted_wallet()
>>> c1.cur_encrypted_wallet()
'-:a776'
>>> c1.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=3, encrypted_wallet='-:a776')
>>> c2.get_wallet()
Got latest walletState:
WalletState(sequence=3, encrypted_wallet='-:a776')
>>> c2.cur_encrypted_wallet()
'-:a776'
>>> c1.change_encrypted_wallet()
>>> c2.change_encrypted_wallet()
>>> c1.cur_encrypted_wallet()
'-:a776:8fc8'
>>> c2.cur_encrypted_wallet()
'-:a776:2433'
>>> c1.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=4, encrypted_wallet='-:a776:8fc8')
>>> c2.get_wallet()
Got latest walletState:
WalletState(sequence=4, encrypted_wallet='-:a776:8fc8')
>>> c2.cur_encrypted_wallet()
'-:a776:8fc8:2433'
>>> c2.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=5, encrypted_wallet='-:a776:8fc8:2433')
>>> c1.get_wallet()
Got latest walletState:
WalletState(sequence=5, encrypted_wallet='-:a776:8fc8:2433')
>>> c1.cur_encrypted_wallet()
'-:a776:8fc8:2433'
>>> c2.change_encrypted_wallet()
>>> c2.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=6, encrypted_wallet='-:a776:8fc8:2433:0fdd')
>>> c1.change_encrypted_wallet()
>>> c1.update_wallet()
Wallet state out of date. Getting updated wallet state. Try posting again after this.
Got new walletState:
WalletState(sequence=6, encrypted_wallet='-:a776:8fc8:2433:0fdd')
>>> c1.update_wallet()
Successfully updated wallet state on server
Got new walletState:
WalletState(sequence=7, encrypted_wallet='-:a776:8fc8:2433:0fdd:ba43')
"""

CONSOLE = re.compile(r"^```\n(>>> .*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page() -> str:
    return walkthrough.PAGE.read_text()


def test_the_page_is_what_the_software_prints(page: str, server_url: str) -> None:
    regenerated = walkthrough.regenerate(page, server_url)
    assert walkthrough.normalise(regenerated) == walkthrough.normalise(page)


def test_the_page_begins_with_the_dialogue_that_was_promised(page: str) -> None:
    dialogue = walkthrough.normalise("".join(CONSOLE.findall(page)))
    assert dialogue.startswith(walkthrough.normalise(PROMISED))


def test_the_application_on_the_page_runs(page: str, server_url: str, tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "application.py"
    path.write_text(program)

    finished = subprocess.run(
        [sys.executable, path],
        env={"WSSERVER_URL": server_url, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (finished.stdout, finished.stderr) == ("three coins\n", "")


def test_a_page_that_differs_in_random_parts_alone_counts_as_the_same() -> None:
    assert walkthrough.is_same("'-:a776:8fc8' and '-:a776'", "'-:0001:0002' and '-:0001'")


@pytest.mark.parametrize(
    "other", ["'-:0001:0002' and '-:0002'", "'-:0001:0001' and '-:0001'", "'-:0001:0002', '-:0001'"]
)
def test_a_page_that_differs_otherwise_does_not(other: str) -> None:
    assert not walkthrough.is_same("'-:a776:8fc8' and '-:a776'", other)


def test_a_stale_page_is_reported_and_written_anew(
    server_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stale = tmp_path / "README.md"
    stale.write_text("Two and two.\n\n```\n>>> 2 + 2\n5\n>>> if True:\n...     'yes'\n...\n```\n")
    monkeypatch.setattr(walkthrough, "PAGE", stale)
    monkeypatch.setattr(walkthrough, "run_server", lambda: contextlib.nullcontext(server_url))

    monkeypatch.setattr(sys, "argv", ["walkthrough.py"])
    assert walkthrough.main() == 1
    captured = capsys.readouterr()
    assert "-5\n+4\n" in captured.out
    assert "README.md is stale" in captured.err

    monkeypatch.setattr(sys, "argv", ["walkthrough.py", "--write"])
    assert walkthrough.main() == 0
    assert ">>> 2 + 2\n4\n>>> if True:\n...     'yes'\n...\n'yes'\n" in stale.read_text()

    monkeypatch.setattr(sys, "argv", ["walkthrough.py"])
    assert walkthrough.main() == 0


def test_a_line_that_fails_stops_the_regeneration(server_url: str) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)a line of the page failed.*ZeroDivisionError"):
        walkthrough.regenerate("```\n>>> 1 / 0\n```\n", server_url)
