"""Systems that can be tortured on this machine, by name: each a context that starts it and ends
it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import TypeAlias

from fluffle.broker.amqp_client import ClientOptions
from fluffle.broker.cluster.data_directory import SET_ASIDE
from fluffle.broker.torture.checker import Findings
from fluffle.broker.torture.online_checker import HistoryWriter
from fluffle.broker.torture.proxy import Mesh, mesh
from fluffle.broker.torture.run import RunOptions, await_serving, run_in_loop
from fluffle.broker.torture.system import (
    Doing,
    NodeAction,
    NodeActionFailed,
    NodeAddress,
    System,
    by_command,
)
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER
from tests import support
from tests.compat.oracle import Ports, environment, free_port, prepare, script
from tests.support.daemon import environment_for_nodes
from tests.support.mqtt_load import MqttLoad
from tests.support.powercut import cut_power, forgetting_environment, preloaded
from tests.support.small_disk import NoDisk, fill, free, small_disk
from tests.torture.epmd import Registry, port_mapper
from tests.torture.membership import COMMAND, Membership, NodePaths, Operator
from tests.torture.processes import Command, Processes, processes
from tests.torture.throttle import throttles

FLUFFLE = (*COMMAND, "serve")
NODES, SPARES = ("a", "b", "c"), ("d", "e")
DISK_MIB = 384
HOUR_S = 3_600
SKEWED = Path(support.__file__).with_name("skewed.c")
REFUSED_S = 60.0
"""A node that must not come back says so within this."""
LAST_LINES = 20
"""Last lines of a log: a node that ends while it serves says why before its last line."""
SYNC_MS = 5
"""Shortest time of a sync where power is cut, so that an early reply is noticed."""
RABBITMQ_DISK_MIB = 2_048
"""Size of disks that can be filled.  RabbitMQ keeps what was consumed for some time: at 300
messages a second, some of them large, hundreds of MB, though nothing is left in the queues."""
RABBITMQ_CONFIG = """
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
raft.wal_max_size_bytes = 64000000
"""
"""Configuration of RabbitMQ, whose default log of half a gigabyte has no room on a disk that can be
filled."""
MQTT_PAUSE_S = 0.3
"""Shortest time of an MQTT publisher between two batches."""
MQTT_SHARE = 1 / 30
"""Messages of such a batch, by the messages a second of a run."""
MQTT_FINISH_S = 120.0
"""How long MQTT clients may take for what is left in the end."""
TICK_S = 15
"""When Erlang takes a silent node for lost: the minute that is the default is longer than most of
our partitions; RabbitMQ's own Jepsen tests set the same."""

Launch: TypeAlias = Callable[[Path], AbstractAsyncContextManager[System]]


def small_disks(
    stack: AsyncExitStack, folders: Mapping[str, Path], mib: int
) -> dict[NodeAction, Doing]:
    """A disk of its own in the folder of each node, and how to fill it; nothing if not root."""
    try:
        for folder in folders.values():
            stack.enter_context(small_disk(folder, mib))
    except NoDisk as error:
        print(f"disks cannot be filled: {error}", file=sys.stderr)
        return {}

    async def fill_up(node: str) -> None:
        await asyncio.to_thread(fill, folders[node])

    async def make_room(node: str) -> None:
        free(folders[node])

    return {NodeAction.FILL: fill_up, NodeAction.FREE: make_room}


