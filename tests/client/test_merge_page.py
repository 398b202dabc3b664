"""docs/how-to/merge.md is true: its code runs, in its order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from wsclient.errors import CannotMerge
from wsclient.merge import JsonConflict

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "merge.md"


async def ask_user(conflict: JsonConflict) -> Any:
    assert conflict.path == ("entries", "k7", "pin")
    return f"{conflict.mine} or {conflict.theirs}"


async def test_the_code_of_the_page_runs_and_gives_what_it_says() -> None:
    page: dict[str, Any] = {"ask_user": ask_user}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, PAGE, "exec"), page)  # noqa: S102  # the project's own page

    sides = (b'{"entries": [{"id": "k7", "pin": %d}]}' % pin for pin in (1, 2, 3))
    merged = await page["merge_with_user"](*sides)
    assert merged == b'{"entries":[{"id":"k7","pin":"2 or 3"}]}'
    with pytest.raises(CannotMerge, match="theirs is of a later version than this app reads"):
        page["merge_version_1"](None, b'{"version": 1, "a": 1}', b'{"version": 2}')
