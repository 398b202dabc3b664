import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools/metrics_page.py"


def test_every_metric_is_on_the_page_as_it_is() -> None:
    checked = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr
