"""`fluffle cluster`: members, and a cluster on this machine for trials.

Who founded the latter is kept beside its data: all nodes are given these as `--peers`, however many
are asked for later, and who is no founder is let in by those that are.
"""

from __future__ import annotations

import os
import secrets
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, TypeAlias

import click

from fluffle.broker.cli.client import LocalClient, NodeClient, running_pid
from fluffle.broker.cli.node import nodes_of, shown_cluster
from fluffle.broker.cli.options import node_names, on_node, prints_rows
from fluffle.broker.cli.output import Row, counted
from fluffle.broker.process.data_directory import LOCK_FILE, NODE_FILE, lock, node_pid

POLL_INTERVAL_S = 0.05
"""How often it is looked whether a node has said that it is ready."""
LOOKS_PATIENT = 200
"""After so many seconds the nodes that are not ready are named, once."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_LINES = 5

Echo: TypeAlias = Callable[[str], None]
Explain: TypeAlias = Callable[[Path], str]
"""Returns why the node with that data directory is not ready, or nothing."""


class NodeProcess(NamedTuple):
    """Command line and files of one node that is started."""

    name: str
    words: Sequence[str]
    data_dir: Path
    log: Path


class Signals:
    """A block in which signals wake `wait` up and do nothing else."""

    def __enter__(self) -> Self:
        self._wakeup_read_fd, self._wakeup_write_fd = os.pipe()
        os.set_blocking(self._wakeup_write_fd, False)
        self._former_fd = signal.set_wakeup_fd(self._wakeup_write_fd)
        numbers = (*STOPPING, signal.SIGCHLD)
        self._former = {number: signal.signal(number, lambda *_: None) for number in numbers}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_fd)
        os.close(self._wakeup_read_fd)
        os.close(self._wakeup_write_fd)

    def wait(self, timeout_s: float | None) -> bytes:
        """Return the numbers of those that came; none when it took too long."""
        ready, _, _ = select.select([self._wakeup_read_fd], [], [], timeout_s)
        return os.read(self._wakeup_read_fd, 1024) if ready else b""


class ProcessGroup:
    """Node processes that are started, watched and ended together."""

    def __init__(
        self,
        members: Sequence[NodeProcess],
        echo: Echo,
        on_ready: Callable[[str], None],
        explain: Explain,
    ) -> None:
        """`on_ready` is called with the name of each that is."""
        self._explain = explain
        self._members = {member.name: member for member in members}
        self._echo = echo
        self._on_ready = on_ready
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starting = set(self._members)
        self._looks_left = LOOKS_PATIENT
        self._is_stopping = False
        self._has_failed = False

    def run(self, when_ready: str) -> int:
        """Wait until none of the nodes runs any more; return the exit code, 0 if the last ended in
        order.

        A node that ends while others start is the end of all; later, they go on without it: it was
        named, may have been started again by hand, and says nothing of how the rest ends.
        """
        with Signals() as signals, ExitStack() as stack:
            stack.callback(self._kill)
            for member in self._members.values():
                self._start(member)
            while self._running:
                came = signals.wait(POLL_INTERVAL_S if self._starting else None)
                if any(number in came for number in STOPPING):
                    self._stop()
                self._reap()
                if self._starting and not self._is_stopping:
                    self._look(when_ready)
        return int(self._has_failed)

    def _start(self, member: NodeProcess) -> None:
        with member.log.open("ab") as log:
            self._running[member.name] = subprocess.Popen(
                member.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _look(self, when_ready: str) -> None:
        for name in sorted(self._starting):
            if node_pid(self._members[name].data_dir / NODE_FILE) == self._running[name].pid:
                self._starting.remove(name)
                self._on_ready(name)
        self._looks_left -= 1
        if not self._starting:
            self._echo(when_ready)
        elif not self._looks_left:
            for name in sorted(self._starting):
                data_dir = self._members[name].data_dir
                command = f"fluffle status --data-dir {shlex.quote(str(data_dir))}"
                self._echo(f"{name} is not ready yet: {self._explain(data_dir) or command}")

    def _reap(self) -> None:
        """Say who has ended, and what follows."""
        for name, process in [*self._running.items()]:
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if self._is_stopping and code == 0:
                self._echo(f"{name} has stopped")
                continue
            is_the_end = self._is_stopping or bool(self._starting) or not self._running
            self._has_failed = self._has_failed or is_the_end
            self._echo(f"{name} {how_it_ended(code)}; the end of its log:")
            for line in last_lines(self._members[name].log):
                self._echo(f"    {line}")
            if self._is_stopping:
                continue
            if self._starting:
                self._stop()
            elif self._running:
                self._echo(f"start it again: {shlex.join(self._members[name].words)}")

    def _stop(self) -> None:
        """Stop all in order at first; a node that gets the signal again ends where it stands."""
        self._is_stopping = True
        self._echo(f"stopping {', '.join(self._running)}")
        for process in self._running.values():
            process.terminate()

    def _kill(self) -> None:
        """Kill the nodes that are left, after an error of ours."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def how_it_ended(code: int) -> str:
    """`code` as `Popen` gives it: below 0 it is the signal."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def last_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]


HOST = "127.0.0.1"
NAMES = "abcdefghi"
CLUSTER_PORT_OFFSET = 20_000
"""From the port for clients to that for the other nodes, as with RabbitMQ."""
BASE_PORT_MAX = 65_535 - CLUSTER_PORT_OFFSET - len(NAMES)
SECRET_FILE = "secret"
FOUNDERS_FILE = "founders"
FORMER_NODE = "former_node"
"""In the reason for which others refuse a node that was forgotten."""
NO_LISTENERS: Mapping[str, str] = {}


def taken(data_dir: Path) -> BinaryIO:
    """Return the directory, ours until what is returned is closed.  OSError, ClickException."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return lock(data_dir / LOCK_FILE)
    except BlockingIOError as error:
        raise click.ClickException(
            f"another `fluffle cluster up` is at work in {data_dir}; end that one first, or start "
            "a node that it has lost by the command that it has printed"
        ) from error


