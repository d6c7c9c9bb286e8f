"""A cluster on this machine, for trying things out: its directory, and the words of its nodes.

Who founded it is kept beside the data: all nodes are given these as `--peers`, however many are
asked for later, and who is no founder is let in by those that are.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from fluffle.broker.cli.child_processes import NodeProcess, Tell
from fluffle.broker.cli.client import LocalClient, running_pid
from fluffle.broker.cli.status import shown_cluster
from fluffle.broker.process.lock import LOCK_FILE, lock

HOST = "127.0.0.1"
NAMES = "abcdefghi"
CLUSTER_PORT_OFFSET = 20_000
"""From the port for clients to that for the other nodes, as with RabbitMQ."""
BASE_PORT_MAX = 65_535 - CLUSTER_PORT_OFFSET - len(NAMES)
SECRET_FILE = "secret"
FOUNDERS_FILE = "founders"
FORMER_NODE = "former_node"
"""In the reason for which others refuse a node that was forgotten."""
NO_PAGES: Mapping[str, str] = {}


def taken(data_dir: Path) -> BinaryIO:
    """The directory, ours until what is returned is closed.  OSError, ClickException."""
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
    """Those of the cluster in a directory: of a new one `names`.  OSError."""
    file = data_dir / FOUNDERS_FILE
    if not file.exists():
        there = [name for name in NAMES if (data_dir / name).exists()]
        file.write_text(" ".join(there or names) + "\n", encoding="ascii")
    return file.read_text(encoding="ascii").split()


def cluster_address(name: str, base_port: int) -> str:
    """Where it listens for the others."""
    return f"{HOST}:{client_port(name, base_port) + CLUSTER_PORT_OFFSET}"


def client_port(name: str, base_port: int) -> int:
    return base_port + NAMES.index(name)


def pages_of(name: str, base_ports: Mapping[str, int | None]) -> dict[str, str]:
    """Where a node has its management API and metrics, by the options that are wanted."""
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
    pages: Mapping[str, str] = NO_PAGES,
) -> NodeProcess:
    """One of the nodes, each of which is told the same of all."""
    peers = (f"{node}={cluster_address(node, base_port)}" for node in founders)
    words = {
        "node": name,
        "data-dir": str(data_dir / name),
        "listen": f"{HOST}:{client_port(name, base_port)}",
        "cluster-listen": cluster_address(name, base_port),
        "peers": ",".join(peers),
        "cluster-secret-file": str(data_dir / SECRET_FILE),
        **pages,
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
    """Has those let in that are no founders, by the first node that is ready."""

    __slots__ = ("_addresses", "_data_dir", "_tell")

    def __init__(self, addresses: dict[str, str], data_dir: Path, tell: Tell) -> None:
        """`addresses`: where each of them listens for the others."""
        self._addresses = addresses
        self._data_dir = data_dir
        self._tell = tell

    def ready(self, node: str) -> None:
        """That one is a node of the cluster, so it can let others in."""
        addresses, self._addresses = self._addresses, {}
        if not addresses:
            return
        with LocalClient(self._data_dir / node) as client:
            try:
                known = {row["node"] for row in client.rows("cluster.status")}
                for name in addresses.keys() - known:
                    client.call("cluster.add", name=name, address=addresses[name])
            except click.ClickException as error:
                self._tell(f"not let in: {', '.join(addresses)} ({error.message})")