class Machines:
    """Machines of nodes by name: each has a disk whose power can be cut, and a time of day an hour
    apart from the next one's."""

    def __init__(self, folder: Path, data: Mapping[str, Path]) -> None:
        """Prepare the machines, which have no special disk or clock where nothing can be
        compiled."""
        self._data = data
        self._folder = folder
        self._random = Random()
        self._nodes = [*data]
        self.is_special = shutil.which("cc") is not None
        if not self.is_special:
            print("power cannot be cut, and all clocks are right: no cc", file=sys.stderr)

    def environment(self, node: str) -> dict[str, str]:
        """Environment of a node's process."""
        if not self.is_special:
            return environment_for_nodes()
        forgetting = forgetting_environment(self._folder, self._synced(node), SYNC_MS)
        libraries = forgetting.pop("LD_PRELOAD"), preloaded(SKEWED, self._folder)
        skewed_s = HOUR_S * (self._nodes.index(node) - 1)
        special = {"LD_PRELOAD": ":".join(libraries), "SKEWED_S": str(skewed_s)}
        return {**environment_for_nodes(), **forgetting, **special}

    def actions(self, kill: Doing) -> dict[NodeAction, Doing]:
        async def unplug(node: str) -> None:
            await kill(node)
            data = self._data[node] / STORE_FOLDER / DATA_FILE
            await asyncio.to_thread(cut_power, data, self._synced(node), self._random)

        return {NodeAction.UNPLUG: unplug} if self.is_special else {}

    def forget(self, node: str) -> None:
        """Give the node another disk, which is empty."""
        self._synced(node).unlink(missing_ok=True)

    def _synced(self, node: str) -> Path:
        """Beside its disk, which may be full."""
        return self._folder / f"synced of {node}"


class RollingBack:
    """Disks of a cluster's nodes that are put back to what they were while they ran."""

    def __init__(
        self,
        group: Processes,
        machines: Machines,
        nodes: Mapping[str, NodePaths],
        operator: Operator,
    ) -> None:
        self._group = group
        self._machines = machines
        self._nodes = nodes
        self._operator = operator

    @property
    def actions(self) -> dict[NodeAction, Doing]:
        return {
            NodeAction.COPY: self.copy,
            NodeAction.RESTORE: self.restore,
            NodeAction.OVERWRITE: self.overwrite,
            NodeAction.REFUSED: self.refused,
            NodeAction.RENEW: self.renew,
        }

    async def copy(self, node: str) -> None:
        """Copy a disk as of one moment, as a machine does that stands still meanwhile."""
        store, kept = self._nodes[node].store, self._nodes[node].copy
        await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)
        await self._group.pause(node)
        await asyncio.to_thread(shutil.copytree, store, kept)
        await self._group.resume(node)

    async def restore(self, node: str) -> None:
        store, kept = self._nodes[node].store, self._nodes[node].copy
        await asyncio.to_thread(shutil.rmtree, store)
        await asyncio.to_thread(shutil.copytree, kept, store)

    async def overwrite(self, node: str) -> None:
        store, kept = self._nodes[node].store, self._nodes[node].copy
        await asyncio.to_thread(overwrite, store, kept)

    async def refused(self, node: str) -> None:
        """Wait until it has ended, and said what goes on."""
        if not await self._group.ends(node, REFUSED_S):
            raise NodeActionFailed(f"{node} has ended as if nothing was wrong")
        said = self._nodes[node].log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:]
        if not any("fluffle data restored" in line for line in said):
            raise NodeActionFailed(f"{node} has ended, and does not say what goes on: {said[-1]}")

    async def renew(self, node: str) -> None:
        """Do what it says."""
        here = self._nodes[node]
        await self._operator.do("data", "restored", "--data-dir", str(here.data))
        await asyncio.to_thread(shutil.rmtree, here.data / f"{SET_ASIDE}-1")
        self._machines.forget(node)
        await self._operator.do_without(node, "cluster", "forget", node, "--yes")
        await self._operator.do_without(node, "cluster", "add", f"{node}={here.address}")
        await self._group.start(node)
        await self._operator.grow(node)


@dataclass(frozen=True, slots=True)
class MqttSystem(System):
    """System whose nodes speak MQTT, too."""

    mqtt: Sequence[tuple[str, int]] = ()
    """Where its nodes take clients of MQTT."""


