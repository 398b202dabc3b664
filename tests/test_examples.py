"""Each example, run as its first lines say, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from starlette.websockets import WebSocketDisconnect

from tools.local_server import run_server
from wsclient import Session, SyncedWallet, register
from wsclient.merge import JsonMerge

with warnings.catch_warnings():
    # It takes httpx as well, but not for ever.
    warnings.filterwarnings("ignore", "Using `httpx` with `starlette.testclient` is deprecated")
    from fastapi.testclient import TestClient

EXAMPLES = Path(__file__).parent.parent / "examples"
ROOT_PASSWORD = "correct horse battery staple"
UNREACHABLE_URL = "ws://127.0.0.1:9/v1"
"""Nothing listens at the port that discards."""


@pytest.fixture
def url() -> Iterator[str]:
    with run_server(rate_limits="off") as url:
        yield url


@pytest.fixture
async def email(url: str) -> str:
    """An account that is there already."""
    email = f"joe-{secrets.token_hex(4)}@example.com"
    async with Session(url) as session:
        await register(session, email, ROOT_PASSWORD)
    return email


def run_example(
    name: str, *arguments: str, url: str, typed: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        env={**os.environ, "WSSERVER_URL": url},
        input="".join(f"{line}\n" for line in typed),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines_of(example: subprocess.CompletedProcess[str]) -> list[str]:
    assert example.returncode == 0, example.stderr
    return example.stdout.splitlines()


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_devices_hear_each_other(url: str) -> None:
    assert lines_of(run_example("two_devices", url=url)) == [
        "laptop pushed sequence 1",
        "phone heard coins: 3",
        "phone pushed sequence 2",
        "laptop got coins: 5",
    ]


def test_a_minimal_wallet_has_the_notes_of_all_devices(url: str, tmp_path: Path) -> None:
    laptop, phone = str(tmp_path / "laptop"), str(tmp_path / "phone")

    assert lines_of(run_example("minimal_wallet", laptop, "buy milk", url=url)) == ["buy milk"]
    notes = lines_of(run_example("minimal_wallet", phone, "call Jane", url=url))
    assert sorted(notes) == ["buy milk", "call Jane"]
    assert lines_of(run_example("minimal_wallet", laptop, "pay Jim", url=url)) == [
        *notes,
        "pay Jim",
    ]


@pytest.mark.timeout(300)  # it takes a dozen processes, each of which derives keys
def test_two_password_managers_merge_what_each_changed_offline(url: str, tmp_path: Path) -> None:
    def manage(device: str, *arguments: str, typed: str = "", offline: bool = False) -> list[str]:
        example = run_example(
            "password_manager",
            *("joe@example.com", "--folder", str(tmp_path / device)),
            *("--patience", "0.5" if offline else "50", *arguments),
            url=UNREACHABLE_URL if offline else url,
            typed=(ROOT_PASSWORD, *filter(None, [typed])),
        )
        assert example.stderr == ("offline: this is what is here\n" if offline else "")
        return lines_of(example)

    assert manage("laptop", "register") == ["registered"]
    assert manage("laptop", "add", "site", "joe", typed="tr0ub4dor") == ["site  joe"]
    assert manage("phone", "show", "site") == ["tr0ub4dor"]

    assert manage("phone", "password", "site", typed="3xkcd", offline=True) == ["site  joe"]
    assert manage("laptop", "user", "site", "jane") == ["site  jane"]
    assert manage("laptop", "add", "other", "jane", typed="hunter2") == [
        "other  jane",
        "site  jane",
    ]

    assert manage("phone", "list") == ["other  jane", "site  jane"]
    assert manage("laptop", "show", "site") == ["3xkcd"]
    assert manage("laptop", "remove", "site") == ["other  jane"]
    assert manage("phone", "list") == ["other  jane"]


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
    assert line, "it has ended"
    return line.decode().rstrip()


async def test_the_bot_reports_who_changed_what_and_no_value(
    url: str, email: str, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "WSSERVER_URL": url,
        "WALLET_EMAIL": email,
        "WALLET_ROOT_PASSWORD": ROOT_PASSWORD,
    }
    async with SyncedWallet(
        url, email, ROOT_PASSWORD, tmp_path / "laptop", JsonMerge(), device_name="laptop"
    ) as wallet:
        await wallet.change(b'{"entries":[{"id":"k7","pin":1111},{"id":"x2"}]}')
        await wallet.sync()
        bot = await asyncio.create_subprocess_exec(
            *(sys.executable, EXAMPLES / "report_bot.py", tmp_path / "bot"),
            env=environment,
            stdout=subprocess.PIPE,
        )
        try:
            reported = [await read_line(bot)]
            while reported[-1] != "(synced)":
                reported.append(await read_line(bot))
            await wallet.change(b'{"entries":[{"id":"k7","pin":2222}],"theme":"dark"}')
            while reported[-1] != "laptop added /theme":
                reported.append(await read_line(bot))
            assert [line for line in reported if not line.startswith("(")] == [
                "laptop changed /entries/k7/pin",
                "laptop removed /entries/x2/id",
                "laptop added /theme",
            ]
        finally:
            bot.terminate()
            await bot.wait()


def test_a_web_service_holds_a_wallet_and_tells_of_changes(
    url: str, email: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSERVER_URL", url)
    monkeypatch.setenv("WALLET_EMAIL", email)
    monkeypatch.setenv("WALLET_ROOT_PASSWORD", ROOT_PASSWORD)
    monkeypatch.setenv("WALLET_API_TOKEN", "s3cret")
    headers = {"Authorization": "Bearer s3cret"}
    example = load_example("fastapi_app")
    with contextlib.ExitStack() as stack:
        services = []
        for folder in ("laptop", "phone"):
            monkeypatch.setenv("WALLET_FOLDER", str(tmp_path / folder))
            service = TestClient(example.create_app(), headers=headers)
            services.append(stack.enter_context(service))
        laptop, phone = services
        heard = stack.enter_context(phone.websocket_connect("/changes"))

        entry = {"user": "joe", "password": "tr0ub4dor"}
        assert laptop.get("/entries/example.org").status_code == 404
        assert laptop.put("/entries/example.org", json=entry).status_code == 202
        assert laptop.get("/entries/example.org").json() == entry

        change = heard.receive_json()
        assert change["entries"] == ["example.org"]
        assert phone.get("/entries/example.org").json() == entry
        status = phone.get("/status").json()
        assert (status["sequence"], status["unsynced"], status["stopped"]) == (1, False, None)

        del phone.headers["Authorization"]
        assert phone.get("/entries/example.org").status_code == 401
        with pytest.raises(WebSocketDisconnect), phone.websocket_connect("/changes"):
            pass