def check_ended(data_dir: Path, names: Iterable[str]) -> None:
    """ClickException if one of these runs, such as one that was started by hand."""
    for name in names:
        if (pid := running_pid(data_dir / name)) is not None:
            raise click.ClickException(
                f"node {name} runs already in {data_dir / name} (process {pid}); end it first"
            )


def keep_secret(file: Path) -> Path:
    """Draw one if there is none yet.  OSError."""
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    return file


def keep_founders(data_dir: Path, names: Sequence[str]) -> Sequence[str]:
    """Return those of the cluster in a directory: of a new one `names`.  OSError."""
    file = data_dir / FOUNDERS_FILE
    if not file.exists():
        there = [name for name in NAMES if (data_dir / name).exists()]
        file.write_text(" ".join(there or names) + "\n", encoding="ascii")
    return file.read_text(encoding="ascii").split()


def cluster_address(name: str, base_port: int) -> str:
    """Return where it listens for the others."""
    return f"{HOST}:{client_port(name, base_port) + CLUSTER_PORT_OFFSET}"


def client_port(name: str, base_port: int) -> int:
    return base_port + NAMES.index(name)


def other_listeners(name: str, base_ports: Mapping[str, int | None]) -> dict[str, str]:
    """Return where a node listens for all but AMQP, by the options that are wanted."""
    return {
        option: f"{HOST}:{base_port + NAMES.index(name)}"
        for option, base_port in base_ports.items()
        if base_port is not None
    }


def member_of(
    name: str,
    founders: Iterable[str],
    data_dir: Path,
    base_port: int,
    listeners: Mapping[str, str] = NO_LISTENERS,
) -> NodeProcess:
    """Return one of the nodes, each of which gets the same options of all."""
    peers = (f"{node}={cluster_address(node, base_port)}" for node in founders)
    words = {
        "node": name,
        "data-dir": str(data_dir / name),
        "listen": f"{HOST}:{client_port(name, base_port)}",
        "cluster-listen": cluster_address(name, base_port),
        "peers": ",".join(peers),
        "cluster-secret-file": str(data_dir / SECRET_FILE),
        **listeners,
    }
    options = [word for option, value in words.items() for word in (f"--{option}", value)]
    command = [sys.executable, "-m", "fluffle.broker", "serve", *options]
    return NodeProcess(name, command, data_dir / name, Path(f"{data_dir / name}.log"))


def why_not_ready(data_dir: Path) -> str:
    """Why a node of this machine does not take clients yet; nothing if it does not say."""
    with LocalClient(data_dir) as client:
        try:
            row = client.call("status")["cluster"]
        except click.ClickException:
            return ""
    if row is None or not row["awaited"]:
        return ""
    if any(FORMER_NODE in each for each in row["awaited"]["hindered"]):
        return (
            f"the cluster was told to forget it; stop all, remove {data_dir}, and start again: it "
            "joins anew"
        )
    return shown_cluster(row)


class JoinApproval:
    """Approval of the nodes that join, given through the first node that is ready."""

    def __init__(self, addresses: dict[str, str], data_dir: Path, echo: Echo) -> None:
        """`addresses`: where each of them listens for the others."""
        self._addresses = addresses
        self._data_dir = data_dir
        self._echo = echo

    def ready(self, node: str) -> None:
        """Note that a node is part of the cluster, so it can let others in."""
        addresses, self._addresses = self._addresses, {}
        if not addresses:
            return
        with LocalClient(self._data_dir / node) as client:
            try:
                known = {row["node"] for row in client.rows("cluster.status")}
                for name in addresses.keys() - known:
                    client.call("cluster.add", name=name, address=addresses[name])
            except click.ClickException as error:
                self._echo(f"not let in: {', '.join(addresses)} ({error.message})")