async def torture(
    system: System, order: RunOptions, history_writer: HistoryWriter, echo: Callable[[str], None]
) -> int:
    """Run with clients of MQTT at work beside those of AMQP; the exit code."""
    if not isinstance(system, MqttSystem):
        return await run_in_loop(system, order, history_writer, echo)
    over, findings = asyncio.Event(), Findings()
    window = max(1, round(order.rate * MQTT_SHARE))
    is_exact = len(system.mqtt) == 1
    load = MqttLoad(findings, is_exact=is_exact, pause_s=MQTT_PAUSE_S, window=window)
    work = asyncio.create_task(load.roam(system.mqtt, Random(order.seed), over))
    try:
        code = await run_in_loop(system, order, history_writer, echo)
    finally:
        over.set()
        await work
    await load.finish(system.mqtt[0], limit_s=MQTT_FINISH_S)
    for line in (str(load), *findings.sentences()):
        echo(line)
    return code or int(not findings.is_clean)


@asynccontextmanager
async def lone_fluffle(folder: Path) -> AsyncIterator[System]:
    """System of one node with durable classic queues: whatever it confirms is on its disk."""
    port, data = free_port(), folder / "data"
    data.mkdir(parents=True)
    mqtt = ("127.0.0.1", free_port())
    at = "--listen", f"127.0.0.1:{port}", "--mqtt", f"127.0.0.1:{mqtt[1]}"
    words = (*FLUFFLE, *at, "--data-dir", str(data))
    machines = Machines(folder, {"node": data})
    command = Command(words, machines.environment("node"), folder / "log")
    async with AsyncExitStack() as stack:
        filling = small_disks(stack, {"node": data}, DISK_MIB)
        group = await stack.enter_async_context(processes({"node": command}))
        throttling = await stack.enter_async_context(throttles(("node",), group.pid))
        addresses = [NodeAddress("node", "127.0.0.1", port)]
        actions = {**group.actions, **throttling, **filling, **machines.actions(group.kill)}
        yield MqttSystem(addresses, actions, queue_type="classic", mqtt=[mqtt])


