"""Whole nodes of one cluster in one event loop: real links, real disks, free ports.

    three = await start_cluster(tmp_path, 3)
    await three["a"].kill()
    await three.stop()

A node that was stopped or killed can be started again: same disk, same ports, another life.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fluffle.broker.admin.context import DeferredRow
from fluffle.broker.admin.dispatch import VERBS
from fluffle.broker.base.callbacks import answer_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.cluster import raft_host
from fluffle.broker.cluster.cluster import ClusterService
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.metadata.change import Change
from fluffle.broker.node import Node, NodeFailed
from fluffle.broker.queues.queue_api import Deferred as Asked
from fluffle.broker.torture.proxy import Proxy
from fluffle.raft.tuning import Tuning
from tests.support.deadlines import soon
from tests.support.definition_digest import digest_of
from tests.support.ports import LOOPBACK, free_ports

SECRET = b"a secret of tests"


def make_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits, so that no node is suspected because this machine is slow; stopped ones are
    noticed by their links."""
    calm = partial(Tuning, suspect_after_ms=60_000, deaf_after_ms=60_000)
    monkeypatch.setattr(raft_host, "Tuning", calm)


class Killed(Exception):
    """End of a node's process by a test."""


class ClusterNode:
    """Place of a node, and the process on it if it runs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = config.node_name
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The process that runs."""
        assert self._node is not None, f"{self.name} does not run"
        return self._node

    @property
    def is_running(self) -> bool:
        return self._node is not None

    @property
    def cluster(self) -> ClusterService:
        assert self.node.cluster is not None
        return self.node.cluster

    @property
    def listens_at(self) -> str:
        """Address for the other nodes."""
        assert self.config.cluster is not None
        return str(self.config.cluster.listen)

    def wipe(self) -> None:
        """Its disk is replaced by an empty one."""
        assert self._node is None, f"{self.name} runs"
        shutil.rmtree(self.config.data_dir)
        self.config.data_dir.mkdir()

    @property
    def amqp(self) -> tuple[str, int]:
        return self.node.addresses["amqp"]

    @property
    def url(self) -> str:
        """URL for any client."""
        host, port = self.amqp
        return f"amqp://guest:guest@{host}:{port}/"

    def begin(self) -> None:
        """Start a process, and do not wait for it."""
        assert self._node is None, f"{self.name} runs"
        self._node = Node(self.config, on_fatal=lambda _error: None)
        self._starting = asyncio.ensure_future(self._node.start())

    async def started(self) -> None:
        """Until it takes clients."""
        async with soon():
            await self._starting

    async def start(self) -> None:
        self.begin()
        await self.started()

    def forget_process(self) -> None:
        """The one that could not start has ended."""
        assert self._starting.done()
        self._node = None

    async def stop(self) -> None:
        """In order."""
        node, self._node = self.node, None
        await self._give_up_starting()
        async with soon():
            await node.stop("shutdown")

    async def kill(self) -> None:
        """Kill the node as SIGKILL does: nothing is said, and what is not on disk is lost."""
        node, self._node = self.node, None
        node.fail(Killed())
        await self._give_up_starting()
        with suppress(NodeFailed):
            await node.stop("killed")

    async def _give_up_starting(self) -> None:
        self._starting.cancel()
        with suppress(asyncio.CancelledError, NodeFailed):
            await self._starting

    async def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Result of a verb that changes something, as over the control socket.  BrokerError."""
        result = VERBS[verb].act(self.node.parts, **arguments)
        if isinstance(result, DeferredRow):
            async with soon():
                result = await answer_of(result.begin)
        if isinstance(result, BrokerError):
            raise result
        assert isinstance(result, dict)
        return result

    async def listed(self, verb: str, **arguments: object) -> AsyncIterator[dict[str, Any]]:
        """Rows of a list, as over the control socket."""
        for row in VERBS[verb].act(self.node.parts, **arguments):
            if isinstance(row, Asked):
                async with soon():
                    await answer_of(partial(reported, row))
            else:
                yield row

    async def rows(self, verb: str, **arguments: object) -> list[dict[str, Any]]:
        """All of them."""
        return [row async for row in self.listed(verb, **arguments)]

    def roles(self) -> dict[str, str]:
        """State and role of all nodes, as this one sees them."""
        rows = VERBS["cluster.status"].act(self.node.parts)
        return {row["node"]: f"{row['state']} {row['role']}" for row in rows}

    async def change(self, decide: Callable[[], Change]) -> None:
        """Have definitions changed through this node.  BrokerError."""

        def ask(answer: Callable[[BrokerError | None], None]) -> None:
            self.node.metadata.change(decide, lambda: answer(None), answer)

        async with soon():
            error = await answer_of(ask)
        if error is not None:
            raise error


def reported(asked: Asked[None], answer: Callable[[object], None]) -> None:
    asked.then(answer, answer)


class ClusterNodes:
    """All of them, by name: a, b, c …"""

    def __init__(self, nodes: dict[str, ClusterNode]) -> None:
        self.nodes = nodes
        self.proxies: dict[tuple[str, str], Proxy] = {}
        """Proxies by dialling and dialled node; none unless links are to be cut."""

    def __getitem__(self, name: str) -> ClusterNode:
        return self.nodes[name]

    def __iter__(self) -> Iterator[ClusterNode]:
        return iter(self.nodes.values())

    @property
    def running(self) -> list[ClusterNode]:
        return [node for node in self if node.is_running]

    def grow(self, name: str) -> ClusterNode:
        """Add a node with the addresses of the others, and theirs of it; not started."""
        (port,) = free_ports(1)
        any_config = next(iter(self)).config
        assert any_config.cluster is not None
        cluster = replace(any_config.cluster, listen=ListenAddress(LOOPBACK, port))
        data_dir = any_config.data_dir.parent / name
        node = ClusterNode(replace(any_config, node_name=name, data_dir=data_dir, cluster=cluster))
        self.nodes[name] = node
        return node

    async def start(self, names: Collection[str] = ()) -> None:
        """These, one after the other but without waiting in between; all if none is named."""
        nodes = [self.nodes[name] for name in names or self.nodes]
        for node in nodes:
            node.begin()
        for node in nodes:
            await node.started()

    async def stop(self) -> None:
        """All that run, in order, and what is between them."""
        for node in self.running:
            await node.stop()
        for proxy in self.proxies.values():
            await proxy.__aexit__()

    def cut(self, a: str, b: str) -> None:
        """Nothing goes between the two any more, until they are mended."""
        for link in ((a, b), (b, a)):
            self.cut_one_way(*link)

    def cut_one_way(self, dialling: str, dialled: str) -> None:
        """Nothing goes over the link that `dialling` sends on."""
        self.proxies[dialling, dialled].forth.cut()
        self.proxies[dialling, dialled].back.cut()

    def mend(self, a: str, b: str) -> None:
        for link in ((a, b), (b, a)):
            self.proxies[link].forth.restore()
            self.proxies[link].back.restore()
            self.proxies[link].reset()

    def isolate(self, name: str) -> None:
        for other in self.nodes.keys() - {name}:
            self.cut(name, other)

    def rejoin(self, name: str) -> None:
        for other in self.nodes.keys() - {name}:
            self.mend(name, other)

    async def meet(self) -> None:
        """Until all that run have links to each other: a node is there once it has most of them."""
        pairs = list(permutations(self.running, 2))
        await until(lambda: all(one.cluster.links.is_up(other.name) for one, other in pairs))

    async def agree(self) -> None:
        """Until all that run have the same definitions."""
        await until(lambda: len({self._digest(node) for node in self.running}) == 1)

    @staticmethod
    def _digest(node: ClusterNode) -> str:
        return digest_of(node.cluster.metadata.state)


async def until(is_so: Callable[[], bool]) -> None:
    """Look again with each round of the loop: what is waited for has many causes."""
    async with soon():
        while not is_so():  # noqa: ASYNC110 - nobody tells of all of these
            await asyncio.sleep(0.001)


async def start_cluster(
    directory: Path, count: int = 3, *, is_cuttable: bool = False, config: Config | None = None
) -> ClusterNodes:
    """So many nodes, that take clients of all protocols: each knows the version of the others.

    `config`: what is not as by default, for all.
    """
    nodes = await make_cluster(directory, count, is_cuttable=is_cuttable, config=config)
    await nodes.start()
    await until(
        lambda: all(each.knows for node in nodes for each in node.cluster.registered.values())
    )
    return nodes


async def make_cluster(
    directory: Path, count: int = 3, *, is_cuttable: bool = False, config: Config | None = None
) -> ClusterNodes:
    """The same, but nothing runs yet."""
    ports = ports_of_nodes(count)
    nodes = ClusterNodes({})
    for name in ports:
        peers = {other: ListenAddress(LOOPBACK, port) for other, port in ports.items()}
        for other in ports if is_cuttable else ():
            if other != name:
                proxy = await Proxy(LOOPBACK, ports[other]).__aenter__()
                nodes.proxies[name, other] = proxy
                peers[other] = ListenAddress(LOOPBACK, proxy.port)
        nodes.nodes[name] = node_at(ports[name], name, directory, peers, config or Config())
    return nodes


def cluster_at(directory: Path, ports: Mapping[str, int]) -> ClusterNodes:
    """Nodes that know each other at these ports; nothing runs yet."""
    peers = {name: ListenAddress(LOOPBACK, port) for name, port in ports.items()}
    return ClusterNodes(
        {name: node_at(port, name, directory, peers, Config()) for name, port in ports.items()}
    )


def node_at(
    port: int, name: str, directory: Path, peers: dict[str, ListenAddress], config: Config
) -> ClusterNode:
    """Node with its data in a folder of its own, which listens there for the others."""
    cluster = ClusterConfig(peers, SECRET, listen=ListenAddress(LOOPBACK, port))
    return ClusterNode(
        replace(
            config,
            node_name=name,
            data_dir=directory / name,
            listen=ListenAddress(LOOPBACK, 0),
            cluster=cluster,
        )
    )


def ports_of_nodes(count: int) -> dict[str, int]:
    """Ports for links, by name of the node."""
    names = [chr(ord("a") + number) for number in range(count)]
    return dict(zip(names, free_ports(count), strict=True))


@asynccontextmanager
async def running_cluster(
    directory: Path, count: int = 3, *, is_cuttable: bool = False, config: Config | None = None
) -> AsyncIterator[ClusterNodes]:
    """`start_cluster`, and stopped in the end."""
    nodes = await start_cluster(directory, count, is_cuttable=is_cuttable, config=config)
    try:
        yield nodes
    finally:
        await nodes.stop()
