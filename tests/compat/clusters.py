"""Three nodes of either broker, as processes: where each serves, and how it ends and begins."""

import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from tests.compat.oracle import (
    BROKER_READY,
    EPMD_READY,
    Ports,
    ctl,
    environment,
    free_port,
    prepare,
    script,
)
from tests.compat.resources import COMMANDS, Resources
from tests.support.daemon import Daemon
from tests.support.process import Process
from tests.support.require import require

T = TypeVar("T")

NODES = ("a", "b", "c")
DISCOVERY = "cluster_formation.peer_discovery_backend = classic_config\n" + "".join(
    f"cluster_formation.classic_config.nodes.{number} = {node}@localhost\n"
    for number, node in enumerate(NODES, start=1)
)


class Cluster(Protocol):
    def port(self, node: str) -> int:
        """Where it takes clients."""

    def kill(self, node: str) -> None:
        """Kill a node by SIGKILL."""

    def stop(self, node: str) -> None:
        """In order."""

    def start(self, node: str) -> None:
        """Start a node that was killed or stopped; return when the cluster is whole."""

    def switch(self, node: str, resource: str, *, low: bool) -> None:
        """Make it low on `memory` or `disk`, or not; return when it knows."""

    def shown(self, line: str) -> str:
        """A line that a client has heard, with nodes by their short names."""


class RabbitMQCluster:
    """A `Cluster` that runs while it is entered."""

    def __init__(self, folder: Path) -> None:
        self._ports = {node: free_port() for node in NODES}
        self._folder = folder
        self._environments: dict[str, dict[str, str]] = {}
        self._running: dict[str, Process] = {}
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        mapper, cookie = free_port(), secrets.token_hex(16)
        for node in NODES:
            ports = Ports(self._ports[node], free_port(), mapper)
            prepare(self._folder / node, ports, DISCOVERY, cookie=cookie)
            variables = environment(self._folder / node, f"{node}@localhost", ports)
            self._environments[node] = variables
        variables = self._environments["a"]
        with self._ending as ending:
            epmd = Process([require("epmd"), "-d", "-port", str(mapper)], EPMD_READY, variables)
            ending.callback(epmd.kill)
            ending.callback(lambda: at_once(self.kill, [*self._running]))
            at_once(self._begin, NODES)
            self._await_whole()
            self._ending = ending.pop_all()
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._ending.close()

    def port(self, node: str) -> int:
        return self._ports[node]

    def kill(self, node: str) -> None:
        self._running.pop(node).kill()

    def stop(self, node: str) -> None:
        ctl(f"{node}@localhost", self._environments[node], "stop")
        self.kill(node)  # the script that has started it

    def start(self, node: str) -> None:
        self._begin(node)
        self._await_whole()

    def switch(self, node: str, resource: str, *, low: bool) -> None:
        ctl(f"{node}@localhost", self._environments[node], *COMMANDS[resource, low])

    def shown(self, line: str) -> str:
        return line.replace("@localhost", "")

    def _begin(self, node: str) -> None:
        words = [script("rabbitmq-server")]
        self._running[node] = Process(words, BROKER_READY, self._environments[node])

    def _await_whole(self) -> None:
        ctl("a@localhost", self._environments["a"], "await_online_nodes", str(len(NODES)))


class FluffleCluster:
    """A `Cluster` that runs while it is entered.  `options`: of all nodes, further ones."""

    def __init__(self, folder: Path, *options: str) -> None:
        links = {node: free_port() for node in NODES}
        peers = ",".join(f"{node}=127.0.0.1:{port}" for node, port in links.items())
        variables = {"FLUFFLE_CLUSTER_SECRET": secrets.token_hex(16)}
        self._resources = {node: Resources(folder / f"{node}.resources") for node in NODES}
        self.daemons = {
            node: Daemon(
                folder / node,
                *("--node", node, "--cluster-listen", f"127.0.0.1:{port}", "--peers", peers),
                *options,
                on_line=self._resources[node].hear,
                environment={**variables, **self._resources[node].environment},
            )
            for node, port in links.items()
        }

    def __enter__(self) -> Self:
        with ExitStack() as ending:
            ending.callback(self._end)
            at_once(self.start, NODES)
            ending.pop_all()
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._end()

    def port(self, node: str) -> int:
        return self.daemons[node].port

    def kill(self, node: str) -> None:
        self.daemons[node].kill()

    def stop(self, node: str) -> None:
        self.daemons[node].stop()

    def start(self, node: str) -> None:
        self._resources[node].begin()
        self.daemons[node].start()

    def switch(self, node: str, resource: str, *, low: bool) -> None:
        self._resources[node].switch(resource, low=low)

    def shown(self, line: str) -> str:
        return line

    def _end(self) -> None:
        at_once(Daemon.stop, [each for each in self.daemons.values() if each.is_running])


def at_once(do: Callable[[T], object], things: Iterable[T]) -> None:
    """To all of them; the first error comes when all is done."""
    with ThreadPoolExecutor(len(NODES)) as threads:
        for _ in threads.map(do, things):
            pass
