"""docs/test-server.md: its tables are those of the operations, and its requests work."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fluffle.broker.testing.server import cluster_operations
from fluffle.broker.testing.server.cluster_operations import NODE
from fluffle.broker.testing.server.operations import (
    OPERATIONS,
    TAKING,
    VHOST,
    ControlOperation,
    Operations,
)
from tests.support.deadlines import DEADLINE_S
from tests.support.require import require

PAGE = Path(__file__).parent.parent / "docs" / "test-server.md"
TAKEN = {VHOST + path for path in TAKING}
OF_CLUSTER = {
    path: operation
    for path, operation in cluster_operations.OPERATIONS.items()
    if path not in OPERATIONS and not path.startswith(NODE + VHOST)
}
"""Operations that are not described for brokers already."""


def row(path: str, operation: ControlOperation) -> str:
    """The line of the table about one operation."""
    names = (
        f"`{name}`" if argument.required else f"[`{name}`]"
        for name, argument in operation.arguments.items()
    )
    what = " ".join((inspect.getdoc(operation.act) or "").split())
    return f"| `{path}` | {', '.join(names)} | {what} |"


@pytest.mark.parametrize("operations", [OPERATIONS, OF_CLUSTER], ids=["broker", "cluster"])
def test_the_tables_are_those_of_the_operations(operations: Operations) -> None:
    table = ["| path | arguments | what it does |", "|---|---|---|"]
    table += [row(path, operation) for path, operation in operations.items()]
    assert "\n".join(table) + "\n\n" in PAGE.read_text(encoding="utf-8"), "\n".join(table)


def test_faults_of_a_broker_are_there_for_each_node_of_a_cluster() -> None:
    faults = OPERATIONS.keys() - cluster_operations.OPERATIONS.keys() - TAKEN
    assert {NODE + path for path in faults} <= cluster_operations.OPERATIONS.keys()


@pytest.mark.parametrize("example", ["node-app", "mqttjs-app"])
def test_its_client_for_node_is_that_of_the_examples(example: str) -> None:
    client = (PAGE.parent / "examples" / example / "control.mjs").read_text(encoding="utf-8")
    assert f"```js\n{client}```" in PAGE.read_text(encoding="utf-8")


@pytest.mark.interop
def test_its_requests_do_what_they_say() -> None:
    block = re.search(r"```sh\n(curl .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    curl = require("curl")
    commands = block[1].replace("curl ", f"{curl} --silent --show-error --fail-with-body ")
    server = (sys.executable, "-m", "fluffle.broker", "test-server")
    done = subprocess.run(
        [*server, "sh", "-e", "-c", commands],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith('{"name": "test-1", "url": "amqp://guest:guest@127.0.0.1:')
    assert done.stdout.endswith("{}{}")
