"""Processes of a cluster that is started larger than it was, and forgets nodes again."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest

from tests.support.cluster_nodes import ports_of_nodes
from tests.support.daemon import Daemon
from tests.support.deadlines import DEADLINE_S
from tests.support.ports import LOOPBACK

SECRET = {"FLUFFLE_CLUSTER_SECRET": "a secret of tests"}


def node(directory: Path, ports: dict[str, int], name: str, size: int) -> Daemon:
    """A process that is given so many addresses."""
    peers = ",".join(f"{each}={LOOPBACK}:{ports[each]}" for each in sorted(ports)[:size])
    listen = f"{LOOPBACK}:{ports[name]}"
    options = ("--node", name, "--cluster-listen", listen, "--peers", peers)
    return Daemon(directory / name, *options, environment=SECRET)


def command(daemon: Daemon, *words: str) -> str:
    """Run a command that ends well; its output."""
    line = [sys.executable, "-m", "fluffle.broker", *words, "--data-dir", str(daemon.data_dir)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def publish(daemon: Daemon, count: int) -> None:
    """Publish as many messages, each confirmed, through this node."""
    connection = pika.BlockingConnection(pika.URLParameters(daemon.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("q", durable=True, arguments={"x-queue-type": "quorum"})
    for _ in range(count):
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", "q", b"m", properties, mandatory=True)
    connection.close()


@pytest.mark.slow("seven nodes start as processes", seconds=40)
def test_processes_grow_to_seven_and_shrink_to_three(tmp_path: Path) -> None:
    """Each serves what was defined before it came; what was confirmed through any is there."""
    ports, nodes = ports_of_nodes(7), dict[str, Daemon]()
    with ExitStack() as stack:
        size_before = published = 0
        for size in (1, 3, 5, 7):
            for name in sorted(ports)[size_before:size]:
                nodes[name] = stack.enter_context(node(tmp_path, ports, name, size))
                publish(nodes[name], 5)
                published += 5
            size_before = size
        for name in "gfed":
            command(nodes["a"], "queues", "shrink", name)
            nodes[name].stop()
            command(nodes["a"], "cluster", "forget", name)
            publish(nodes["b"], 5)
            published += 5
        connection = pika.BlockingConnection(pika.URLParameters(nodes["c"].url))
        found = connection.channel().queue_declare("q", passive=True)
        assert found.method.message_count == published
        connection.close()
        assert not any("cluster_split" in daemon.log for daemon in nodes.values())
