"""Three nodes of one cluster under measurement, as processes of this machine.

Publishers connect to the first node, where queues are declared and therefore led; consumers to the
second.  All nodes and the load share all cores.
"""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.brokers import (
    BROKERS,
    OWN_COMMAND,
    Broker,
    Erlang,
    Launcher,
    NotAvailable,
    await_open,
    ending,
    erlang_machine,
    free_ports,
    rabbitmq_commands,
    rabbitmq_environment,
)
from benchmarks.client import Address
from benchmarks.machine import Cores, family, pinned

NODES = ("a", "b", "c")
JOIN_TIMEOUT_S = 60


@dataclass(slots=True)
class Member:
    """A node, which may be killed and started again."""

    words: list[str]
    environment: Mapping[str, str]
    address: Address
    log: Path
    find_pid: Callable[[int], int] = int
    """The process that is the node, from the one that was started."""
    mqtt_port: int = 0
    """Where it takes MQTT clients, if it does."""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self.find_pid(self._process.pid)

    def start(self, cores: Cores) -> None:
        """Clients may have to wait for it: `await_clients`."""
        with self.log.open("ab") as output, pinned(cores):
            self._process = subprocess.Popen(
                self.words,
                env=self.environment,
                cwd=self.log.parent,  # where Erlang leaves what it crashed with
                stdout=output,
                stderr=output,
            )

    def await_clients(self) -> str:
        """Return when it serves; the version that it names."""
        assert self._process is not None
        return await_open(self._process, self.address, self.log)

    def kill(self) -> None:
        assert self._process is not None
        for pid in family(self._process.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """In order, or by force if it lingers."""
        if self._process is not None and self._process.poll() is None:
            with ending(self._process, lambda: self.pid):
                pass


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    version: str
    members: tuple[Member, ...]
    cores: Cores

    def broker(self) -> Broker:
        """Cluster in the form of one broker, for a load."""
        first, second, *_more = self.members
        pids = [member.pid for member in self.members]
        return Broker(
            name=self.name,
            version=self.version,
            address=first.address,
            pid=pids[0],
            ready_ms=0.0,
            open_ms=0.0,
            consume_address=second.address,
            other_pids=tuple(pids[1:]),
            mqtt_port=first.mqtt_port,
            mqtt_subscriber_port=second.mqtt_port,
        )

    def start_again(self, member: Member) -> None:
        """Start a member that was killed; return when it serves."""
        member.start(self.cores)
        member.await_clients()


ClusterLauncher = Callable[[Path, Cores], AbstractContextManager[Cluster]]


@contextmanager
def running(name: str, members: tuple[Member, ...], cores: Cores) -> Iterator[Cluster]:
    """All of them, started together; return when each serves."""
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.end)
            member.start(cores)
        version = {member.await_clients() for member in members}.pop()
        yield Cluster(name, version, members, cores)


@contextmanager
def three_fluffles(
    folder: Path, cores: Cores, *, command: Path = OWN_COMMAND, mqtt: bool = False
) -> Iterator[Cluster]:
    """`fluffle serve`, three times; `mqtt`: with ports for clients of MQTT."""
    if not command.exists():
        raise NotAvailable("fluffle is not installed beside this Python: pip install -e .")
    ports = free_ports(3 * len(NODES))
    amqp, links, mqtt_ports = (ports[at :: len(NODES)] for at in range(3))
    peers = [f"{node}=127.0.0.1:{port}" for node, port in zip(NODES, links, strict=True)]
    environment = {name: value for name, value in os.environ.items() if "FLUFFLE_" not in name}
    secret = secrets.token_hex(16)
    members = tuple(
        Member(
            [
                *(str(command), "serve", "--node", node, "--data-dir", str(folder / node)),
                *("--listen", f"127.0.0.1:{amqp[number]}"),
                *("--cluster-listen", f"127.0.0.1:{links[number]}", "--peers", ",".join(peers)),
                *(("--mqtt", f"127.0.0.1:{mqtt_ports[number]}") if mqtt else ()),
            ],
            {**environment, "FLUFFLE_CLUSTER_SECRET": secret},
            Address("127.0.0.1", amqp[number]),
            folder / f"{node}.log",
            mqtt_port=mqtt_ports[number] if mqtt else 0,
        )
        for number, node in enumerate(NODES)
    )
    with running("three-fluffles", members, cores) as cluster:
        yield cluster


@contextmanager
def three_rabbits(folder: Path, cores: Cores) -> Iterator[Cluster]:
    """RabbitMQ with its default settings and no plugins."""
    script, epmd = rabbitmq_commands()
    mapper_port, *ports = free_ports(1 + 2 * len(NODES))
    names = [f"{node}@localhost" for node in NODES]
    config = "cluster_formation.peer_discovery_backend = classic_config\n" + "".join(
        f"cluster_formation.classic_config.nodes.{number} = {name}\n"
        for number, name in enumerate(names, start=1)
    )
    cookie = secrets.token_hex(16)
    members = []
    for number, name in enumerate(names):
        home = folder / NODES[number]
        home.mkdir()
        amqp_port, distribution_port = ports[2 * number : 2 * number + 2]
        environment = rabbitmq_environment(
            home, amqp_port, distribution_port, mapper_port, Erlang(name, cookie, config)
        )
        address = Address("127.0.0.1", amqp_port)
        members.append(Member([str(script)], environment, address, home / "log", erlang_machine))
    with (folder / "epmd").open("wb") as output:
        mapper = subprocess.Popen(
            [epmd, "-port", str(mapper_port)],
            env=members[0].environment,
            stdout=output,
            stderr=output,
        )
    with ending(mapper), running("three-rabbits", tuple(members), cores) as cluster:
        await_whole(script.with_name("rabbitmqctl"), names[0], members[0].environment)
        yield cluster


def await_whole(script: Path, node: str, environment: Mapping[str, str]) -> None:
    """Return when all nodes of RabbitMQ have joined."""
    words = ["--node", node, "await_online_nodes", str(len(NODES)), "-t", str(JOIN_TIMEOUT_S)]
    subprocess.run([script, *words], env=environment, check=True, stdout=sys.stderr)


CLUSTERS: dict[str, ClusterLauncher] = {
    "three-fluffles": three_fluffles,
    "three-rabbits": three_rabbits,
}


def as_one(launch: ClusterLauncher) -> Launcher:
    """A cluster as a broker, for loads that know no nodes."""

    @contextmanager
    def launched(folder: Path, cores: Cores) -> Iterator[Broker]:
        with launch(folder, cores) as cluster:
            yield cluster.broker()

    return launched


LAUNCHERS: dict[str, Launcher] = {
    **BROKERS,
    **{name: as_one(launch) for name, launch in CLUSTERS.items()},
}
"""All that can be compared."""
