"""Two clients on node: amqplib and @cloudamqp/amqp-client.  Their checks are scripts in `node/`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.deadlines import DEADLINE_S
from tests.support.node_packages import installed

FOLDER = Path(__file__).parent / "node"

COMMON = [
    "negotiation",
    "login",
    "confirms",
    "mandatory",
    "exchanges",
    "prefetch",
    "requeue",
    "properties",
    "bigBody",
    "channelError",
    "connectionError",
    "exclusive",
    "cancelNotify",
    "rpc",
]
CHECKS = {
    "amqplib.mjs": [*COMMON, "heartbeat", "closeBehindMuch", "recovery"],
    "amqp-client.mjs": [*COMMON, "nack", "transaction", "session"],
}


@pytest.fixture(scope="module")
def node() -> str:
    return installed(FOLDER)


@pytest.mark.parametrize(
    ("script", "check"),
    [(script, check) for script, names in CHECKS.items() for check in names],
)
def test_node(node: str, url: str, script: str, check: str) -> None:
    result = run(node, script, check, url=url)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["check"] == check


@pytest.mark.parametrize("script", CHECKS)
def test_every_check_is_run(node: str, script: str) -> None:
    assert sorted(json.loads(run(node, script, "--list").stdout)) == sorted(CHECKS[script])


def test_a_check_that_fails_is_seen(node: str) -> None:
    result = run(node, "amqplib.mjs", "confirms", url="amqp://127.0.0.1:1")
    assert result.returncode != 0
    assert "ECONNREFUSED" in result.stderr


def run(node: str, script: str, check: str, url: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [node, script, check],
        cwd=FOLDER,
        env=os.environ | {"AMQP_URL": url},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
