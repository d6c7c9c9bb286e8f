"""Imports of a broker inside a test, and what is not imported until it is used.

A module costs a third of a millisecond, so a start becomes slow by imports and by nothing else:
these are counted, which is the same on each machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST_CONNECTION = """
import sys
from fluffle.broker import ThreadedBroker

with ThreadedBroker() as broker:
    from benchmarks.client import Address, open_connection
    with open_connection(Address(*broker.broker.node.addresses["amqp"])) as connection:
        connection.open_channel()
        {more}
    print(*sys.modules)
"""
QUEUE = "connection.call(50, 10, bytes(2) + b'\\x01q' + bytes(5), 11)"
"""queue.declare"""

UNUSED = {
    "management": ("fluffle.broker.admin.dispatch", "fluffle.broker.admin.nodes"),
    "commands": ("click", "fluffle.broker.cli", "fluffle.broker.__main__"),
    "options": ("fluffle.broker.config.options", "tomllib", "difflib", "shlex"),
    "metrics": ("fluffle.broker.metrics", "prometheus_client", "aiohttp"),
    "MQTT": (
        "fluffle.broker.protocols.mqtt",
        "fluffle.protocol.mqtt.packets",
    ),
    "TLS": (
        "fluffle.broker.process.certificates",
        "OpenSSL",
        "cryptography",
    ),
    "the daemon": ("fluffle.broker.daemon.daemon", "uvloop"),
    "the cluster and quorum queues": (
        "fluffle.broker.cluster",
        "fluffle.broker.composition.clustered_node",
        "fluffle.broker.queues.quorum",
        "fluffle.raft.multiraft",
    ),
    "a disk": ("lmdb", "fluffle.storage.environment"),
    "definitions from a file": ("fluffle.broker.definitions.importer",),
    "management, and counts by object": (
        "fluffle.broker.protocols.http",
        "fluffle.broker.statistics",
    ),
    "policies": ("fluffle.broker.policies.validation",),
    "announcements": ("fluffle.broker.core.client_events",),
    "moving messages": (
        "fluffle.broker.transfer.mover",
        "fluffle.broker.transfer.conversion",
    ),
    "other patterns than .*": (
        "fluffle.broker.patterns.automaton",
        "fluffle.broker.patterns.search",
    ),
    "metadata of packages": ("importlib.metadata", "email", "platform"),
}
"""Not ssl: asyncio imports that itself."""

MEASURED = "COVERAGE_PROCESS_CONFIG"
"""Variable by which a measured process measures its children: what measures imports, too."""
MODULES_MAX = 196
"""Most modules of ours; more of them for every start need a reason."""


def imported(more: str = "pass") -> list[str]:
    """Modules that a process has imported after a first connection."""
    code = FIRST_CONNECTION.format(more=more)
    environment = {name: value for name, value in os.environ.items() if name != MEASURED}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def modules() -> list[str]:
    return imported(QUEUE)


@pytest.mark.parametrize("what", UNUSED)
def test_what_is_not_used_is_not_imported(what: str, modules: list[str]) -> None:
    unused = UNUSED[what]
    inside = tuple(f"{name}." for name in unused)
    assert [name for name in modules if name in unused or name.startswith(inside)] == []


def test_a_start_imports_few_modules(modules: list[str]) -> None:
    ours = [name for name in modules if name.startswith("fluffle.")]
    assert 150 < len(ours) <= MODULES_MAX


def test_what_is_used_is_imported() -> None:
    """So that the list above names what there is."""
    used = {name for names in UNUSED.values() for name in names}
    more = "import importlib; [importlib.import_module(name) for name in {} if name not in {}]"
    foreign = {"OpenSSL", "cryptography"}
    assert used - set(imported(more.format(sorted(used), sorted(foreign)))) <= foreign


@pytest.mark.parametrize("first", ["gc.enable()", "gc.disable()"])
def test_garbage_is_looked_for_as_before(first: str) -> None:
    code = f"import gc; {first}; was = gc.isenabled(); from fluffle.broker import Broker; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(was is gc.isenabled())"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "True\n"


NODE_WITH_MANAGEMENT = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from fluffle.broker.cluster.cluster import ClusterService
from fluffle.broker.composition.listeners import NodeListeners
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.node import Node

class Seen(Exception):
    pass

def see(_part):
    print("fluffle.broker.protocols.http.server" in sys.modules)
    raise Seen

async def main():
    here = ListenAddress("127.0.0.1", 0)
    config = Config(node_name="a", data_dir=Path(sys.argv[1]), listen=here, management_listen=here,
                    cluster=ClusterConfig({{"a": here}}, b"secret", listen=here))
    try:
        await Node(config if {is_clustered} else replace(config, cluster=None)).start()
    except Seen:
        pass

ClusterService.start = NodeListeners.open_clients = see
asyncio.run(main())
"""


@pytest.mark.parametrize("is_clustered", [False, True])
def test_management_is_imported_before_a_node_has_anything_to_answer(
    is_clustered: bool, tmp_path: Path
) -> None:
    """The import takes a second, in which no client is answered, and no other node of a cluster:
    these would take the node for dead."""
    code = NODE_WITH_MANAGEMENT.format(is_clustered=is_clustered)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"
