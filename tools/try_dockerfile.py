"""Runs the Dockerfile's steps without a container engine, in a clean root, and then its server.

Needs root, debootstrap, unshare and nsenter; a quarter of an hour the first time. The base image is
a root that debootstrap makes, of a Debian that has the Python of the image; pip inside it gets what
the locks name from this machine's pip, by their hashes, and has no network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build/dockerfile"
SUITE = "trixie"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
STEP_TIMEOUT_S = 600
START_TIMEOUT_S = 60


@dataclass
class Stage:
    """An image in the making: its root, and what the instructions have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def run(self, command: Sequence[str]) -> None:
        """Runs a command inside; it must end well, without any network."""
        subprocess.run(
            ["unshare", "--net", *self.chroot(command)],
            env={**self.environment, **_OFFLINE},
            check=True,
            timeout=STEP_TIMEOUT_S,
        )

    def chroot(self, command: Sequence[str]) -> list[str]:
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(command)}"
        user = f"--userspec={self.user}:{self.user}"
        return ["chroot", user, str(self.root), "/bin/sh", "-c", inside]


_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse", "PIP_CONFIG_FILE": os.devnull}


def main() -> int:
    """0 when the image would be built, serves, is healthy, and stops as it should."""
    if os.geteuid() != 0:
        print("tools/try_dockerfile.py needs root: for debootstrap and chroot", file=sys.stderr)
        return 1
    base = make_base()
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for name, text in read_instructions():
        print(f"{name} {text}", flush=True)
        if name == "FROM":
            label = text.partition(" AS ")[2] or "final"
            stage = stages[label] = begin_stage(base, label)
        else:
            follow(stage, stages, name, text)
    serve(stage)
    print("\nThe image would be built; its server was healthy, and stopped as it should.")
    return 0


def make_base() -> Path:
    """The root that stands for the base image; made once."""
    base = WORK / "base"
    if not (base / "wheelhouse").is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        if not (base / "usr/bin/pip3").exists():
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, base],
                check=True,
            )
        # As the image has it: a Python whose packages are pip's, and not the distribution's.
        subprocess.run(["chroot", base, "python3", "-m", "venv", "/opt/python"], check=True)
        fetch_wheels(base, WORK / "wheelhouse")
        shutil.copytree(WORK / "wheelhouse", base / "wheelhouse")
    return base


def fetch_wheels(base: Path, folder: Path) -> None:
    """What the locks name, for the Python of that root."""
    asked = [
        "chroot",
        str(base),
        "python3",
        "-c",
        "import sys; print('%d.%d' % sys.version_info[:2])",
    ]
    version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    machine = os.uname().machine
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 4, -1)]
    options: list[str | Path] = [
        "--dest",
        folder,
        "--require-hashes",
        "--only-binary=:all:",
        "--quiet",
    ]
    options += [f"--python-version={version}", "--implementation=cp"]
    options += [f"--platform={name}" for name in (*platforms, f"manylinux2014_{machine}")]
    for lock in ("requirements-build.lock", "requirements-server.lock"):
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--requirement", ROOT / lock],
            check=True,
        )


def read_instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions, in their order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in filter(None, re.sub(r"\\\n\s*", "", text).splitlines()):
        name, _, rest = line.partition(" ")
        yield name, rest


def begin_stage(base: Path, label: str) -> Stage:
    """A fresh copy of the base image."""
    root = WORK / label
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", base, root], check=True)
    return Stage(root, {"PATH": "/opt/python/bin:/usr/sbin:/usr/bin:/sbin:/bin"})


def follow(stage: Stage, stages: dict[str, Stage], name: str, text: str) -> None:
    """Do as an instruction says."""
    match name:
        case "ENV":
            for pair in shlex.split(text):
                variable, _, value = pair.partition("=")
                stage.environment[variable] = value.replace("$PATH", stage.environment["PATH"])
        case "WORKDIR":
            stage.folder = text
            inside(stage, text).mkdir(parents=True, exist_ok=True)
        case "RUN":
            stage.run(["/bin/sh", "-c", text])
        case "COPY":
            copy(stage, stages, text.split())
        case "USER":
            stage.user = text
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(text.partition(" CMD ")[2])
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(text)
        case "CMD":
            stage.command = json.loads(text)
        case "VOLUME" | "EXPOSE" | "STOPSIGNAL":
            pass
        case _:
            raise AssertionError(f"{name} is not known here")


def copy(stage: Stage, stages: dict[str, Stage], words: list[str]) -> None:
    """COPY: from another stage, or of the context, of which .dockerignore lets little through."""
    if words[0].startswith("--from="):
        source = inside(stages[words[0].removeprefix("--from=")], words[1])
        shutil.copytree(source, inside(stage, words[2]), symlinks=True)
        return
    *names, target = words
    everything, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in "#"
    ]
    assert everything == "*"
    context = [path for line in rest if line[0] == "!" for path in ROOT.glob(line[1:])]
    for path in context:
        relative = path.relative_to(ROOT)
        if names != ["."] and str(relative) not in names:
            continue
        placed = inside(stage, stage.folder) / target / relative
        placed.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, placed, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(path, placed)


def inside(stage: Stage, path: str) -> Path:
    """Where that path of the image is on this machine."""
    return stage.root / path.lstrip("/")


def serve(stage: Stage) -> None:
    """Starts the image's command, asks its health check, and stops it, in a network of its own."""
    command = shlex.join(stage.chroot([*stage.entrypoint, *stage.command]))
    server = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {command}"],
        env=stage.environment,
    )
    try:
        healthy = [
            "nsenter",
            "--net",
            "--target",
            str(server.pid),
            *stage.chroot(stage.healthcheck),
        ]
        ends_at_s = time.monotonic() + START_TIMEOUT_S
        while subprocess.run(healthy, env=stage.environment, capture_output=True).returncode:
            assert server.poll() is None, "the server ended by itself"
            assert time.monotonic() < ends_at_s, "the server was never healthy"
            time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait(START_TIMEOUT_S) == 0
    finally:
        server.kill()
    for path in inside(stage, "/data").iterdir():
        assert path.stat().st_uid == int(stage.user), path


if __name__ == "__main__":
    sys.exit(main())