class Cluster:
    """How nodes of ours are started that reach each other through a mesh."""

    def __init__(self, places: Mapping[str, NodePaths], machines: Machines, links: Mesh) -> None:
        self._places = places
        self._machines = machines
        self._links = links
        self._secret = token_hex(16)
        self.amqp = {node: free_port() for node in places}
        self.mqtt = {node: free_port() for node in places}

    def command(self, node: str, peers: Sequence[str]) -> Command:
        """`peers`: the founders of the cluster, the first of them in front."""
        here = self._places[node]
        at = {peer: self._listens_at(peer, node) for peer in peers}
        options = {
            "node": node,
            "data-dir": str(here.data),
            "listen": f"127.0.0.1:{self.amqp[node]}",
            "mqtt": f"127.0.0.1:{self.mqtt[node]}",
            "cluster-listen": here.address,
            "peers": ",".join(f"{peer}={address}" for peer, address in at.items()),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        variables = self._machines.environment(node)
        variables["FLUFFLE_CLUSTER_SECRET"] = self._secret
        return Command((*FLUFFLE, *words), variables, here.log)

    def _listens_at(self, node: str, by: str) -> str:
        """The address of a node, as another one has it."""
        if node == by:
            return self._places[node].address
        return f"127.0.0.1:{self._links.proxies[by, node].port}"

    def addresses(self, nodes: Sequence[str]) -> list[NodeAddress]:
        return [NodeAddress(node, "127.0.0.1", self.amqp[node]) for node in nodes]


@asynccontextmanager
async def three_fluffles(folder: Path) -> AsyncIterator[System]:
    """A cluster with quorum queues, links that can be cut, and nodes that may join it."""
    every = (*NODES, *SPARES)
    listening = {node: free_port() for node in every}
    places = {node: paths_in(folder / node, port) for node, port in listening.items()}
    async with AsyncExitStack() as stack:
        data = {node: place.data for node, place in places.items()}
        for here in data.values():
            here.mkdir(parents=True)
        filling = small_disks(stack, data, DISK_MIB)
        links = await stack.enter_async_context(mesh(listening))
        machines = Machines(folder, data)
        cluster = Cluster(places, machines, links)
        commands = {node: cluster.command(node, NODES) for node in NODES}
        group = await stack.enter_async_context(processes(commands))
        for address in cluster.addresses(NODES):
            await await_serving(address, (), ClientOptions())
        # From now on they know how to reach the others, too: not of a registry, but by a proxy.
        commands.update({node: cluster.command(node, every) for node in every})
        for step in (group.stop, group.start):
            await asyncio.gather(*map(step, NODES))
        throttling = await stack.enter_async_context(throttles(every, group.pid))
        operator = Operator(places)
        special = {
            **throttling,
            **filling,
            NodeAction.ISOLATE: links.isolate,
            NodeAction.REJOIN: links.rejoin,
            **machines.actions(group.kill),
            **RollingBack(group, machines, places, operator).actions,
            **Membership(operator, NODES, places, machines.forget).actions,
        }
        addresses, spares = cluster.addresses(NODES), cluster.addresses(SPARES)
        mqtt = [("127.0.0.1", cluster.mqtt[node]) for node in NODES]
        actions = {**group.actions, **special}
        yield MqttSystem(addresses, actions, links, spares=spares, mqtt=mqtt)


def paths_in(folder: Path, port: int) -> NodePaths:
    return NodePaths(folder / "data", folder / "copy", folder / "log", f"127.0.0.1:{port}")


@asynccontextmanager
async def three_rabbits(folder: Path) -> AsyncIterator[System]:
    """A cluster of RabbitMQ with links that can be cut: for calibration."""
    names = {node: f"{node}@localhost" for node in NODES}
    peers = "".join(
        f"cluster_formation.classic_config.nodes.{number} = {name}\n"
        for number, name in enumerate(names.values(), start=1)
    )
    listening = {node: free_port() for node in NODES}
    registry, cookie = Registry(), token_hex(16)
    commands, addresses = {}, []
    async with AsyncExitStack() as stack:
        data = {node: folder / node / "mnesia" for node in NODES}
        filling = small_disks(stack, data, RABBITMQ_DISK_MIB)
        links = await stack.enter_async_context(mesh(listening))
        for node, name in names.items():
            through = {other: links.proxies[node, other].port for other in NODES if other != node}
            mapper = await stack.enter_async_context(port_mapper(registry, through))
            ports = Ports(free_port(), listening[node], mapper)
            prepare(folder / node, ports, RABBITMQ_CONFIG + peers, cookie=cookie)
            variables = environment(folder / node, name, ports, f"-kernel net_ticktime {TICK_S}")
            words, log = [script("rabbitmq-server")], folder / node / "output"
            commands[node] = Command(words, variables, log)
            addresses.append(NodeAddress(node, "127.0.0.1", ports.amqp))
        group = await stack.enter_async_context(processes(commands))
        for address in addresses:
            await await_serving(address, (), ClientOptions())
        whole = [script("rabbitmqctl"), "--node", names["a"], "await_online_nodes", "3"]
        await by_command(shlex.join(whole), commands["a"].environment)("a")
        throttling = await stack.enter_async_context(throttles(NODES, group.pid))
        linked = {NodeAction.ISOLATE: links.isolate, NodeAction.REJOIN: links.rejoin}
        yield System(addresses, {**group.actions, **throttling, **filling, **linked}, links)


SYSTEMS: dict[str, Launch] = {
    "fluffle": three_fluffles,
    "lone": lone_fluffle,
    "rabbitmq": three_rabbits,
}


def overwrite(folder: Path, kept: Path) -> None:
    """Give the files of a folder the content that was kept of them; each is the file it was."""
    for file in kept.iterdir():
        there = folder / file.name
        before = there.stat()
        with there.open("r+b") as output, file.open("rb") as content:
            shutil.copyfileobj(content, output)
            output.truncate()
            os.fsync(output.fileno())
        assert there.stat().st_ino == before.st_ino
    for file in folder.iterdir():
        if not (kept / file.name).exists():
            file.unlink()