GOING_SHOWN_MAX = 10
"""Queues that are named of those that go with a node."""

LISTENER_PORT = click.IntRange(1, 65_535 - len(NAMES))


@click.group()
def cluster() -> None:
    """The nodes of a cluster; and one on this machine, for trying things out."""


@cluster.command()
@prints_rows(
    "node", "state", "role", "address", "boot", "clock_ahead_ms", "hindrance",
    more=["link", "maintenance"],
    if_none=lambda client: shown_cluster(client.call("status")["cluster"]),
)  # fmt: skip
def status(client: NodeClient) -> Iterable[Row]:
    """All nodes, as the one that is asked sees them; itself if it is alone."""
    return nodes_of(client, client.call("status"))


@cluster.command()
@click.argument("node", metavar="NAME=HOST:PORT")
@on_node
def add(client: NodeClient, node: str) -> None:
    """Let a node in, that listens there for the others; then start it.

    It is started with an empty data directory, --node NAME, and the --peers of the others.
    """
    name, equals, address = node.partition("=")
    if not equals:
        raise click.UsageError("write NAME=HOST:PORT")
    client.call("cluster.add", name=name, address=address)


@cluster.command()
@click.argument("name", shell_complete=node_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_node
def forget(client: NodeClient, *, name: str, yes: bool) -> None:
    """Remove a node that has stopped, for good, with the queues that were on it alone.

    Those are its classic queues and quorum queues without another member: they are deleted with all
    messages. It names them and asks, if there are any.
    """
    going = [] if yes else list(client.rows("cluster.check_forget", name=name))
    if going:
        for each in going[:GOING_SHOWN_MAX]:
            click.echo(f"{each['type']} queue '{each['name']}' in vhost '{each['vhost']}'")
        if len(going) > GOING_SHOWN_MAX:
            click.echo(f"and {len(going) - GOING_SHOWN_MAX} more")
        one, more = (f"{verb} on '{name}' alone, and to be deleted" for verb in ("is", "are"))
        click.echo(f"{counted(len(going), one, more)} with all messages")
        click.confirm("Go on?", abort=True)
    row = client.call("cluster.forget", name=name)
    if count := row["queues"]:
        one, more = (f"{verb} on it alone, and gone with all messages" for verb in ("was", "were"))
        click.echo(counted(count, one, more))


@cluster.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, len(NAMES)),
    default=3,
    show_default=True,
    help="How many.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/cluster"),
    show_default=True,
    help="Where all of them keep their data and logs.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, BASE_PORT_MAX),
    default=5672,
    show_default=True,
    help="For clients of the first node; each further node has the next.",
)
@click.option(
    "--mqtt",
    type=LISTENER_PORT,
    help="For MQTT clients of the first node, such as 1883; each further has the next.",
)
@click.option(
    "--management",
    type=LISTENER_PORT,
    help="For the management API of the first node, such as 15672; each further has the next.",
)
@click.option(
    "--metrics",
    type=LISTENER_PORT,
    help="For the metrics of the first node, such as 15692; each further has the next.",
)
def up(nodes: int, data_dir: Path, base_port: int, **others: int | None) -> None:
    """Run a cluster on this machine, for trying things out, until Ctrl-C.

    Its nodes are processes of their own, with the names a, b, c and so on.  Data, logs and the
    secret that they share stay in the directory, so that the same command starts them again.
    """
    names = NAMES[:nodes]
    with ExitStack() as stack:
        try:
            stack.enter_context(taken(data_dir))
            check_ended(data_dir, names)
            keep_secret(data_dir / SECRET_FILE)
            founders = keep_founders(data_dir, names)
        except OSError as error:
            why = f"cannot keep data in {data_dir} ({error.strerror})"
            raise click.ClickException(why) from error
        listeners = {name: other_listeners(name, others) for name in names}
        members = [
            member_of(name, founders, data_dir, base_port, listeners[name]) for name in names
        ]
        for member in members:
            served = {
                "amqp": f"{HOST}:{client_port(member.name, base_port)}",
                **listeners[member.name],
            }
            where = ", ".join(f"{what} {at}" for what, at in served.items())
            click.echo(f"{member.name}: {where}, --data-dir {member.data_dir}, log {member.log}")
        joining = {name: cluster_address(name, base_port) for name in names if name not in founders}
        letting_in = JoinApproval(joining, data_dir, click.echo)
        together = ProcessGroup(members, click.echo, letting_in.ready, why_not_ready)
        sys.exit(together.run("all are ready; Ctrl-C stops them"))
