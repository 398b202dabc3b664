"""The documentation: it builds, its links lead somewhere, and its lines are true."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks
from wsschema.messages import REVOCATION_REASONS

BUILD_TIMEOUT_S = 110
PAGES = [
    page.relative_to(ROOT).with_suffix("")
    for folder in (".", "client", "docs/**", "schema")
    for page in ROOT.glob(f"{folder}/*.md")
]


def build(source: Path, built: Path) -> tuple[int, str]:
    """The exit code of Sphinx, and its warnings."""
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--no-color"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "-c", ROOT / "docs", source, built],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stderr


def pages_in_sidebar(page: Path) -> set[str]:
    """The pages that the sidebar of a built page leads to, itself aside."""
    sidebar = re.search(r'<div class="sidebar-tree">(.*?)\n</div>', page.read_text(), re.DOTALL)
    assert sidebar is not None
    return set(re.findall(r'class="reference internal" href="([^"#]+)\.html"', sidebar[1]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    assert build(ROOT, folder) == (0, "")
    return folder


def test_the_documentation_builds_without_a_warning_and_the_sidebar_has_every_page(
    built: Path,
) -> None:
    home = built / "docs/index.html"

    linked = {(home.parent / page).resolve() for page in pages_in_sidebar(home)}

    assert {built / page for page in PAGES} - linked == {built / "docs/index"}


def test_the_address_of_the_site_leads_to_its_home(built: Path) -> None:
    [home] = re.findall(r'href="([^"]+)"', (built / "index.html").read_text())

    assert (built / home).exists()


def test_what_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text(
        "# Home\n\n[There](other.md#there), [the client](#wsclient.Status).\n\n"
        "[x](no-page.md) [x](#no-part) [x](other.md#no-such) ![x](no-picture.svg)\n\n"
        "```{toctree}\nother\n```\n"
    )
    (pages / "other.md").write_text(
        "# Other\n\n## There\n\n```{eval-rst}\n.. autoclass:: wsclient.Status\n\n`no_name`\n```\n"
    )

    code, warnings = build(tmp_path, tmp_path / "built")

    named = re.findall(r"WARNING: .*\b(no[-_]\w+)", warnings)
    assert code == 1
    assert sorted(named) == ["no-page", "no-part", "no-picture", "no-such", "no_name"]
    assert warnings.count("WARNING: ") == len(named)


def test_recovering_is_told_of_every_reason_to_stop() -> None:
    page = (ROOT / "docs/how-to/recover.md").read_text()
    sources = [path.read_text() for path in (ROOT / "client/wsclient").glob("*.py")]
    refused = {
        reason for text in sources for reason in re.findall(r'StateRefused\(\s*"(\w+)"', text)
    }

    assert {"went_back", "forked", "bad_hmac"} <= refused
    assert {
        reason for reason in refused | set(REVOCATION_REASONS) if f"`{reason}`" not in page
    } == set()


@pytest.mark.parametrize("name", ["explanation/keys-and-lineage.md"])
def test_a_page_shows_what_the_software_prints(name: str) -> None:
    page = ROOT / "docs" / name
    text = "\n".join(block.text for block in blocks(page) if block.text.startswith(">>> "))
    dialogue = doctest.DocTestParser().get_doctest(text, {}, name, str(page), 0)

    tried = doctest.DocTestRunner().run(dialogue)

    assert tried.attempted
    assert not tried.failed
