"""docs/tutorial/first-sync.md works, to the letter, in a folder that has nothing but the project.

Each block is done in its order: a program is saved under the name in its first line, a command is
run and must print what stands below it. A block that names a terminal goes on there; `^C` stops
what runs in it. Three things differ from a reader's machine: the port is a free one, the admin port
too, and the packages that `make run` would fetch are those of the tests.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks

PAGE = ROOT / "docs/tutorial/first-sync.md"
PAGES_PORT = "8090"
PROJECT = [
    *("Makefile", "pyproject.toml", "wsserver", "client", "schema"),
    *("requirements-build.lock", "requirements-server.lock"),
]
COMMAND_TIMEOUT_S = 60


class Terminal:
    """A terminal in which a command goes on while others run in the next one."""

    def __init__(self, command: str, folder: Path, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S602  # the page's own command
            command,
            shell=True,
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, expected: str) -> None:
        """Returns once it has printed a line with the text."""
        seen: list[str] = []
        while not seen or expected not in seen[-1]:
            try:
                seen.append(self._lines.get(timeout=COMMAND_TIMEOUT_S))
            except queue.Empty:
                pytest.fail(f"{expected!r} was not printed, but {seen}")

    def stop(self) -> None:
        """Ctrl-C."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(COMMAND_TIMEOUT_S)
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line)


class Reader:
    """Who follows the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminals: dict[str, Terminal] = {}
        self._port = str(find_free_port())
        self._variables = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        } | {"WSSERVER_PORT": self._port, "WSSERVER_ADMIN_PORT": "0"}

    def follow(self, block: Block) -> None:
        text = block.text.replace(PAGES_PORT, self._port)
        match block.info.split():
            case ["python"]:
                name = re.match(r"# (\w+\.py)\n", text)
                assert name is not None, f"under what name is this saved?\n{text}"
                assert f"`{name[1]}`:" in block.before
                (self.folder / name[1]).write_text(text)
            case ["console"]:
                for command, expected in read_commands(text):
                    assert self._run(command) == expected
            case ["console", terminal] if text == "^C\n":
                self.terminals.pop(terminal).stop()
            case ["console", terminal]:
                [(command, expected)] = read_commands(text)
                opened = Terminal(command, self.folder, self._variables)
                self.terminals[terminal] = opened
                for line in expected.splitlines() or [f"listening on ws://127.0.0.1:{self._port}"]:
                    opened.wait_for(line)
            case ["text", terminal]:
                for line in text.splitlines():
                    self.terminals[terminal].wait_for(line)
            case _:
                pytest.fail(f"what is to be done with this block?\n{block}")

    def _run(self, command: str) -> str:
        done = subprocess.run(  # noqa: S602  # the page's own command
            command,
            shell=True,
            cwd=self.folder,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        return done.stdout


def read_commands(text: str) -> list[tuple[str, str]]:
    """The commands of a block, each with what it prints."""
    return re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", text, re.MULTILINE)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project in which `make setup` has just installed what it would."""
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy(source, tmp_path / name)
    folder = tmp_path / ".venv"
    venv.create(folder, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    paths = [tmp_path, tmp_path / "client", tmp_path / "schema", sysconfig.get_path("purelib")]
    (packages / "project.pth").write_text("\n".join(map(str, paths)))
    command = folder / "bin/wsserver"
    command.write_text(f"#!{folder}/bin/python\nfrom wsserver.cli import main\nmain()\n")
    command.chmod(0o755)
    (folder / ".server-installed").touch()
    return tmp_path


@pytest.fixture
def reader(project: Path) -> Iterator[Reader]:
    following = Reader(project)
    yield following
    for terminal in following.terminals.values():
        terminal.stop()


# Every command derives keys, slowly on purpose, and two of them find out that there is no server.
@pytest.mark.timeout(400)
def test_the_tutorial_works_as_it_is_written(reader: Reader) -> None:
    followed = list(blocks(PAGE))
    assert followed
    for block in followed:
        reader.follow(block)
