"""What an app's own test run takes from `wsclient.testing`, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HOW_TO = Path(__file__).parents[2] / "docs/how-to/test-your-app.md"
TIMEOUT_S = 60
PYTEST_INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_the_tests_of_the_how_to_pass(tmp_path: Path) -> None:
    conftest, *tests = re.findall(r"^```python\n(.*?)^```", HOW_TO.read_text(), re.M | re.S)
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_app.py").write_text("\n".join(tests))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert "5 passed" in run.stdout, run.stdout + run.stderr


def test_without_the_extra_an_import_says_what_is_missing() -> None:
    program = "import sys; sys.modules['pydantic_settings'] = None\nimport wsclient.testing"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S
    )

    assert run.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: wsclient.testing runs a real server and needs the extra that brings "
        "pydantic_settings: pip install 'wallet-sync[server]'"
    )
