"""Each command against a node, as an operator types it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pika
import pytest

from fluffle.broker.__main__ import COMMANDS, RABBITMQCTL, main
from fluffle.broker.access.passwords import SHA512, hashed
from fluffle.broker.cli import users
from fluffle.broker.cli.client import LocalClient, NodeUnreachable
from fluffle.broker.cli.definitions import write_file
from fluffle.broker.cli.node import duration, size
from fluffle.broker.cli.output import Row
from fluffle.broker.statistics.volumes import HEAD_TIMESTAMP, NAMES, QUORUM_NAMES
from tests.broker.admin.verb_harness import VerbHarness
from tests.broker.cli.running_node import RunningNode, run
from tests.support.deadlines import DEADLINE_S


def rows(node: RunningNode, *words: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(node.output(*words, "--json"))
    return result


def make(node: RunningNode, tmp_path: Path, **categories: list[dict[str, Any]]) -> None:
    file = tmp_path / "made.json"
    file.write_text(json.dumps(categories))
    node.output("definitions", "import", str(file))


def test_status(node: RunningNode) -> None:
    lines = dict(line.split("  ", 1) for line in node.output("status").splitlines())
    assert lines["node"].strip() == "a"
    assert json.loads(node.output("status", "--json"))["queues"] == 0


@pytest.mark.parametrize(
    ("words", "answer", "text"),
    [
        (["rebalance"], {"queues": 2}, "2 queues are given another leader"),
        (["rebalance"], {"queues": 1}, "1 queue is given another leader"),
        (["rebalance"], {"queues": 0}, "no queues are given another leader"),
    ],
)
def test_how_many_queues_have_been_moved_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, words: list[str], answer: Row, text: str
) -> None:
    def call(_client: LocalClient, verb: str) -> Row:
        assert verb == f"queues.{words[0]}"
        return answer

    monkeypatch.setattr(LocalClient, "call", call)
    assert run("queues", *words).output == f"{text}\n"
    assert json.loads(run("queues", *words, "--json").output) == answer


def outcomes_are(monkeypatch: pytest.MonkeyPatch, verb: str, outcomes: list[str]) -> None:
    """So many queues have these when members are to come to the node d, or go."""

    def printed(_client: LocalClient, asked: str, **arguments: object) -> Iterator[Row]:
        assert (asked, arguments) == (f"queues.{verb}", {"node": "d"})
        for number, outcome in enumerate(outcomes):
            error = f"is {outcome}" if outcome not in ("changed", "unchanged") else ""
            yield {"vhost": "/", "name": f"q{number}", "result": outcome, "error": error}

    monkeypatch.setattr(LocalClient, "rows", printed)


@pytest.mark.parametrize(
    ("verb", "outcomes", "answer", "text"),
    [
        (
            "grow",
            [*["changed"] * 5, "unchanged"],
            {"queues": 5, "already": 1},
            "5 queues have got a member on d, 1 has had one",
        ),
        ("grow", ["changed"], {"queues": 1, "already": 0}, "1 queue has got a member on d"),
        (
            "grow",
            [],
            {"queues": 0, "already": 0},
            "there is no quorum queue that could get a member on d",
        ),
        ("shrink", [], {"queues": 0, "nowhere_else": 0}, "no quorum queue has a member on d"),
        (
            "shrink",
            ["refused"] * 2,
            {"queues": 0, "nowhere_else": 2},
            "no queues have lost the member on d, 2 are nowhere else and stay",
        ),
        (
            "shrink",
            ["changed", "refused"],
            {"queues": 1, "nowhere_else": 1},
            "1 queue has lost the member on d, 1 is nowhere else and stays",
        ),
    ],
)
def test_how_many_queues_have_other_members_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, verb: str, outcomes: list[str], answer: Row, text: str
) -> None:
    outcomes_are(monkeypatch, verb, outcomes)
    assert run("queues", verb, "d").output == f"{text}\n"
    assert json.loads(run("queues", verb, "d", "--json").output) == answer


@pytest.mark.parametrize("verb", ["grow", "shrink"])
def test_there_are_no_members_on_a_node_that_is_none(node: RunningNode, verb: str) -> None:
    assert node.refusal("queues", verb, "nosuch") == "there is no node 'nosuch'"


def test_queues_whose_members_are_not_as_was_asked_for_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes_are(monkeypatch, "grow", ["changed", "under_way", "superseded"])
    result = run("queues", "grow", "d")
    assert result.exit_code != 0
    assert "queue 'q1' in vhost '/' is under_way" in result.output
    assert "queue 'q2' in vhost '/' is superseded" in result.output


def test_users(node: RunningNode) -> None:
    assert node.output("users", "add", "bob", "builder", "--tags", "monitoring, x") == ""
    assert node.refusal("users", "add", "bob", "b") == "user 'bob' already exists"
    assert node.output("users", "list") == (
        "user   tags           max_connections  max_channels\n"
        "guest  administrator\n"
        "bob    monitoring, x\n"
    )
    node.output("users", "authenticate", "bob", "builder")
    assert node.refusal("users", "authenticate", "bob", "x") == "user 'bob' gave a wrong password"
    node.output("users", "tags", "bob")
    node.output("users", "limits", "bob", "--max-connections", "3", "--max-channels", "none")
    row = rows(node, "users", "list")[1]
    assert (row["tags"], row["max_connections"], row["max_channels"]) == ([], 3, None)
    assert json.loads(node.output("users", "show", "bob", "--json")) == row
    assert "max_connections    3\n" in node.output("users", "show", "bob")
    node.output("users", "delete", "bob")
    assert node.refusal("users", "delete", "bob") == "user 'bob' does not exist"
    assert "the last administrator" in node.refusal("users", "delete", "guest")
    node.output("users", "delete", "guest", "--force")


def test_a_password_comes_from_where_nobody_sees_it(node: RunningNode) -> None:
    node.output("users", "add", "bob", "--password-stdin", input="sec ret\r\nmore")
    node.output("users", "authenticate", "bob", "--password-stdin", input="sec ret")
    node.output("users", "password", "bob", "--no-password")
    assert "no password" in node.refusal("users", "authenticate", "bob", "sec ret")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "argon2"])
def test_passwords_are_hashed_in_three_ways(node: RunningNode, algorithm: str) -> None:
    node.output("users", "add", "bob", "pass", "--algorithm", algorithm)
    node.output("users", "authenticate", "bob", "pass")
    assert algorithm in rows(node, "users", "list")[1]["hashing_algorithm"]


def test_a_hash_is_taken_as_it_is(node: RunningNode) -> None:
    ready = hashed(b"pass", SHA512).hash
    node.output("users", "add", "bob", "--hash", ready, "--algorithm", "sha512")
    node.output("users", "authenticate", "bob", "pass")
    node.output("users", "password", "bob", "--hash", ready)  # which is none of that algorithm
    assert node.refusal("users", "authenticate", "bob", "pass") == (
        "user 'bob' has no usable hash: the password hash has 68 octets instead of 36"
    )
    assert node.refusal("users", "password", "bob", "--hash", "!") == (
        "the password hash is not base64"
    )


def test_a_terminal_is_asked(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", lambda *_args, **_more: "typed")
    assert users.read_password(None, is_stdin=False) == b"typed"


@pytest.mark.parametrize(
    "words",
    [
        ("users", "add", "bob"),
        ("users", "add", "bob", ""),
        ("users", "add", "bob", "x", "--password-stdin"),
        ("users", "password", "bob", "--no-password", "--hash", "x"),
        ("users", "limits", "bob"),
        ("users", "limits", "bob", "--max-channels", "many"),
        ("users", "list", "--columns", "x"),
        ("queues", "list", "--columns", "x"),
        ("connections", "close"),
        ("nonsense",),
    ],
)
def test_wrong_calls(node: RunningNode, words: tuple[str, ...]) -> None:
    assert node.run(*words).exit_code == 2
    assert len(rows(node, "users", "list")) == 1


def test_virtual_hosts_and_permissions(node: RunningNode) -> None:
    node.output("vhosts", "add", "orders")
    node.output("vhosts", "limits", "orders", "--max-queues", "5")
    assert rows(node, "vhosts", "list")[1]["max_queues"] == 5
    node.output("permissions", "set", "guest", "", "^a", ".*", "--vhost", "orders")
    assert node.output("permissions", "list", "--vhost", "orders") == (
        "user   vhost   configure  write  read\nguest  orders             ^a     .*\n"
    )
    assert "cannot use the regular" in node.refusal("permissions", "set", "guest", "(", "", "")
    node.output("permissions", "clear", "guest", "-p", "orders")
    assert rows(node, "permissions", "list", "--user", "guest", "-p", "orders") == []
    node.output("permissions", "topic-set", "guest", "x", "^a", "")
    assert rows(node, "permissions", "topic-list")[0]["write"] == "^a"
    node.output("permissions", "topic-clear", "guest")
    assert rows(node, "permissions", "topic-list") == []
    node.output("vhosts", "delete", "orders")
    assert "does not exist" in node.refusal("vhosts", "delete", "orders")


def test_queues_exchanges_and_bindings(node: RunningNode, tmp_path: Path) -> None:
    binding = {
        "vhost": "/",
        "source": "x",
        "destination": "q",
        "destination_type": "queue",
        "routing_key": "k",
    }
    make(
        node,
        tmp_path,
        exchanges=[{"vhost": "/", "name": "x", "type": "topic"}],
        queues=[{"vhost": "/", "name": "q", "durable": True}],
        bindings=[binding],
    )
    assert node.output("queues", "list", "--columns", "name,messages") == (
        "name  messages\nq            0\n"
    )
    assert json.loads(node.output("queues", "show", "q", "--json"))["durable"] is True
    assert "durable" in node.output("queues", "show", "q")
    assert node.output("queues", "purge", "q") == "0\n"
    assert rows(node, "exchanges", "list", "-p", "/")[-1]["name"] == "x"
    assert [row["routing_key"] for row in rows(node, "bindings", "list")] == ["q", "k"]
    assert node.output("queues", "delete", "q", "--if-empty", "--if-unused") == "0\n"
    assert node.refusal("queues", "delete", "q") == "no queue 'q' in vhost '/'"
    assert node.output("queues", "list", "--columns", "name,owner") == "name  owner\n"


def test_peek(node: RunningNode) -> None:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port)) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        for body in (b"one", b"two\x1b[2J", b"three"):
            channel.basic_publish("", "q", body, pika.BasicProperties(priority=2))
        table = node.output("queues", "peek", "q", "--count", "2", "--offset", "1").splitlines()
    assert [line.split() for line in table[1:]] == [
        ["1", "q", "2", "no", "0", "7", r"two\x1b[2J"],
        ["2", "q", "2", "no", "0", "5", "three"],
    ]
    assert [row["payload"] for row in rows(node, "queues", "peek", "q")] == ["one"]
    assert node.refusal("queues", "peek", "q", "--count", "0") == "'count' must be from 1 to 10000"


def test_move(node: RunningNode) -> None:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port)) as connection:
        channel = connection.channel()
        for queue in ("q", "w"):
            channel.queue_declare(queue, durable=True)
        for number in range(10):
            headers = {"half": number % 2}
            properties = pika.BasicProperties(headers=headers, delivery_mode=2)
            channel.basic_publish("", "q", b"%d" % number, properties)
        channel.queue_declare("q", passive=True)
    move = ("queues", "move", "q", "w")
    assert node.output(*move, "--where", "half=1", "--routing-key", "#") == "5 moved, 5 stay\n"
    moved = rows(node, "queues", "peek", "w", "--count", "99")
    assert [row["payload"] for row in moved] == ["1", "3", "5", "7", "9"]
    assert json.loads(node.output(*move, "--limit", "2", "--json")) == {"moved": 2, "skipped": 0}
    assert node.output(*move, "--rate", "1000") == "3 moved\n"
    assert node.output(*move) == "0 moved\n"
    assert node.refusal(*move, "--where", "half") == "'half' is no header; write name=value"


def test_convert(node: RunningNode) -> None:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port)) as connection:
        channel = connection.channel()
        for queue in ("q", "w"):
            channel.queue_declare(queue, durable=True)
            channel.basic_publish("", queue, b"1", pika.BasicProperties(delivery_mode=2))
            channel.queue_declare(queue, passive=True)
    assert node.output("queues", "convert", "q") == "1 copied\n"
    assert json.loads(node.output("queues", "convert", "w", "--json")) == {"copied": 1}
    shown = rows(node, "queues", "list", "--columns", "all")
    assert [(row["name"], row["type"], row["messages"]) for row in shown] == [
        ("q", "quorum", 1),
        ("w", "quorum", 1),
    ]
    assert node.refusal("queues", "convert", "q") == (
        "queue 'q' in vhost '/' is a quorum queue already"
    )


def test_connections_channels_and_consumers(node: RunningNode) -> None:
    for what in ("connections", "channels", "consumers"):
        assert rows(node, what, "list") == []
    assert node.refusal("connections", "close", "x") == "no connection 'x'"
    assert "user 'x' does not exist" in node.refusal("connections", "close", "--user", "x")
    assert node.output("connections", "close", "--all") == "0\n"


def test_more_queues_than_a_page_holds(node: RunningNode, tmp_path: Path) -> None:
    queues = [{"vhost": "/", "name": f"q{number}"} for number in range(1234)]
    make(node, tmp_path, queues=queues)
    assert [row["name"] for row in rows(node, "queues", "list")] == [
        queue["name"] for queue in queues
    ]
    assert len(node.output("queues", "list").splitlines()) == 1235


def test_definitions_go_round(node: RunningNode, tmp_path: Path) -> None:
    node.output("users", "add", "bob", "builder")
    node.output("vhosts", "add", "v")
    make(node, tmp_path, queues=[{"vhost": "v", "name": "q", "arguments": {"x-max-length": 5}}])
    file = tmp_path / "out.json"
    file.touch()
    assert node.refusal("definitions", "export", str(file)).endswith("--force replaces it")
    node.output("definitions", "export", str(file), "--force")
    assert file.stat().st_mode & 0o777 == 0o600
    whole = json.loads(file.read_text())
    assert json.loads(node.output("definitions", "export")) == whole
    with RunningNode(tmp_path / "other") as other:
        other.output("definitions", "import", str(file))
        other.output("users", "authenticate", "bob", "builder")
        assert json.loads(other.output("definitions", "export")) == whole
        one = node.output("definitions", "export", "--vhost", "v")
        other.output("vhosts", "add", "w")
        other.output("definitions", "import", "-", "--vhost", "w", input=one)
        assert rows(other, "queues", "list", "-p", "w")[0]["arguments"] == {"x-max-length": 5}


def test_hashes_that_rabbitmq_cannot_read_are_said_and_left_out(node: RunningNode) -> None:
    node.output("users", "add", "bob", "builder", "--algorithm", "argon2")
    within = node.run("definitions", "export")
    assert "argon2" in within.stderr
    assert within.stderr.endswith(": bob\n")
    assert json.loads(within.stdout)["users"][1]["password_hash"].startswith("$argon2")
    without = node.run("definitions", "export", "--for-rabbitmq")
    assert without.stderr.startswith("exported without a password")
    guest, bob = json.loads(without.stdout)["users"]
    assert (bob["name"], bob["password_hash"], bob["hashing_algorithm"]) == (
        "bob",
        "",
        "rabbit_password_hashing_sha256",
    )
    assert guest == json.loads(within.stdout)["users"][0]


def test_what_an_import_skips_is_said(node: RunningNode, tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    entry = {"vhost": "/", "name": "s", "arguments": {"x-queue-type": "stream"}}
    file.write_text(json.dumps({"queues": [entry]}))
    result = node.run("definitions", "import", str(file))
    assert result.exit_code == 0
    assert result.stderr.startswith("skipped queues, vhost '/' name 's': ")


def test_nothing_writes_to_the_terminal_by_its_name(node: RunningNode, tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    for category, entry in (
        (
            "queues",
            {"vhost": "/", "name": "\x1b[2J", "arguments": {"x-queue-type": "stream"}},
        ),
        (
            "permissions",
            {"vhost": "/", "user": "\x1b[2J", "configure": "", "write": "", "read": ""},
        ),
    ):
        file.write_text(json.dumps({category: [entry]}))
        printed = node.run("definitions", "import", str(file)).stderr
        assert "\x1b" not in printed
        assert r"\x1b[2J" in printed


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no object"),
        ('{"queues": {}}', "queues is no list of objects"),
        ('{"queues": [1]}', "queues is no list of objects"),
        ('{"users": [{}]}', "users, entry 1: there is no 'name'"),
    ],
)
def test_files_that_hold_no_definitions(
    node: RunningNode, tmp_path: Path, text: str, refusal: str
) -> None:
    file = tmp_path / "in.json"
    file.write_text(text)
    assert refusal in node.refusal("definitions", "import", str(file))


def test_an_export_that_is_refused_leaves_no_file(node: RunningNode, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert "does not exist" in node.refusal("definitions", "export", str(file), "--vhost", "x")
    assert "cannot write" in node.refusal("definitions", "export", str(tmp_path / "no" / "file"))
    assert not file.exists()


def test_an_export_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield {"category": "users", "entry": {"name": "a", "password_hash": "h"}}
        raise NodeUnreachable("the node hung up")

    first: Row = {"head": {"version": "1"}, "categories": ["users"]}
    with pytest.raises(NodeUnreachable):
        write_file(tmp_path / "out.json", first, rows())
    assert [*tmp_path.iterdir()] == []


def test_the_environment_says_where_the_node_is(node: RunningNode) -> None:
    result = run("status", "--json", env={"FLUFFLE_DATA_DIR": str(node.config.data_dir)})
    assert json.loads(result.stdout)["node"] == "a"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("list_queues",), "what RabbitMQ calls so is `fluffle queues list`"),
        (("quorum_status", "q"), "what RabbitMQ calls so is `fluffle queues members`"),
        (("list_quues",), "did you mean `fluffle queues list`?"),
        (("conections", "list"), "did you mean `fluffle connections`?"),
        (("--data-dir", "x", "queues", "list"), "fluffle COMMAND … --data-dir …"),
    ],
)
def test_a_mistyped_command_gets_a_suggestion(words: tuple[str, ...], hint: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert hint in result.stderr


@pytest.mark.parametrize("command", sorted(set(RABBITMQCTL.values())))
def test_what_is_suggested_is_there(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        "users list",
        "vhosts list",
        "permissions list",
        "permissions topic-list",
        "queues list",
        "exchanges list",
        "bindings list",
        "connections list",
        "channels list",
        "consumers list",
    ],
)
def test_columns_are_those_of_the_rows(node: RunningNode, words: str) -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("q")
    client.consume("q")
    topics = {"exchange": "amq.topic", "write": "", "read": ""}
    desk.ask("permissions.topic_set", user="guest", vhost="/", **topics)
    row = desk.rows(words.replace(" ", ".").replace("-", "_"))[0]
    header = node.output(*words.split(), "--columns", "all").splitlines()[0].split()
    more = {
        "queues list": (*NAMES, *QUORUM_NAMES, HEAD_TIMESTAMP),
        "connections list": ("client_id",),
    }
    assert sorted(header) == sorted((*row, *more.get(words, ())))


def test_how_much_is_in_queues_is_measured_for_who_asks(node: RunningNode) -> None:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q")
        channel.queue_declare("led", durable=True, arguments={"x-queue-type": "quorum"})
        for name in ("q", "led"):
            channel.basic_publish("", name, b"hello", pika.BasicProperties(timestamp=7))
        columns = "name,message_bytes,head_message_timestamp,messages_ready_normal"
        listed = node.output("queues", "list", "--columns", columns).splitlines()[1:]
        assert sorted(line.split() for line in listed) == [["led", "5", "7", "1"], ["q", "5", "7"]]
        shown = rows(node, "queues", "list", "--columns", "name,memory", "-p", "/")
        assert all(row["memory"] > row["message_bytes"] for row in shown)
        assert "memory" not in rows(node, "queues", "list")[0]


def test_help_breaks_no_words() -> None:
    for group in ("queues", "connections", "channels", "consumers"):
        text = run(group, "list", "--help", terminal_width=80).stdout
        assert {"messages_ready", "user_provided_name", "prefetch_count"} & set(
            re.split(r"[\s,]+", text)
        ), text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    assert command.help
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    assert [each.name for each in inner if not each.help] == []
    assert run(name, "--help").exit_code == 0


def test_sizes_and_durations() -> None:
    sizes = [999, 1000, 50_000_000, 36 << 20, 5 << 40, None]
    assert list(map(size, sizes)) == [
        "999 B",
        "0.977 KiB",
        "47.7 MiB",
        "36 MiB",
        "5 TiB",
        "unknown",
    ]
    assert [duration(59), duration(90_061)] == ["00:00:59", "1 d 01:01:01"]


def test_a_command_loads_no_broker() -> None:
    code = (
        "import sys; from fluffle.broker.__main__ import main\n"
        "try: main(['queues', 'list', '--data-dir', '/nonexistent'])\n"
        "except SystemExit as end: assert end.code == 69\n"
        "heavy = {'asyncio', 'uvloop', 'lmdb', 'logging', 'fluffle.broker.node'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    assert done.stdout == "[]\n"


def test_a_node_that_is_alone_is_its_cluster(node: RunningNode) -> None:
    assert node.output("cluster", "status", "--columns", "node,state,role").splitlines() == [
        "node  state    role",
        "a     running  alone",
    ]
    [row] = json.loads(node.output("cluster", "status", "--json"))
    assert (row["node"], row["state"], row["maintenance"]) == ("a", "running", False)
