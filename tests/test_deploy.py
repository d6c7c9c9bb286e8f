"""docs/deploy: what a node is given there is what it takes, and parts name each other rightly."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fluffle.broker.__main__ import COMMANDS
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.config.option_table import OPTIONS
from fluffle.broker.config.option_values import PREFIX
from fluffle.broker.config.options import resolve
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S
from tests.support.plain_yaml import documents
from tests.support.require import require

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UNIT = (DEPLOY / "fluffle.service").read_text(encoding="utf-8")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
Json: TypeAlias = dict[str, Any]
Manifests: TypeAlias = dict[tuple[str, str], Json]
"""Manifests by kind and name."""

STOP_S = 10
"""Time that a node needs to end, at the most, once it is asked to."""


def image_environment() -> dict[str, str]:
    """Environment variables that the image sets."""
    (words,) = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    return dict(word.split("=", 1) for word in words.split())


def instruction(name: str) -> list[str]:
    """The last one of an instruction in the form of a list."""
    found: list[str] = json.loads(re.findall(rf"^{name}.*?(\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
    return found


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    return {(each["kind"], each["metadata"]["name"]): each for each in documents(text)}


@pytest.fixture(scope="module")
def pods(manifests: Manifests) -> Json:
    """The StatefulSet."""
    spec: Json = manifests["StatefulSet", "fluffle"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pods: Json) -> Json:
    (only,) = pods["template"]["spec"]["containers"]
    return dict(only)


@pytest.fixture
def config(
    manifests: Manifests,
    container: Json,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Config:
    """Configuration of the second pod by the image, the manifest and the file."""
    monkeypatch.setattr("platform.node", lambda: "fluffle-1")
    (tmp_path / "secret").write_text("s")
    text = manifests["ConfigMap", "fluffle"]["data"]["fluffle.toml"]
    mounted = re.compile(r"/etc/fluffle-secret/cluster-secret")
    assert mounted.search(text)
    file = tmp_path / "fluffle.toml"
    file.write_text(mounted.sub(str(tmp_path / "secret"), text))
    given = {each["name"]: "given" for each in container["env"]}
    assert container["args"] == ["serve", "--config", "/etc/fluffle/fluffle.toml"]
    settings = resolve({"config": [str(file)]}, image_environment() | given)
    assert settings.unknown_variables == ()
    assert settings.remarks == ()
    return settings.config


def test_the_peers_are_the_pods(config: Config, pods: Json, manifests: Manifests) -> None:
    service, port = manifests["Service", pods["serviceName"]], 25_672
    names = [f"fluffle-{ordinal}" for ordinal in range(pods["replicas"])]
    assert config.cluster is not None
    assert config.cluster.peers == {
        name: ListenAddress(f"{name}.{pods['serviceName']}", port) for name in names
    }
    assert config.node_name in config.cluster.peers
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"], "they look for each other before that"
    assert [each["port"] for each in service["spec"]["ports"]] == [port]
    assert config.users == {"given": "given"}, "guest may not come from elsewhere"


def test_ports_are_where_a_node_listens(
    config: Config, container: Json, manifests: Manifests
) -> None:
    assert config.cluster is not None
    addresses = {
        "amqp": config.listen,
        "management": config.management_listen,
        "metrics": config.metrics_listen,
        "cluster": config.cluster.listen,
    }
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {name: address.port for name, address in addresses.items() if address}
    service = {
        each["name"]: each["port"] for each in manifests["Service", "fluffle"]["spec"]["ports"]
    }
    assert service.items() <= ports.items()
    exposed = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[0].split()
    assert {str(port) for port in ports.values()} <= set(exposed)


def test_probes_ask_pages_that_there_are(container: Json) -> None:
    asked = {container[name]["httpGet"]["path"] for name in PROBES}
    assert asked == {"/health/live", "/health/ready"}
    assert {container[name]["httpGet"]["port"] for name in PROBES} == {"metrics"}


def test_everybody_selects_the_pods(manifests: Manifests, pods: Json) -> None:
    labels = pods["template"]["metadata"]["labels"]
    selected = [
        each["spec"]["selector"] for (kind, _), each in manifests.items() if kind == "Service"
    ]
    budget = manifests["PodDisruptionBudget", "fluffle"]["spec"]
    assert budget["maxUnavailable"] < (pods["replicas"] + 1) / 2, "a majority remains"
    assert all(each == labels for each in [*selected, budget["selector"]["matchLabels"]])
    assert pods["selector"]["matchLabels"] == labels


def test_volumes_are_those_that_are_mounted(container: Json, pods: Json) -> None:
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    claims = [each["metadata"]["name"] for each in pods["volumeClaimTemplates"]]
    assert mounted.keys() == {
        *claims,
        *(each["name"] for each in pods["template"]["spec"]["volumes"]),
    }
    assert mounted["data"] == image_environment()["FLUFFLE_DATA_DIR"]


def test_pods_may_do_little(container: Json, pods: Json) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pods["template"]["spec"]["securityContext"]["runAsNonRoot"]
    (user,) = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    assert pods["template"]["spec"]["securityContext"]["runAsUser"] == int(user) > 0


def commands_before_the_end(container: Json) -> list[list[str]]:
    """Commands of a pod before it is asked to end."""
    shell, option, script = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    return [shlex.split(command) for command in script.split(";")]


def test_there_is_time_to_end(container: Json, pods: Json) -> None:
    waits = [
        int(words[words.index("--timeout") + 1] if "--timeout" in words else words[-1])
        for words in commands_before_the_end(container)
        if words[0] == "sleep" or "--timeout" in words
    ]
    assert len(waits) == 2
    assert sum(waits) + STOP_S <= pods["template"]["spec"]["terminationGracePeriodSeconds"]


def test_the_image_starts_a_node() -> None:
    assert instruction("ENTRYPOINT") == ["fluffle"]
    assert instruction("CMD ") == ["serve"]
    assert instruction("HEALTHCHECK")[:2] == ["fluffle", "rabbitmq-diagnostics"]
    ours = {name for name in image_environment() if name.startswith(PREFIX)}
    assert ours <= {option.variable for option in OPTIONS.values()}


def test_commands_are_there(container: Json) -> None:
    for words in [instruction("HEALTHCHECK"), *commands_before_the_end(container)]:
        assert words[0] == "sleep" or words[1] in COMMANDS


@pytest.mark.slow("each command of the pages is a process")
def test_commands_of_image_and_pods_do_their_work(tmp_path: Path, container: Json) -> None:
    fluffle = str(Path(sys.executable).parent / "fluffle")
    environment = {**os.environ, "FLUFFLE_DATA_DIR": str(tmp_path)}
    with Daemon(tmp_path) as daemon:
        for words in [instruction("HEALTHCHECK"), *commands_before_the_end(container)]:
            if words[0] == "fluffle":
                done = subprocess.run(
                    [fluffle, *words[1:]],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr
        assert "drained" in daemon.log


def unit(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_the_unit_starts_a_node() -> None:
    (start,) = unit("ExecStart")
    assert shlex.split(start)[1:] == ["serve", "--config", "/etc/fluffle/fluffle.toml"]
    assert unit("Type") == ["notify"]
    (variable,) = unit("Environment")
    assert resolve({}, dict([variable.split("=", 1)])).unknown_variables == ()
    assert variable.endswith(f"/{unit('StateDirectory')[0]}")
    assert int(unit("TimeoutStopSec")[0]) >= STOP_S


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = require("systemd-analyze")
    file = tmp_path / "fluffle.service"
    there = UNIT.replace("/opt/fluffle/bin/fluffle", str(shutil.which("true")))
    file.write_text(re.sub(r"^(User|Group)=.*\n", "", there, flags=re.MULTILINE))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    ours = [line for line in done.stderr.splitlines() if "fluffle.service" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr
