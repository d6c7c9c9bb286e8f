"""Operations on a cluster: those on a broker, and faults of its nodes, disks and network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fluffle.broker.admin.arguments import arguments_of
from fluffle.broker.base.errors import NotFound
from fluffle.broker.testing.cluster.cluster import Cluster
from fluffle.broker.testing.cluster.node import ClusterNode, ProcessState
from fluffle.broker.testing.faults.operations import OPERATIONS as FAULTS
from fluffle.broker.testing.server.operations import (
    ON_ALL,
    ON_VHOST,
    VHOST,
    Act,
    ControlOperation,
    Operations,
    Row,
    by_path,
    bytes_of,
    check_within,
    itself,
    operations,
    vhost_of,
)

NODE = "nodes/{node}/"
"""How paths begin of what is done to one of the nodes."""


class OperationTarget(NamedTuple):
    """A node; or a virtual host, seen from the whole cluster or from a node."""

    cluster: Cluster
    number: int = 0
    vhost: str = ""

    @property
    def node(self) -> ClusterNode:
        return self.cluster.nodes[self.number]


async def nodes(cluster: Cluster) -> Row:
    """All nodes: `state` is `running`, `paused`, `down` or `failed`; `url` and `mqtt_url` are for
    clients."""
    rows = zip(cluster.nodes, cluster.urls, cluster.mqtt_urls, strict=True)
    return {
        "nodes": [
            {"node": node.number, "state": node.state.value, "url": url, "mqtt_url": mqtt_url}
            for node, url, mqtt_url in rows
        ]
    }


async def slow_disk(place: OperationTarget, *, ms: float) -> None:
    """Each commit takes so much longer."""
    await place.node.disk.slow(ms)


async def corrupt_disk(place: OperationTarget, *, body: str, body_encoding: str = "utf-8") -> None:
    """A byte of each entry that holds this is not what was written."""
    await place.node.disk.corrupt(bytes_of(body, body_encoding))


async def partition(cluster: Cluster, *, sides: list[list[int]]) -> None:
    """Nothing goes between these sides any more: `[[0], [1, 2]]`."""
    await cluster.net.partition(*sides)


async def cut(cluster: Cluster, *, from_node: int, to_node: int) -> None:
    """Nothing goes this way any more."""
    await cluster.net.cut(from_node, to_node)


async def drop(
    cluster: Cluster, *, share: float, from_node: int | None = None, to_node: int | None = None
) -> None:
    """Lose this share of what nodes send each other; it is sent again 200 ms later or more."""
    await cluster.net.drop(share, from_=from_node, to=to_node)


async def delay(
    cluster: Cluster, *, ms: float, from_node: int | None = None, to_node: int | None = None
) -> None:
    """Delay what nodes send each other by `ms`."""
    await cluster.net.delay(ms, from_=from_node, to=to_node)


async def heal(cluster: Cluster) -> None:
    """The network is as it was in the beginning; what was held up arrives."""
    await cluster.net.heal()


async def leader(
    place: OperationTarget, *, queue: str, other_than: int | None = None, within: float = 10.0
) -> Row:
    """The `node` that leads a queue, or has a classic one, once there is one, and it is not
    `other_than`; 409 if there is none within so many seconds."""
    check_within(within)
    found = await place.cluster.leader(
        queue, vhost=place.vhost, other_than=other_than, within=within
    )
    return {"node": found}


async def move_leader(
    place: OperationTarget, *, queue: str, node: int, within: float = 10.0
) -> None:
    """Have another member lead a quorum queue; returns once it does."""
    check_within(within)
    await place.cluster.move_leader(queue, node, vhost=place.vhost, within=within)


async def members(place: OperationTarget, *, queue: str) -> Row:
    """The `nodes` that have the messages of a queue."""
    return {"nodes": sorted(await place.cluster.members(queue, vhost=place.vhost))}


def of_process(name: str) -> Act:
    """Operation that calls a method of `Nodes` for one node."""

    async def act(place: OperationTarget) -> None:
        await getattr(place.cluster.nodes, name)(place.number)

    act.__doc__ = PROCESS[name]
    return act


def of_disk(name: str) -> Act:
    """Operation that calls a method of a node's disk."""

    async def act(place: OperationTarget) -> None:
        await getattr(place.node.disk, name)()

    act.__doc__ = DISK[name]
    return act


def fault(act: Callable[..., Any]) -> ControlOperation:
    """Operation that causes a broker's fault in the process of a node."""

    async def done(place: OperationTarget, **arguments: Any) -> Row:
        node = place.node
        if node.state is not ProcessState.RUNS:
            raise RuntimeError(f"node {node.number} is {node.state.value}")

        async def work() -> Row:
            return act(node.scope(place.vhost), **arguments) or {}

        return await node.process.do(work())

    done.__doc__ = act.__doc__
    return ControlOperation(done, arguments_of(act), place_of)


def place_of(cluster: Cluster, node: str = "0", vhost: str = "") -> OperationTarget:
    """NotFound."""
    if node not in map(str, range(len(cluster.nodes))):
        raise NotFound(f"there is no node {node}, but 0 to {len(cluster.nodes) - 1}")
    if vhost:
        cluster.vhost(vhost)
    return OperationTarget(cluster, int(node), vhost)


ON_CLUSTER: Mapping[str, Act] = {
    "nodes": nodes,
    "net/partition": partition,
    "net/cut": cut,
    "net/drop": drop,
    "net/delay": delay,
    "net/heal": heal,
}
PROCESS: Mapping[str, str] = {
    "kill": "Kill a node as SIGKILL does: what is not on its disk is lost.",
    "stop": "Stop a node in order: others lead what it leads, and clients are notified.",
    "start": "Again, with the disk that it had; returns when it takes clients.",
    "restart": "In order.",
    "pause": "Pause a node as SIGSTOP does: sockets stay open without answers.",
    "resume": "Resume a node as SIGCONT does.",
    "wipe": "Delete the disk of a stopped node; it joins anew at its start.",
}
"""Methods of `Nodes` that take the number of a node, and what each does."""
DISK: Mapping[str, str] = {
    "full": "There is no room any more.",
    "fail": "The next commit fails, and the node ends.",
    "repair": "Repair the disk of a node.",
}
"""Methods of a node's `FaultyDisk` without arguments, and what each does."""
ON_NODE: Mapping[str, Act] = {
    **{name: of_process(name) for name in PROCESS},
    "disk/slow": slow_disk,
    "disk/full": of_disk("full"),
    "disk/fail": of_disk("fail"),
    "disk/corrupt": corrupt_disk,
    "disk/repair": of_disk("repair"),
}
ON_QUEUES: Mapping[str, Act] = {"leader": leader, "move_leader": move_leader, "members": members}

OPERATIONS: Operations = {
    **operations("", {**ON_ALL, **ON_CLUSTER}, itself),
    **operations(NODE, ON_NODE, place_of),
    **operations(VHOST, ON_VHOST, vhost_of),
    **operations(VHOST, ON_QUEUES, place_of),
    **{NODE + VHOST + path: fault(act) for path, act in by_path(FAULTS).items()},
}
"""Operations of a cluster.  For the clients of one node, the path begins with that."""
