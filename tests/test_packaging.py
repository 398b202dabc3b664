"""What is installed: the wheel as it is built, and the locks that its dependencies come from."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "wsclient": ROOT / "client/wsclient",
    "wsschema": ROOT / "schema/wsschema",
    "wsserver": ROOT / "wsserver",
}
LOCKS = [
    "requirements.lock",
    "requirements-server.lock",
    "requirements-fuzz.lock",
    "requirements-build.lock",
]
BUILD_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=BUILD_TIMEOUT_S,
    )
    [built] = folder.glob("*.whl")
    return built


def declared_requirements(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def read_lock(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each locked requirement with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=")
            yield Requirement(requirement), [each.strip() for each in hashes]


def locked_versions(name: str) -> dict[str, str]:
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)
        for requirement, _ in read_lock(name)
    }


def test_the_wheel_has_three_packages_at_its_top(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in ZipFile(wheel).namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert len(tops) == len(PACKAGES) + 1


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_has_every_file_of_a_package(wheel: Path, package: str) -> None:
    source = PACKAGES[package]
    expected = {
        f"{package}/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    packed = {name for name in ZipFile(wheel).namelist() if name.startswith(f"{package}/")}

    assert packed == expected
    assert f"{package}/py.typed" in packed


def test_the_wheel_names_its_licence_its_command_and_its_extras(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        files = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        metadata = HeaderParser().parsestr(archive.read(files["METADATA"]).decode())
        commands = archive.read(files["entry_points.txt"]).decode()

    assert metadata["Name"] == "wallet-sync"
    assert metadata["License-Expression"] == "MIT"
    assert "licenses/LICENSE" in files
    extras = ["bench", "cli", "docs", "fuzz", "lbry", "nats", "postgresql", "server", "test"]
    assert metadata.get_all("Provides-Extra") == extras
    assert "wsserver = wsserver.cli:main" in commands


def test_the_client_needs_nothing_of_the_servers_extra(wheel: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import wsclient\n"
        "assert wsclient.__file__.startswith(sys.argv[1])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(wheel)], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())

    assert "websockets" in loaded
    assert loaded.isdisjoint(
        {"alembic", "click", "prometheus_client", "pydantic", "sqlalchemy", "uvloop", "wsserver"}
    )


def test_the_server_needs_nothing_of_the_gateways_extra_until_it_has_a_port() -> None:
    program = (
        "import sys, wsserver.cli\n"
        "assert {'starlette', 'uvicorn', 'wsserver.lbry.gateway'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_version_by_its_hashes_and_names_no_host(lock: str) -> None:
    for requirement, hashes in read_lock(lock):
        [pin] = requirement.specifier
        assert pin.operator == "==", requirement
        assert requirement.url is None
        assert hashes, requirement
        assert all(each.startswith("sha256:") for each in hashes), requirement
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        (
            "requirements.lock",
            ["bench", "cli", "docs", "lbry", "nats", "postgresql", "server", "test"],
        ),
        ("requirements-server.lock", ["lbry", "nats", "postgresql", "server"]),
        ("requirements-fuzz.lock", ["fuzz"]),
    ],
)
def test_a_lock_satisfies_what_the_project_declares(lock: str, extras: list[str]) -> None:
    versions = locked_versions(lock)

    for requirement in declared_requirements(*extras):
        version = versions[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), requirement


@pytest.mark.parametrize("lock", ["requirements-server.lock", "requirements-build.lock"])
def test_what_the_image_is_made_of_is_what_the_tests_run_on(lock: str) -> None:
    assert locked_versions(lock).items() <= locked_versions("requirements.lock").items()
