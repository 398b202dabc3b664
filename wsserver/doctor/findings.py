"""What a check of the doctor finds: a verdict, a sentence, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

STEP_TIMEOUT_S: Final = 10.0
"""How long one check may wait for another machine."""


class Verdict(enum.StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    """It works, and is worth a look."""
    FAIL = "fail"
    """It does not work, or what is promised does not hold there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``advice`` wherever something is to be done."""

    check: str
    verdict: Verdict
    text: str
    advice: str | None = None


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    """It works, and is worth a look."""
    return Finding(check, Verdict.WARN, text, advice)


def fail(check: str, text: str, advice: str) -> Finding:
    """It does not work, or what is promised does not hold there."""
    return Finding(check, Verdict.FAIL, text, advice)
