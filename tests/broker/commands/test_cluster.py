"""`fluffle cluster up`: three processes and one Ctrl-C."""

import signal
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from fluffle.broker.commands.cluster import CLUSTER_PORT_OFFSET, NAMES, member_of
from fluffle.broker.options import resolve
from tests.broker.commands.running import run
from tests.support.cluster_nodes import free_ports

START_S = 30.0


def test_each_node_is_told_the_same_of_all(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of all\n")
    ports = dict(zip("abc", (7000, 7001, 7002), strict=True))
    for name, port in ports.items():
        member = member_of(name, ports, tmp_path, tmp_path / "secret")
        words = iter(member.words[member.words.index("serve") + 1 :])
        flags = {word.removeprefix("--"): [next(words)] for word in words}
        config = resolve(flags, {}).config
        assert (config.node_name, config.data_dir, config.listen.port) == (
            name,
            member.data_dir,
            port,
        )
        assert config.cluster is not None
        assert config.cluster.secret == b"of all"
        assert config.cluster.listen == config.cluster.peers[name]
        assert {node: peer.port for node, peer in config.cluster.peers.items()} == {
            node: port + CLUSTER_PORT_OFFSET for node, port in ports.items()
        }


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("cluster", "up", "--data-dir", str(tmp_path / "file" / "data"))
    assert result.exit_code == 1
    assert "cannot keep data in" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("--nodes", "0"), ("--nodes", str(len(NAMES) + 1)), ("--base-port", "60000")]
)
def test_what_cannot_be_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert run("cluster", "up", *words).exit_code == 2


@pytest.mark.slow
def test_a_cluster_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    base = free_base_port()
    command = [sys.executable, "-m", "fluffle.broker", "cluster", "up"]
    words = ["--data-dir", str(tmp_path / "cluster"), "--base-port", str(base)]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "all are ready; Ctrl-C stops them\n":
                break
        for number in range(3):
            pika.BlockingConnection(pika.ConnectionParameters(port=base + number)).close()
        process.send_signal(signal.SIGINT)
        rest, _nothing = process.communicate(timeout=START_S)
    assert process.returncode == 0
    assert sorted(rest.splitlines()) == [
        "a has stopped",
        "b has stopped",
        "c has stopped",
        "stopping a, b, c",
    ]


def free_base_port() -> int:
    """Three in a row that are most likely free, since they are below those that are given out."""
    (port,) = free_ports(1)
    return 10_000 + port % 10_000
