"""The gate's limits are settings: each by a flag, a variable, and a key of the file."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from wsserver.config import PREFIX, ConfigurationError, Settings, load_settings
from wsserver.gate import GateLimits
from wsserver.server import make_gate_limits
from wsserver.throttle import Rate

NAMES = [field.name for field in fields(GateLimits)]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    monkeypatch.delenv(f"{PREFIX}CONFIG", raising=False)


def choose(name: str) -> tuple[str, Any]:
    """What is written for a limit, none of the defaults, and what is to come of it."""
    if name.endswith("_rate"):
        return "7/min, burst 3", Rate(per_s=7 / 60, burst=3)
    return "7", 7


def test_unless_told_otherwise_a_server_has_the_gates_own_limits() -> None:
    assert make_gate_limits(load_settings({})) == GateLimits()


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_set_by_a_flag(name: str) -> None:
    text, value = choose(name)

    assert make_gate_limits(load_settings({name: text})) == replace(GateLimits(), **{name: value})


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_set_by_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = choose(name)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)

    assert getattr(make_gate_limits(load_settings({})), name) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_set_by_a_key_of_the_file(name: str, tmp_path: Path) -> None:
    text, value = choose(name)
    file = tmp_path / "wsserver.toml"
    file.write_text(f'{name} = "{text}"\n' if isinstance(value, Rate) else f"{name} = {text}\n")

    assert getattr(make_gate_limits(load_settings({"config": str(file)})), name) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["0", "-1", "many", "0/s, burst 5", "{per_s = 1, burst = 5}"])
def test_a_limit_that_is_none_is_refused_by_its_names(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "wsserver.toml"
    file.write_text(f"{name} = {text}\n" if text.startswith("{") else f'{name} = "{text}"\n')

    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}, {PREFIX}"):
        load_settings({"config": str(file)})
