"""What can be tortured on this machine, by name: each a context that starts it and ends it."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import NamedTuple, TypeAlias

from fluffle.broker.cluster.copies import SET_ASIDE
from fluffle.broker.torture.run import await_serving
from fluffle.broker.torture.system import Deed, DeedFailed, Doing, System, by_command, mesh
from fluffle.broker.torture.talk import Address, Manners
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER
from tests import support
from tests.compat.oracle import Ports, environment, free_port, prepare, script
from tests.support.daemon import environment_for_nodes
from tests.support.disks import NoDisk, fill, free, small_disk
from tests.support.powercut import cut_power, forgetting_environment, preloaded
from tests.torture.epmd import Registry, port_mapper
from tests.torture.processes import Command, Processes, processes
from tests.torture.throttle import throttles

COMMAND = (sys.executable, "-m", "fluffle.broker")
FLUFFLE = (*COMMAND, "serve")
NODES = ("a", "b", "c")
DISK_MIB = 384
HOUR_S = 3_600
SKEWED = Path(support.__file__).with_name("skewed.c")
REFUSED_S = 60.0
"""A node that must not come back says so within this."""
ATTEMPTS, AGAIN_S = 60, 2.0
SYNC_MS = 5
"""What a sync takes at least where power is cut: who does not wait for it is not seen otherwise."""
RABBITMQ_DISK_MIB = 2_048
"""Of disks that can be filled.  RabbitMQ keeps what was consumed for some time: at 300 messages a
second, some of them large, hundreds of MB, though nothing is left in the queues."""
RABBITMQ_CONFIG = """
cluster_formation.peer_discovery_backend = classic_config
cluster_partition_handling = pause_minority
raft.wal_max_size_bytes = 64000000
"""
"""Its log of half a gigabyte would have no room on a disk that can be filled."""
TICK_S = 15
"""When Erlang takes a silent node for lost: the minute that is the default is longer than most of
our partitions; RabbitMQ's own Jepsen tests set the same."""

Launch: TypeAlias = Callable[[Path], AbstractAsyncContextManager[System]]


def small_disks(stack: AsyncExitStack, folders: Mapping[str, Path], mib: int) -> dict[Deed, Doing]:
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

    return {Deed.FILL: fill_up, Deed.FREE: make_room}


class Place(NamedTuple):
    """Where a node is."""

    data: Path
    copy: Path
    """Of its store; not on its disk."""
    log: Path
    address: str
    """For the other nodes."""

    @property
    def store(self) -> Path:
        return self.data / STORE_FOLDER


class Machines:
    """What nodes run on, by their names: each has a disk whose power can be cut, and a clock of the
    day that an hour parts from that of the next."""

    def __init__(self, folder: Path, data: Mapping[str, Path]) -> None:
        """They are as any where nothing can be compiled."""
        self._data = data
        self._folder = folder
        self._random = Random()
        self._nodes = [*data]
        self.is_special = shutil.which("cc") is not None
        if not self.is_special:
            print("power cannot be cut, and all clocks are right: no cc", file=sys.stderr)

    def environment(self, node: str) -> dict[str, str]:
        """Of its process."""
        if not self.is_special:
            return environment_for_nodes()
        forgetting = forgetting_environment(self._folder, self._synced(node), SYNC_MS)
        libraries = forgetting.pop("LD_PRELOAD"), preloaded(SKEWED, self._folder)
        skewed_s = HOUR_S * (self._nodes.index(node) - 1)
        special = {"LD_PRELOAD": ":".join(libraries), "SKEWED_S": str(skewed_s)}
        return {**environment_for_nodes(), **forgetting, **special}

    def deeds(self, kill: Doing) -> dict[Deed, Doing]:
        async def unplug(node: str) -> None:
            await kill(node)
            data = self._data[node] / STORE_FOLDER / DATA_FILE
            await asyncio.to_thread(cut_power, data, self._synced(node), self._random)

        return {Deed.UNPLUG: unplug} if self.is_special else {}

    def forget(self, node: str) -> None:
        """Its disk is another one, on which nothing is."""
        self._synced(node).unlink(missing_ok=True)

    def _synced(self, node: str) -> Path:
        """Beside its disk, which may be full."""
        return self._folder / f"synced of {node}"


