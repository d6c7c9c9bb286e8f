"""Completion in shells: the script that it reads, and the words that it offers."""

from collections.abc import Iterator

import pika
import pytest
from click.shell_completion import ShellComplete

from fluffle.broker.__main__ import main
from fluffle.broker.cli.options import SHELLS
from tests.broker.cli.running_node import RunningNode, run


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with RunningNode(tmp_path_factory.mktemp("completion") / "data") as running:
        parameters = pika.ConnectionParameters("127.0.0.1", running.port)
        with pika.BlockingConnection(parameters) as connection:
            for name in ("orders", "orders.dead", "mails"):
                connection.channel().queue_declare(name, durable=True)
        yield running


def offered(*words: str) -> list[str]:
    """The last word is the one that is being typed."""
    completing = ShellComplete(main, {}, "fluffle", "_FLUFFLE_COMPLETE")
    return [item.value for item in completing.get_completions([*words[:-1]], words[-1])]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_reads(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_FLUFFLE_COMPLETE" in result.stdout


def test_commands_and_verbs() -> None:
    assert "queues" in offered("que")
    assert "purge" in offered("queues", "pu")
    assert offered("rabbitmqctl", "list_vhost") == ["list_vhosts", "list_vhost_limits"][::-1]
    assert offered("rabbitmqctl", "list_vhosts", "na") == []


def test_names_come_from_the_node(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUFFLE_DATA_DIR", str(node.config.data_dir))
    assert sorted(offered("queues", "purge", "or")) == ["orders", "orders.dead"]
    assert offered("queues", "list", "--vhost", "") == ["/"]
    assert offered("users", "delete", "gu") == ["guest"]
    assert offered("queues", "grow", "") == [], "a node that is alone has no list of nodes"


def test_nobody_is_asked_who_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUFFLE_DATA_DIR", "/nonexistent")
    assert offered("queues", "purge", "") == []
    monkeypatch.setenv("FLUFFLE_URL", "http://carol@127.0.0.1:1")
    assert offered("queues", "purge", "") == []
