"""Asks the advisory database whether a locked dependency has a known fault; says when it can't."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 60
AUDIT = [
    *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
    *("--require-hashes", "--disable-pip", "--requirement", "requirements.lock"),
]


def main() -> int:
    """1 when an advisory names a locked version; 0 when none does, or nobody could be asked."""
    try:
        audit = subprocess.run(
            AUDIT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        dependencies: list[dict[str, Any]] = json.loads(audit.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        print("pip-audit: the advisory database did not answer; nothing was checked")
        return 0
    faulty = [each for each in dependencies if each.get("vulns")]
    for each in faulty:
        for vulnerability in each["vulns"]:
            print(f"{each['name']} {each['version']}: {vulnerability['id']}")
    checked = sum("vulns" in each for each in dependencies)
    print(
        f"pip-audit: {len(faulty)} faulty of {checked} locked dependencies checked; "
        f"{len(dependencies) - checked} could not be looked up"
    )
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