class RollingBack:
    """Disks of a cluster's nodes that are put back to what they were while they ran."""

    def __init__(self, group: Processes, machines: Machines, nodes: Mapping[str, Place]) -> None:
        self._group = group
        self._machines = machines
        self._nodes = nodes

    @property
    def deeds(self) -> dict[Deed, Doing]:
        return {
            Deed.COPY: self.copy,
            Deed.RESTORE: self.restore,
            Deed.REFUSED: self.refused,
            Deed.RENEW: self.renew,
        }

    async def copy(self, node: str) -> None:
        """As of one moment, as a machine makes it that stands still meanwhile."""
        store, kept = self._nodes[node].store, self._nodes[node].copy
        await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)
        await self._group.pause(node)
        await asyncio.to_thread(shutil.copytree, store, kept)
        await self._group.resume(node)

    async def restore(self, node: str) -> None:
        store, kept = self._nodes[node].store, self._nodes[node].copy
        await asyncio.to_thread(shutil.rmtree, store)
        await asyncio.to_thread(shutil.copytree, kept, store)

    async def refused(self, node: str) -> None:
        """It says what goes on."""
        if not await self._group.ends(node, REFUSED_S):
            raise DeedFailed(f"{node} has ended as if nothing was wrong")
        said = self._nodes[node].log.read_text(encoding="utf-8").splitlines()[-1]
        if "fluffle data restored" not in said:
            raise DeedFailed(f"{node} has ended, and does not say what goes on: {said}")

    async def renew(self, node: str) -> None:
        """What it says is done."""
        here = self._nodes[node]
        await self._told("data", "restored", "--data-dir", str(here.data))
        await asyncio.to_thread(shutil.rmtree, here.data / f"{SET_ASIDE}-1")
        self._machines.forget(node)
        others = [str(there.data) for name, there in self._nodes.items() if name != node]
        await self._until_done(others, "cluster", "forget", node)
        await self._until_done(others, "cluster", "add", f"{node}={here.address}")
        await self._group.start(node)
        await self._until_done(others, "queues", "grow", node)

    async def _until_done(self, places: Sequence[str], *words: str) -> None:
        """By whichever of these nodes can: links may be cut meanwhile."""
        said = ""
        for _ in range(ATTEMPTS):
            for place in places:
                try:
                    await self._told(*words, "--data-dir", place)
                except DeedFailed as failed:
                    said = str(failed)
                else:
                    return
            await asyncio.sleep(AGAIN_S)
        raise DeedFailed(said)

    async def _told(self, *words: str) -> None:
        """A command, that is done; DeedFailed with what it says."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            env=environment_for_nodes(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise DeedFailed(f"fluffle {' '.join(words)}: {output.decode().strip()}")


@asynccontextmanager
async def lone_fluffle(folder: Path) -> AsyncIterator[System]:
    """One node with durable classic queues: whatever it confirms is on its disk."""
    port, data = free_port(), folder / "data"
    data.mkdir(parents=True)
    words = (*FLUFFLE, "--listen", f"127.0.0.1:{port}", "--data-dir", str(data))
    machines = Machines(folder, {"node": data})
    command = Command(words, machines.environment("node"), folder / "log")
    async with AsyncExitStack() as stack:
        filling = small_disks(stack, {"node": data}, DISK_MIB)
        group = await stack.enter_async_context(processes({"node": command}))
        throttling = await stack.enter_async_context(throttles(("node",), group.pid))
        addresses = [Address("node", "127.0.0.1", port)]
        deeds = {**group.deeds, **throttling, **filling, **machines.deeds(group.kill)}
        yield System(addresses, deeds, queue_type="classic")


@asynccontextmanager
async def three_fluffles(folder: Path) -> AsyncIterator[System]:
    """A cluster with quorum queues, and links that can be cut."""
    secret, amqp = token_hex(16), {node: free_port() for node in NODES}
    listening = {node: free_port() for node in NODES}
    async with AsyncExitStack() as stack:
        data = {node: folder / node / "data" for node in NODES}
        for place in data.values():
            place.mkdir(parents=True)
        filling = small_disks(stack, data, DISK_MIB)
        links = await stack.enter_async_context(mesh(listening))
        commands, machines = {}, Machines(folder, data)
        for node in NODES:
            through = {to: proxy.port for (by, to), proxy in links.proxies.items() if by == node}
            ports = {node: listening[node], **through}
            peers = {peer: ports[peer] for peer in NODES}  # in one order: the first founds
            options = {
                "node": node,
                "data-dir": str(data[node]),
                "listen": f"127.0.0.1:{amqp[node]}",
                "cluster-listen": f"127.0.0.1:{listening[node]}",
                "peers": ",".join(f"{peer}=127.0.0.1:{port}" for peer, port in peers.items()),
            }
            words = [word for name, value in options.items() for word in (f"--{name}", value)]
            variables = {**machines.environment(node), "FLUFFLE_CLUSTER_SECRET": secret}
            commands[node] = Command((*FLUFFLE, *words), variables, folder / node / "log")
        group = await stack.enter_async_context(processes(commands))
        throttling = await stack.enter_async_context(throttles(NODES, group.pid))
        linked = {Deed.ISOLATE: links.isolate, Deed.REJOIN: links.rejoin}
        addresses = [Address(node, "127.0.0.1", port) for node, port in amqp.items()]
        places = {
            node: Place(
                data[node], folder / node / "copy", folder / node / "log",
                f"127.0.0.1:{listening[node]}",
            )
            for node in NODES
        }  # fmt: skip
        rolling_back = RollingBack(group, machines, places).deeds
        unplugging = machines.deeds(group.kill)
        special = {**throttling, **filling, **linked, **unplugging, **rolling_back}
        yield System(addresses, {**group.deeds, **special}, links)


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
            addresses.append(Address(node, "127.0.0.1", ports.amqp))
        group = await stack.enter_async_context(processes(commands))
        for address in addresses:
            await await_serving(address, (), Manners())
        whole = [script("rabbitmqctl"), "--node", names["a"], "await_online_nodes", "3"]
        await by_command(shlex.join(whole), commands["a"].environment)("a")
        throttling = await stack.enter_async_context(throttles(NODES, group.pid))
        linked = {Deed.ISOLATE: links.isolate, Deed.REJOIN: links.rejoin}
        yield System(addresses, {**group.deeds, **throttling, **filling, **linked}, links)


SYSTEMS: dict[str, Launch] = {
    "fluffle": three_fluffles,
    "lone": lone_fluffle,
    "rabbitmq": three_rabbits,
}
