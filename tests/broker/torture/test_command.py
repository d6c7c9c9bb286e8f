"""`fluffle torture`: its options, and histories that are judged again."""

import asyncio
from pathlib import Path

import click.testing
import pytest

from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node
from fluffle.broker.torture.command import client_options_of, kinds_of, system_of, torture
from fluffle.broker.torture.history import (
    Confirmed,
    Event,
    MessageId,
    Published,
    Received,
    to_line,
)
from fluffle.broker.torture.system import NodeAction, NodeActionFailed, by_command


def run(*words: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(torture, words)


def options(*nodes: str, **more: object) -> dict[str, object]:
    context = torture.make_context("torture", [])
    return {**context.params, "nodes": nodes, **more}


def test_nodes_are_named_by_addresses() -> None:
    given = options("a=amqp://alice:s%2Fecret@one:5673/%2Forders", "b=amqp://two")
    system = system_of(given)
    assert [tuple(address) for address in system.addresses] == [
        ("a", "one", 5673),
        ("b", "two", 5672),
    ]
    client_options = client_options_of(given["nodes"])  # type: ignore[arg-type]
    assert (client_options.user, client_options.password, client_options.vhost) == (
        "alice",
        "s/ecret",
        "/orders",
    )


def test_commands_make_faults_possible() -> None:
    killing = {"kill_command": "true", "start_command": "true"}
    given = options("a=amqp://one", "b=amqp://two", **killing)
    system = system_of(given)
    assert {*system.actions} == {NodeAction.KILL, NodeAction.START}
    assert {"kill", "kill-all", "reset-clients"} <= {*kinds_of(given, system)}
    assert kinds_of({**given, "wanted": "kill"}, system) == ("kill",)
    assert kinds_of({**given, "no_faults": True}, system) == ()


def test_a_spare_node_can_join_and_leave() -> None:
    actions = ("start", "stop", "joined", "grow", "shrink", "forget", "wipe")
    commands = {f"{action}_command": "true" for action in actions}
    given = options("a=amqp://one", spares=["b=amqp://two:5673"], **commands)
    system = system_of(given)
    assert [tuple(address) for address in system.spares] == [("b", "two", 5673)]
    assert system.nodes == ["a"]
    assert {"grow", "shrink"} <= {*kinds_of(given, system)}
    alone = {**given, "spares": []}
    assert not {"grow", "shrink"} & {*kinds_of(alone, system_of(alone))}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--node", "one"),
        ("--node", "a=http://one"),
        ("--node", "a=amqp://one:port"),
        ("--node", "a=amqp://one", "--node", "a=amqp://two"),
        ("--node", "a=amqp://one", "--spare", "a=amqp://two"),
        ("--node", "a=amqp://one", "--faults", "grow"),
        ("--node", "a=amqp://one", "--faults", "kill"),
        ("--node", "a=amqp://one", "--seconds", "-1"),
        ("--node", "a=amqp://one", "--rate", "0"),
        ("--node", "a=amqp://one", "--history", "/"),
        ("--check", "/"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_an_invalid_address_is_shown_without_its_password() -> None:
    result = run("--node", "a=http://app:s3cret@one")
    assert "'a=http://***@one' is no NAME" in result.output


def test_nobody_there_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluffle.broker.torture.run.READY_S", 0.0)
    result = run("--node", "a=amqp://127.0.0.1:1", "--seconds", "1")
    assert result.exit_code == 2
    assert "cannot be tortured: a does not serve" in result.output


async def test_a_broker_without_such_queues_is_not_a_verdict(tmp_path: Path) -> None:
    """Nor an error of ours, whatever it says."""
    node = Node(Config(listen=ListenAddress("127.0.0.1", 0), data_dir=tmp_path))
    await node.start()
    host, port = node.addresses["amqp"]
    words = ("--node", f"a=amqp://{host}:{port}", "--queue-type", "no such type")
    result = await asyncio.to_thread(run, *words)
    await node.stop("shutdown")
    assert result.exit_code == 2
    assert "cannot be tortured: it refuses the queues: PRECONDITION_FAILED" in result.output


async def test_commands_are_given_the_node() -> None:
    await by_command("test {node} = a")("a")
    with pytest.raises(NodeActionFailed, match="ended with 1"):
        await by_command("test {node} = a")("b")


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_history_is_judged_again(tmp_path: Path, is_lost: bool) -> None:
    file = tmp_path / "history"
    message = MessageId("p", 1)
    history: list[Event] = [Published(message, ("q",)), Confirmed(message)]
    if not is_lost:
        history.append(Received("c", "q", message, redelivered=False))
    file.write_text("".join(to_line(at, event) + "\n" for at, event in enumerate(history)))
    result = run("--check", str(file))
    assert result.exit_code == is_lost
    assert ("p/1 in q was confirmed and is lost" in result.output) is is_lost


@pytest.mark.parametrize("content", [b"hello\n", b"\xff\n", b'[1, "Strange"'])
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    result = run("--check", str(tmp_path / "file"))
    assert (result.exit_code, result.output) == (2, "line 1 is no event\n")
