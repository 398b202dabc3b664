"""The files of deploy/: valid by the tools they are for, and of one mind with the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from wsserver.bus.choosing import choose_transport
from wsserver.config import PREFIX, Settings, examine
from wsserver.store.databases import parse_url

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
COMPOSE_FILES = ["compose.yaml", "compose.single.yaml"]
MANIFESTS = sorted(path.name for path in (DEPLOY / "kubernetes").iterdir())
COMMAND_TIMEOUT_S = 60


def read_schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def read_manifest(name: str) -> Any:
    return read_yaml(f"kubernetes/{name}.yaml")


def nodes_of(compose: Any) -> dict[str, Any]:
    """The services of a compose file that are ours."""
    services = compose["services"].items()
    return {name: service for name, service in services if service["image"] == "wallet-sync"}


def default_of(setting: str) -> Any:
    return Settings.model_fields[setting].default


def settings_named(environment: dict[str, Any]) -> set[str]:
    return {name.removeprefix(PREFIX).lower() for name in environment if name.startswith(PREFIX)}


def run_tool(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool to its end; skips the test where it is not installed."""
    # Those that come as wheels stand beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which(str(command[0]), path=path) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(
        command,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


# Valid, each by its own rules.


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_a_compose_file_satisfies_the_specifications_schema(name: str) -> None:
    jsonschema.validate(
        read_yaml(name), read_schema("compose-spec.json"), jsonschema.Draft202012Validator
    )


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_satisfies_the_strict_schema_of_its_kind(name: str) -> None:
    schemas = read_schema("kubernetes.json")
    manifest = read_yaml(f"kubernetes/{name}")
    kind = schemas["kinds"][f"{manifest['apiVersion']} {manifest['kind']}"]

    jsonschema.validate(
        manifest, {**kind, "$defs": schemas["$defs"]}, jsonschema.Draft202012Validator
    )


def test_a_field_that_kubernetes_does_not_have_would_be_found() -> None:
    schemas = read_schema("kubernetes.json")
    manifest = read_manifest("deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}

    with pytest.raises(jsonschema.ValidationError, match="livenesProbe"):
        jsonschema.validate(
            manifest, {**schemas["kinds"]["apps/v1 Deployment"], "$defs": schemas["$defs"]}
        )


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_caddy_takes_its_file_as_compose_starts_it(name: str, tmp_path: Path) -> None:
    nodes = read_yaml(name)["services"]["caddy"]["environment"]["NODES"]
    file = DEPLOY / "Caddyfile"
    variables = {"DOMAIN": "sync.example.com", "NODES": nodes, "HOME": str(tmp_path)}

    valid = run_tool("caddy", "validate", "--config", file, "--adapter=caddyfile", **variables)
    assert valid.returncode == 0, valid.stderr
    adapted = run_tool("caddy", "adapt", "--config", file, "--adapter=caddyfile", **variables)
    for node in nodes.split():
        assert f'{{"dial":"{node}"}}' in adapted.stdout
    assert run_tool("caddy", "fmt", file).stdout == file.read_text()


def test_the_dockerfile_satisfies_hadolint() -> None:
    done = run_tool("hadolint", ROOT / "Dockerfile")

    assert (done.returncode, done.stdout) == (0, "")


# Of one mind with the code and with each other.


def test_every_variable_is_a_setting() -> None:
    environments = [
        service["environment"]
        for name in COMPOSE_FILES
        for service in nodes_of(read_yaml(name)).values()
    ]
    environments.append(read_manifest("configuration")["data"])
    [container] = read_manifest("deployment")["spec"]["template"]["spec"]["containers"]
    environments.append({variable["name"]: variable for variable in container["env"]})

    for environment in environments:
        assert settings_named(environment) <= set(Settings.model_fields)


@pytest.mark.parametrize("source", [*COMPOSE_FILES, "kubernetes"])
def test_a_node_takes_what_it_is_set_to(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    if source == "kubernetes":
        environment = {
            **read_manifest("configuration")["data"],
            "WSSERVER_DATABASE_URL": "postgresql://wallet_sync:secret@db.example.com/wallet_sync",
        }
    else:
        environment = next(iter(nodes_of(read_yaml(source)).values()))["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(
            name, re.sub(r"\$\{\w+:\?\}", "secret", value).replace("${ALLOWLIST:-}", "")
        )

    examined = examine({})

    assert examined.faults == ()
    assert examined.settings.trusted_proxies
    choose_transport(environment.get("WSSERVER_BUS_URL"), examined.settings.database_url)
    parse_url(examined.settings.database_url)


def test_no_secret_stands_in_a_file() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert "PRIVATE KEY" not in path.read_text()
    for name in COMPOSE_FILES:
        for service in read_yaml(name)["services"].values():
            for variable, value in service.get("environment", {}).items():
                assert "PASSWORD" not in variable or value.startswith("${")
    assert not {"database_url", "smtp_url"} & settings_named(read_manifest("configuration")["data"])


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_nodes_believe_caddy_alone_and_caddy_knows_them_all(name: str) -> None:
    compose = read_yaml(name)
    caddy, nodes = compose["services"]["caddy"], nodes_of(compose)

    address = caddy["networks"]["front"]["ipv4_address"]
    assert {node["environment"]["WSSERVER_TRUSTED_PROXIES"] for node in nodes.values()} == {address}
    assert caddy["environment"]["NODES"].split() == [f"{node}:8090" for node in nodes]
    published = [service for service, of in compose["services"].items() if "ports" in of]
    assert published == ["caddy"], "nothing else is reached from outside"


def test_a_stop_is_given_more_time_than_the_drain_takes() -> None:
    drain_timeout_s = default_of("drain_timeout_s")
    for name in COMPOSE_FILES:
        for node in nodes_of(read_yaml(name)).values():
            assert int(node["stop_grace_period"].removesuffix("s")) > drain_timeout_s

    pod = read_manifest("deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause_s + drain_timeout_s


def test_the_pods_run_as_the_images_user_and_their_probes_ask_the_admin_port() -> None:
    pod = read_manifest("deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert f"USER {pod['securityContext']['runAsUser']}\n" in (ROOT / "Dockerfile").read_text()
    assert ports == {"public": default_of("port"), "admin": default_of("admin_port")}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"
    [served] = read_manifest("service")["spec"]["ports"]
    assert served["targetPort"] == "public"


def test_all_manifests_mean_the_same_pods() -> None:
    deployment = read_manifest("deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]

    assert deployment["selector"]["matchLabels"] == labels
    assert read_manifest("service")["spec"]["selector"] == labels
    assert read_manifest("disruption-budget")["spec"]["selector"]["matchLabels"] == labels
