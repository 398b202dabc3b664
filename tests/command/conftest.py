"""A server as a process of its own, and devices at which somebody uses the command."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.null import Keyring as NoKeyring

from tests.e2e.serving import ServerProcess
from tools.local_server import run_server
from wsclient.command import opening
from wsclient.command.cli import run, wsclient
from wsschema.messages import Kdf

PASSWORD = "correct horse battery staple"
WEAK_KDF = Kdf.scrypt(2**14)


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document."""
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents, one a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class MemoryKeyring(KeyringBackend):
    """A keyring that protects what it is given, as far as anybody can tell."""

    priority: Any = 5

    def __init__(self, error: Exception | None = None) -> None:
        self.kept: dict[str, str] = {}
        self.error = error
        """What it fails with from now on."""

    def set_password(self, service: str, username: str, password: str) -> None:
        self._fail()
        self.kept[username] = password

    def get_password(self, service: str, username: str) -> str | None:
        self._fail()
        return self.kept.get(username)

    def delete_password(self, service: str, username: str) -> None:
        self._fail()
        del self.kept[username]

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class User:
    """Somebody at one device, who runs commands inside this process."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.url = url
        self.email = ""
        self._monkeypatch = monkeypatch
        folder.mkdir()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *arguments: str, typed: str | bytes = "", code: int = 0) -> Said:
        """What the command says; it has to end with the code."""
        entered = typed if isinstance(typed, bytes) else typed.encode()
        streams = [
            io.TextIOWrapper(io.BytesIO(held), encoding="utf-8") for held in (entered, b"", b"")
        ]
        with self._monkeypatch.context() as patch:
            patch.setenv("WSCLIENT_HOME", str(self.home))
            patch.setenv("WSSERVER_URL", self.url)
            patch.chdir(self.folder)
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, stream)
            ended = run(arguments)
            said = Said(*(_read(stream) for stream in streams[1:]))
        assert ended == code, f"{arguments} ended with {ended}: {said}"
        return said

    def run_json(self, *arguments: str, **how: Any) -> Any:
        """The document that the command prints, of the members that its help names."""
        document = self.run(*arguments, "--json", **how).document
        named = wsclient.commands[arguments[0]].epilog or ""
        members = named.partition("{")[2].partition("}")[0].split(", ")
        assert {each for each in members if not each.endswith("?")} <= document.keys()
        assert document.keys() <= {each.removesuffix("?") for each in members}
        return document

    def register(self, email: str, *options: str) -> None:
        self.email = email
        self.run("register", email, "--password-stdin", *options, typed=f"{PASSWORD}\n")

    def login(self, email: str, *options: str) -> None:
        self.email = email
        self.run("login", email, "--password-stdin", *options, typed=f"{PASSWORD}\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def push(self, text: str, *options: str, code: int = 0) -> Said:
        """The wallet is this text from now on, if nobody else changed it."""
        self.write("wallet", text)
        return self.run("push", "wallet", *options, code=code)

    def pull(self) -> str:
        """The wallet."""
        return self.run("pull").stdout


def _read(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


MakeUser = Callable[..., User]


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The address of a server that is shared; each test has its own account on it."""
    with run_server(rate_limits="off") as url:
        yield url


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No keyring, no variables, and nobody at a terminal: the tests are at home everywhere."""
    for name in os.environ:
        if name.startswith(("WSCLIENT_", "WSSERVER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("wsclient.command.passwords.can_ask", lambda: False)
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]  # the library's own
    yield
    keyring.set_keyring(before)


@pytest.fixture
def make_user(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> MakeUser:
    """Makes users, each at a device of their own, whose key derivation costs next to nothing."""
    monkeypatch.setattr(opening, "MINIMUM_KDF", WEAK_KDF)

    def make(name: str = "laptop", url: str = server_url) -> User:
        return User(tmp_path / name, url, monkeypatch)

    return make


@pytest.fixture
def email(request: pytest.FixtureRequest) -> str:
    """An address that no other test has."""
    return f"{abs(hash(request.node.nodeid))}@example.com"


@pytest.fixture
def joe(make_user: MakeUser, email: str) -> User:
    """A user who has registered."""
    user = make_user("laptop")
    user.register(email)
    return user


@pytest.fixture
def joes_phone(joe: User, make_user: MakeUser) -> User:
    """Another device of the same account."""
    user = make_user("phone")
    user.login(joe.email, "--device-name", "phone")
    return user


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that a test may stop, and put back in time."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = ServerProcess(folder)
    asyncio.run(server.start())
    yield server
    server.end()
