"""Where each setting comes from, and how it is shown: never with a password in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import SecretStr
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from wsserver.config import PREFIX, Examined, Settings, find_file, suggest
from wsserver.throttle import Rate

HIDDEN: Final = "***"
OTHERS_VARIABLES: Final = frozenset(
    {f"{PREFIX}CONFIG", f"{PREFIX}URL", f"{PREFIX}CA", f"{PREFIX}ALLOW_PLAINTEXT"}
)
"""Names that are no settings: of the file with them, and of what `wsclient` reads."""

_PASSWORD: Final = re.compile(r"(://[^:/?#@\s]*:)\S*@")
_LONE_USER: Final = re.compile(r"://[^:/?#@\s]+@")
_PARAMETER: Final = re.compile(r"([?&][^=&\s]*(?:password|secret|token|key)[^=&\s]*=)[^&\s]*", re.I)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in force. ``where`` names the flag, the variable, or the file and its key."""

    name: str
    value: Any
    source: Literal["flag", "environment", "file", "default"]
    where: str

    @property
    def shown(self) -> Any:
        """The value as JSON may have it, its secrets hidden."""
        return _hide(_plain(self.value))

    @property
    def hides(self) -> bool:
        """Whether what is shown is less than the value."""
        return bool(self.shown != _plain(self.value))

    @property
    def text(self) -> str:
        """The value as the environment would have it, its secrets hidden."""
        shown = self.shown
        if shown is None:
            return "-"
        return ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)


def find_origins(flags: dict[str, Any], examined: Examined) -> list[Setting]:
    """Every setting in force with its origin, in the order of the reference page."""
    path = find_file(flags)
    in_file = {} if path is None else TomlConfigSettingsSource(Settings, path)()
    in_environment = EnvSettingsSource(Settings)()
    variables = {name.upper(): name for name in os.environ}

    def find(name: str) -> Setting:
        value = getattr(examined.settings, name)
        variable = f"{PREFIX}{name.upper()}"
        if name in examined.wrong:
            return Setting(name, value, "default", "")
        if flags.get(name) is not None:
            return Setting(name, value, "flag", f"--{name.replace('_', '-')}")
        if name in in_environment:
            return Setting(name, value, "environment", variables[variable])
        if name in in_file:
            return Setting(name, value, "file", f"{path}: {name}")
        return Setting(name, value, "default", "")

    return [find(name) for name in Settings.model_fields]


def find_unknown_variables() -> Iterator[tuple[str, str]]:
    """Variables that look like settings and are none: the name, and a sentence."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHERS_VARIABLES
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            yield name, f"{name} is no setting, and is ignored{suggest(name, known)}"


def render_toml(settings: list[Setting]) -> str:
    """A file that gives what is in force; what has its default is there as a comment."""
    return "\n".join(map(_render_key, settings))


def hide_passwords(text: str) -> str:
    """The text without what follows a user's name in a URL, or stands there alone: a token may."""
    text = _PASSWORD.sub(rf"\1{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _LONE_USER.sub(f"://{HIDDEN}@", text))


def _render_key(setting: Setting) -> str:
    about = f"# {Settings.model_fields[setting.name].description}\n"
    if setting.hides:
        variable = f"{PREFIX}{setting.name.upper()}"
        return f"{about}# It has a secret in it, which is not shown. Give it as {variable}.\n"
    if setting.value is None:
        return f"{about}# {setting.name} is not set\n"
    # A string of JSON is one of TOML too, and so are a number and a list of either.
    key = f"{setting.name} = {json.dumps(setting.shown, ensure_ascii=False)}\n"
    return about + (f"# {key}" if setting.source == "default" else key)


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(map(str, value))
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, Rate | Path) else value


def _hide(value: Any) -> Any:
    return hide_passwords(value) if isinstance(value, str) else value
