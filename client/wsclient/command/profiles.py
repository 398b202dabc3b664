"""Profiles: which account of which server a command is about, and where this device keeps it.

A profile is a folder: its settings, and beside them `SyncedWallet`'s own folder, sealed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import platformdirs

from wsclient.command.failures import CommandFailed, ExitCode
from wsclient.command.private_files import make_private_folder, write_private

DEFAULT_PROFILE: Final = "default"
DEFAULT_SERVER: Final = "ws://127.0.0.1:8090/v1"
HOME_VARIABLE: Final = "WSCLIENT_HOME"
SETTINGS_FILE: Final = "profile.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Profile:
    """An account on a server, as this device knows it."""

    folder: Path
    server: str
    email: str = field(repr=False)
    device_name: str
    merge: str
    """One of `wsclient.command.merging.MERGES`."""
    identity: dict[str, str] = field(default_factory=dict)
    """By which member the elements of JSON lists are told apart; see `wsclient.merge.JsonMerge`."""
    ca: str | None = None
    """PEM file of the authority that vouches for the server; None: the system's."""
    allow_plaintext: bool = False

    @property
    def name(self) -> str:
        """What --profile calls it."""
        return self.folder.name

    @property
    def wallet_folder(self) -> Path:
        """Where `SyncedWallet` keeps what is here."""
        return self.folder / "wallet"

    @classmethod
    def load(cls, name: str) -> Self:
        """The profile of that name."""
        path = find_folder(name) / SETTINGS_FILE
        try:
            return cls(folder=path.parent, **json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise CommandFailed(
                "no_profile",
                f"there is no profile {name!r} yet",
                "wsclient register EMAIL makes an account, wsclient login EMAIL enters one",
                ExitCode.MISUSED,
            ) from None
        except (ValueError, TypeError):
            raise CommandFailed("profile_damaged", f"{path} is no profile's settings") from None

    def describe(self) -> dict[str, str]:
        """What tells it apart, as a document."""
        return {
            "profile": self.name,
            "server": self.server,
            "email": self.email,
            "deviceName": self.device_name,
        }

    def save(self) -> None:
        """Keeps the settings."""
        make_private_folder(self.folder)
        members = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name != "folder"
        }
        text = json.dumps(members, indent=2, ensure_ascii=False) + "\n"
        write_private(self.folder / SETTINGS_FILE, text.encode())

    def remove(self) -> None:
        """Deletes all that this device keeps of the account, its wallet too."""
        shutil.rmtree(self.folder)


def find_home() -> Path:
    """The folder of the profiles: WSCLIENT_HOME, else the user's folder for data."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).absolute() if home else platformdirs.user_data_path("wallet-sync")


def find_folder(name: str) -> Path:
    """The folder of the profile of that name, whether it is there or not."""
    if not _NAME.fullmatch(name):
        raise CommandFailed(
            "bad_profile_name",
            f"{name!r} is no name of a profile: letters, digits, '.', '_' and '-', at most 64",
            exit_code=ExitCode.MISUSED,
        )
    return find_home() / name


def list_profiles() -> list[str]:
    """The names of the profiles that are there."""
    return sorted(path.parent.name for path in find_home().glob(f"*/{SETTINGS_FILE}"))
