"""`rabbitmqctl` and its sisters against a node, as scripts and probes call them."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pika
import pika.exceptions
import pytest
from click.testing import Result

from fluffle.broker.access.passwords import SHA256, PasswordHash, why_unusable
from fluffle.broker.cli.client import NodeClient
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.nodes import cluster_status
from fluffle.broker.cli.rabbitmq.tool import TOOLS, is_meant, verbs_of
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    NO_USER,
    SOFTWARE,
    UNAVAILABLE,
    USAGE,
    Invocation,
)
from tests.broker.cli.running_node import RunningNode, run
from tests.support.deadlines import DEADLINE_S


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with RunningNode(tmp_path_factory.mktemp("rabbitmqctl") / "data") as running:
        yield running


def ctl(node: RunningNode, *words: str) -> Result:
    return node.run("rabbitmqctl", *words)


def said(node: RunningNode, *words: str, tool: str = "rabbitmqctl") -> str:
    result = node.run(tool, *words)
    assert result.exit_code == 0, (words, result.output)
    return result.stdout


def test_users_and_what_they_may(node: RunningNode) -> None:
    assert said(node, "add_user", "carol", "secret").startswith('Adding user "carol" ...\nDone. ')
    assert ctl(node, "add_user", "carol", "secret").exit_code == SOFTWARE
    assert said(node, "set_user_tags", "carol", "monitoring", "management") == (
        'Setting tags for user "carol" to [monitoring, management] ...\n'
    )
    assert said(node, "list_users") == (
        "Listing users ...\nuser\ttags\nguest\t[administrator]\ncarol\t[monitoring, management]\n"
    )
    assert said(node, "authenticate_user", "carol", "secret").endswith("Success\n")
    assert ctl(node, "authenticate_user", "carol", "wrong").exit_code == DATA
    said(node, "set_permissions", "carol", "^a", ".*", "")
    assert said(node, "list_user_permissions", "carol", "-q") == (
        "vhost\tconfigure\twrite\tread\n/\t^a\t.*\t\n"
    )
    said(node, "set_topic_permissions", "carol", "amq.topic", "^a", "^b")
    assert said(node, "list_topic_permissions", "-s") == "carol\tamq.topic\t^a\t^b\n"
    assert said(node, "list_user_topic_permissions", "carol").endswith("\n/\tamq.topic\t^a\t^b\n")
    said(node, "clear_topic_permissions", "carol")
    said(node, "clear_permissions", "carol")
    said(node, "set_permissions_globally", "carol", ".*", ".*", ".*")
    assert ctl(node, "set_permissions", "nosuch", "", "", "").exit_code == NO_USER
    assert (
        ctl(node, "set_permissions", "-p", "nosuch", "carol", "", "", "").exit_code == UNAVAILABLE
    )
    said(node, "set_user_limits", "carol", '{"max-connections": 10}')
    assert said(node, "list_user_limits", "--user", "carol", "-q") == '{"max-connections":10}\n'
    assert said(node, "list_user_limits", "--global", "-s") == 'carol\t{"max-connections":10}\n'
    said(node, "clear_user_limits", "carol", "all")
    assert said(node, "list_user_limits", "--user", "carol", "-q") == "{}\n"
    assert ctl(node, "list_user_limits", "--user", "nosuch").exit_code == NO_USER
    said(node, "change_password", "carol", "other")
    said(node, "clear_password", "carol")
    assert ctl(node, "authenticate_user", "carol", "other").exit_code == DATA
    said(node, "delete_user", "carol")
    said(node, "delete_user", "carol")


def test_a_hash_is_made_and_taken(node: RunningNode) -> None:
    made = said(node, "-q", "hash_password", "secret").strip()
    assert not why_unusable(PasswordHash(made, SHA256))
    said(node, "add_user", "robot", made, "--pre-hashed-password")
    said(node, "authenticate_user", "robot", "secret")
    piped = node.run("rabbitmqctl", "change_password", "robot", input="piped\n")
    assert piped.exit_code == 0
    said(node, "authenticate_user", "robot", "piped")
    assert node.run("rabbitmqctl", "add_user", "nobody", input="\n").exit_code == DATA
    said(node, "delete_user", "robot")


def test_virtual_hosts(node: RunningNode) -> None:
    make = "--description", "my orders", "--tags", "a,b", "--default-queue-type=quorum"
    said(node, "add_vhost", "orders", *make)
    assert said(node, "add_vhost", "orders") == 'Adding vhost "orders" ...\n'
    columns = "name", "tracing", "description", "tags", "default_queue_type"
    listed = said(node, "list_vhosts", *columns)
    assert "orders\tfalse\tmy orders\t[a, b]\tquorum\n" in listed
    said(node, "update_vhost_metadata", "orders", "--description", "other")
    said(node, "set_vhost_tags", "orders", "x")
    assert "orders\tother\t[x]\n" in said(node, "list_vhosts", "name", "description", "tags")
    said(node, "set_vhost_limits", "-p", "orders", '{"max-queues": 3, "max-connections": -1}')
    assert said(node, "list_vhost_limits", "-p", "orders", "-q") == '{"max-queues":3}\n'
    assert said(node, "list_vhost_limits", "--global", "-s") == 'orders\t{"max-queues":3}\n'
    said(node, "clear_vhost_limits", "-p", "orders")
    assert said(node, "list_vhost_limits", "-p", "orders", "-q") == "\n"
    assert ctl(node, "set_vhost_limits", "nojson").exit_code == UNAVAILABLE
    assert ctl(node, "list_vhost_limits", "-p", "nosuch").exit_code == UNAVAILABLE
    assert said(node, "trace_on", "-p", "orders").endswith("Trace enabled for vhost orders\n")
    said(node, "trace_off", "-p", "orders")
    said(node, "enable_vhost_protection_from_deletion", "orders")
    assert ctl(node, "delete_vhost", "orders").exit_code == UNAVAILABLE
    said(node, "disable_vhost_protection_from_deletion", "orders")
    said(node, "delete_vhost", "orders")
    assert ctl(node, "delete_vhost", "orders").exit_code == DATA
    assert ctl(node, "update_vhost_metadata", "/").exit_code == USAGE
    assert ctl(node, "list_vhosts", "nosuch").exit_code == USAGE


def listen(connection: pika.BlockingConnection) -> None:
    """Until it is closed."""
    while True:
        connection.process_data_events(time_limit=DEADLINE_S)


def test_lists_by_columns_and_formats(node: RunningNode) -> None:
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port))
    channel = connection.channel()
    channel.queue_declare("q", durable=True, arguments={"x-max-length": 5})
    channel.basic_publish("", "q", b"hi")
    channel.basic_consume("q", lambda *_: None, consumer_tag="tag")
    assert said(node, "list_queues") == (
        "Timeout: 60.0 seconds ...\nListing queues for vhost / ...\nname\tmessages\nq\t1\n"
    )
    assert said(node, "list_queues", "name,type", "arguments", "--no-table-headers", "-q") == (
        'q\tclassic\t[{"x-max-length",5}]\n'
    )
    measured = "name", "message_bytes", "messages_persistent", "head_message_timestamp", "members"
    row = said(node, "list_queues", *measured, "--no-table-headers", "-q")
    assert row == "q\t2\t0\t\t[a]\n"
    place = said(node, "list_queues", "name", "leader", "members", "online", "pid", "-s", "-q")
    assert place == "q\ta\t[a]\t\ta\n"
    assert said(node, "list_queues", "--formatter", "json") == '[\n{"name":"q","messages":1}\n]\n'
    assert said(node, "list_queues", "--formatter=csv") == '"name","messages"\n"q",1\n'
    assert said(node, "list_queues", "--formatter", "json_stream") == '{"name":"q","messages":1}\n'
    assert "│ q    │ 1        │" in said(node, "list_queues", "--formatter", "pretty_table")
    assert said(node, "list_queues", "--offline", "-q") == ""
    assert "amq.topic\ttopic" in said(node, "list_exchanges")
    assert "\texchange\tq\tqueue\tq\t[]\n" in said(node, "list_bindings")
    assert "guest\t127.0.0.1\t" in said(node, "list_connections")
    name = said(node, "list_connections", "pid", "-s").strip()
    assert f"{name} (1)\tguest\t1\t1" in said(node, "list_channels")
    assert "q\t" in said(node, "list_consumers")
    for verb, protocol in (("mqtt", "MQTT"), ("web_mqtt", "Web MQTT")):
        listed = said(node, f"list_{verb}_connections")
        assert listed == f"Listing {protocol} connections ...\n"
        assert ctl(node, f"list_{verb}_connections", "channels").exit_code == USAGE
    assert ctl(node, "list_queues", "nosuch").exit_code == USAGE
    assert said(node, "purge_queue", "q") == "Purging queue 'q' in vhost '/' ...\n"
    assert ctl(node, "purge_queue", "nosuch").exit_code == DATA
    said(node, "close_connection", name, "bye")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="bye"):
        listen(connection)
    assert ctl(node, "close_connection", "nosuch", "bye").exit_code == UNAVAILABLE
    assert "Closed " in said(node, "close_all_connections", "bye", "--global")
    said(node, "close_all_user_connections", "guest", "bye")
    assert " ready messages\n" in said(node, "delete_queue", "q")
    assert ctl(node, "delete_queue", "nosuch").exit_code == USAGE


def test_policies_and_parameters(node: RunningNode) -> None:
    words = "p1", "^q", '{"max-length":5}'
    said(node, "set_policy", *words, "--apply-to", "queues", "--priority", "2")
    assert said(node, "list_policies") == (
        'Listing policies for vhost "/" ...\nvhost\tname\tpattern\tapply-to\tdefinition\tpriority\n'
        '/\tp1\t^q\tqueues\t{"max-length":5}\t2\n'
    )
    (row,) = json.loads(said(node, "list_policies", "--formatter", "json"))
    assert row["definition"] == '{"max-length":5}'
    said(node, "clear_policy", "p1")
    absent = ctl(node, "clear_policy", "p1")
    assert (absent.exit_code, absent.stderr) == (UNAVAILABLE, "Error:\nParameter does not exist\n")
    assert ctl(node, "set_policy", "p", "^q", "nojson").exit_code == UNAVAILABLE
    assert ctl(node, "set_policy", *words, "--priority", "high").exit_code == USAGE
    said(node, "set_operator_policy", *words)
    assert "/\tp1\t" in said(node, "list_operator_policies")
    assert "operator_policy\tp1\t" in said(node, "list_parameters")
    said(node, "clear_operator_policy", "p1")
    assert said(node, "list_parameters", "-q") == "\n"
    said(
        node,
        "set_parameter",
        "operator_policy",
        "p2",
        '{"pattern": "", "definition": {"expires": 9}, "priority": 0}',
    )
    said(node, "clear_parameter", "operator_policy", "p2")
    said(node, "set_global_parameter", "g", '{"a":1}')
    assert 'g\t{"a":1}\n' in said(node, "list_global_parameters")
    said(node, "clear_global_parameter", "g")
    said(node, "set_cluster_name", "mine")


def test_definitions(node: RunningNode, tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    said(node, "export_definitions", str(file))
    content = json.loads(said(node, "export_definitions", "-"))
    assert content == json.loads(file.read_text())
    assert "Successfully started definition import" in said(node, "import_definitions", str(file))
    piped = node.run("rabbitmqctl", "import_definitions", input=json.dumps(content))
    assert piped.exit_code == 0
    assert ctl(node, "import_definitions", str(tmp_path / "nosuch")).exit_code == DATA
    assert ctl(node, "export_definitions", "-", "--format", "erlang").exit_code == USAGE


def test_how_a_node_is(node: RunningNode) -> None:
    assert said(node, "ping").endswith("Ping succeeded\n")
    assert said(node, "version") == "4.3.5\n"
    assert "Is under maintenance?: false" in said(node, "status")
    assert json.loads(said(node, "status", "--formatter", "json"))["alarms"] == []
    assert "Node: a, status: not under maintenance" in said(node, "cluster_status")
    cluster = json.loads(said(node, "cluster_status", "--formatter", "json"))
    assert cluster["running_nodes"] == ["a"]
    said(node, "await_startup")
    said(node, "await_online_nodes", "1")
    assert "in time" in ctl(node, "await_online_nodes", "2", "-t", "0").stderr
    for verb in ("environment", "report", "node_health_check", "list_deprecated_features"):
        said(node, verb)
    assert "quorum_queue\tenabled\n" in said(node, "list_feature_flags")
    said(node, "enable_feature_flag", "all")
    assert ctl(node, "enable_feature_flag", "nosuch").exit_code == USAGE


class ThreeNodes:
    """A client of a cluster: node `c` is silent."""

    def call(self, verb: str, **_arguments: object) -> Row:
        assert verb == "status"
        return {**self.status("b"), "cluster": {"name": "three"}}

    def rows(self, verb: str, **_arguments: object) -> Iterator[Row]:
        if verb == "cluster.status":
            for node, state in (("a", "running"), ("b", "running"), ("c", "unreachable")):
                yield {"node": node, "state": state, "maintenance": False}
        elif verb == "everywhere.rows":
            yield from ({"node": node, "row": self.status(node)} for node in "ba")
            yield {"node": "c", "silent": "there is no link to it"}

    def status(self, node: str) -> Row:
        return {
            "node": node,
            "product": "RabbitMQ",
            "product_version": f"4.3.5{node}",
            "platform": "Python",
            "addresses": {"amqp": ("127.0.0.1", 5672 + ord(node))},
        }


def test_versions_and_listeners_are_those_of_all_nodes() -> None:
    client = cast(NodeClient, ThreeNodes())
    printed = cluster_status(Invocation(client, [], {}, str, time))
    assert "a: RabbitMQ 4.3.5a on Python" in printed.lines
    assert "b: RabbitMQ 4.3.5b on Python" in printed.lines
    content = cast(Row, printed.content)
    assert {node: each["rabbitmq_version"] for node, each in content["versions"].items()} == {
        "a": "4.3.5a",
        "b": "4.3.5b",
    }
    assert [*content["listeners"]] == ["a", "b"]
    assert len([line for line in printed.lines if "protocol: amqp" in line]) == 2


def test_health_checks(node: RunningNode) -> None:
    def check(*words: str) -> str:
        return said(node, *words, tool="rabbitmq-diagnostics")

    for verb in (
        "ping", "check_running", "is_running", "is_booting", "alarms", "check_alarms",
        "check_local_alarms", "listeners", "check_virtual_hosts", "check_port_connectivity",
        "check_if_node_is_quorum_critical", "server_version", "memory_breakdown", "os_env",
        "cipher_suites", "tls_versions", "log_location",
    ):  # fmt: skip
        check(verb)
    check("check_port_listener", str(node.port))
    check("check_protocol_listener", "amqp091")
    listed = json.loads(check("listeners", "--formatter", "json"))["listeners"]
    assert [each["port"] for each in listed] == [node.port]
    within = "check_certificate_expiration", "--within"
    assert check(*within, "1").endswith("No certificates are expiring within 1 week.\n")
    assert node.run("rabbitmq-diagnostics", *within, "soon").exit_code == DATA
    for words in (("check_port_listener", "1"), ("check_protocol_listener", "mqtt"), ("log_tail",)):
        assert node.run("rabbitmq-diagnostics", *words).exit_code == UNAVAILABLE
    refused = node.run("rabbitmq-diagnostics", "check_port_listener", "1", "--formatter", "json")
    assert json.loads(refused.stderr)["missing"] == 1


def checked(node: RunningNode) -> Result:
    return node.run("rabbitmq-diagnostics", "check_alarms", "--formatter", "json")


def test_an_alarm_fails_the_checks(node: RunningNode) -> None:
    said(node, "set_disk_free_limit", "1000000GiB")
    printed = checked(node)
    assert json.loads(printed.stderr)["alarms"] == [{"node": "a", "resource": "disk"}]
    assert node.run("rabbitmq-diagnostics", "check_local_alarms").exit_code == UNAVAILABLE
    said(node, "set_disk_free_limit", "50MB")
    assert checked(node).exit_code == 0


def test_settings(node: RunningNode) -> None:
    for words in (("0.5",), ("absolute", "2GB")):
        said(node, "set_vm_memory_high_watermark", *words)
    for words in (("5",), ("absolute", "much"), ("much",)):
        assert ctl(node, "set_vm_memory_high_watermark", *words).exit_code == DATA
    for words in (("mem_relative", "0.1"), ("50MB",)):
        said(node, "set_disk_free_limit", *words)
    assert ctl(node, "set_disk_free_limit", "much").exit_code == DATA
    root = logging.getLogger()
    before = root.level
    try:
        said(node, "set_log_level", "info")
        assert root.level == logging.INFO
    finally:
        root.setLevel(before)
    for words in (("set_log_level", "loud"), ("rotate_logs",), ("suspend_listeners",)):
        assert ctl(node, *words).exit_code == UNAVAILABLE


def test_maintenance(node: RunningNode) -> None:
    said(node, "drain", tool="rabbitmq-upgrade")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port))
    assert "Is under maintenance?: true" in said(node, "status")
    said(node, "revive", tool="rabbitmq-upgrade")
    said(node, "stop_app")
    said(node, "start_app")
    socket.create_connection(("127.0.0.1", node.port)).close()
    for verb in ("await_online_quorum_plus_one", "post_upgrade"):
        said(node, verb, tool="rabbitmq-upgrade")
    for words in (("join_cluster", "b"), ("reset",), ("force_boot",), ("forget_cluster_node", "b")):
        assert ctl(node, *words).exit_code == UNAVAILABLE


def test_plugins_are_built_in(node: RunningNode) -> None:
    def plugins(*words: str) -> Result:
        return node.run("rabbitmq-plugins", *words)

    assert "[E*] rabbitmq_management" in plugins("list").stdout
    assert plugins("list", "prometheus", "-m", "-s").stdout == "rabbitmq_prometheus\n"
    for words in (
        ("enable", "--offline", "rabbitmq_management", "rabbitmq_prometheus"),
        ("disable", "rabbitmq_management"),
        ("set", "rabbitmq_management"),
        ("enable", "--all"),
        ("is_enabled", "rabbitmq_management"),
        ("directories", "-s"),
    ):
        assert plugins(*words).exit_code == 0, words
    for verb in ("enable", "is_enabled"):
        assert plugins(verb, "rabbitmq_stomp").exit_code == UNAVAILABLE


def test_quorum_queues(node: RunningNode) -> None:
    def queues(*words: str) -> Result:
        return node.run("rabbitmq-queues", *words)

    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", node.port))
    channel = connection.channel()
    channel.queue_declare("qq", durable=True, arguments={"x-queue-type": "quorum"})
    channel.confirm_delivery()
    channel.basic_publish("", "qq", b"hi")
    (row,) = json.loads(queues("quorum_status", "qq", "--formatter", "json").stdout)
    assert (row["Node Name"], row["Raft State"]) == ("a", "leader")
    peeked = json.loads(queues("peek", "qq", "1", "--formatter", "json").stdout)
    assert peeked["message"]["payload (max 64 bytes)"] == "hi"
    assert queues("peek", "qq", "2").exit_code == UNAVAILABLE
    assert queues("peek", "qq", "0").exit_code == USAGE
    assert queues("quorum_status", "nosuch").exit_code == DATA
    assert "│ a         │ 1" in queues("rebalance", "all").stdout
    assert queues("rebalance", "classic").exit_code == UNAVAILABLE
    assert queues("grow", "a", "all").exit_code == 0
    assert queues("grow", "nosuch", "all").exit_code == USAGE
    assert queues("grow", "a", "odd").exit_code == USAGE
    assert "/\tqq\t1\terror: " in queues("shrink", "a").stdout
    assert queues("add_member", "qq", "nosuch").exit_code == USAGE
    assert queues("delete_member", "qq", "a").exit_code == UNAVAILABLE
    assert queues("transfer_leadership", "qq", "a").exit_code == 0
    assert queues("reclaim_quorum_memory", "qq").exit_code == 0
    assert queues("shrink", "a", "--queue-pattern", "(").exit_code == USAGE
    connection.close()


def test_words_that_are_wrong(node: RunningNode) -> None:
    for words in (
        ("nosuch",),
        ("add_user",),
        ("list_users", "too", "many"),
        ("list_users", "--nosuch"),
        ("list_users", "--formatter", "xml"),
        ("list_users", "-t"),
        ("ping", "-t", "soon"),
        (),
    ):
        assert run("rabbitmqctl", *words).exit_code == USAGE, words
    assert "add_user" in run("rabbitmqctl", "help").stdout
    assert "<username>" in run("rabbitmqctl", "help", "add_user").stdout
    assert "Usage" in run("rabbitmqctl", "add_user", "--help").stdout
    for words in (("help", "list_mqtt_connections"), ("list_mqtt_connections", "nosuch")):
        heard = run("rabbitmqctl", *words)
        assert "must be one of clean_sess, client_id, conn_name," in heard.stdout + heard.stderr
    assert "Did you mean 'list_queues'?" in run("rabbitmqctl", "list_queue").stderr
    assert said(node, "-n", "a", "-q", "list_users", "--longnames").startswith("user\t")


def test_another_node_is_named(node: RunningNode) -> None:
    for words in (("list_users", "-q"), ("add_vhost", "elsewhere", "-q")):
        refused = ctl(node, "-n", "rabbit@host", *words)
        assert (refused.exit_code, refused.stdout) == (UNAVAILABLE, ""), words
        assert "unable to perform an operation on node 'rabbit@host'" in refused.stderr
        assert "it is 'a' that answers" in refused.stderr
    assert "elsewhere" not in said(node, "list_vhosts")
    assert said(node, "-n", "rabbit@host", "-q", "hash_password", "secret")


@pytest.mark.parametrize(
    ("name", "node", "is_so"),
    [
        ("rabbit@host", "rabbit@host", True),
        ("rabbit", "rabbit@host", True),
        ("rabbit@other", "rabbit@host", False),
        ("other", "rabbit@host", False),
        ("rabbit@host", "rabbit", False),
    ],
)
def test_a_name_is_that_of_a_node(name: str, node: str, *, is_so: bool) -> None:
    assert is_meant(name, node) is is_so


def test_nobody_is_there(tmp_path: Path) -> None:
    result = run("rabbitmqctl", "list_users", "--data-dir", str(tmp_path))
    assert result.exit_code == UNAVAILABLE
    assert "no node runs in" in result.stderr
    assert run("rabbitmqctl", "version", "--data-dir", str(tmp_path)).exit_code == 0
    waited = run("rabbitmqctl", "await_startup", "-t", "0", "--data-dir", str(tmp_path))
    assert waited.exit_code == UNAVAILABLE
    for verb in ("is_running", "is_booting"):
        away = run("rabbitmq-diagnostics", verb, "-q", "--data-dir", str(tmp_path))
        assert (away.exit_code, away.stdout) == (UNAVAILABLE, "")
        assert "unable to perform an operation on" in away.stderr
    for name in ("json", "json_stream", "csv"):
        listed = run("rabbitmqctl", "list_queues", "--formatter", name, "--data-dir", str(tmp_path))
        assert (listed.exit_code, listed.stdout) == (UNAVAILABLE, ""), name


@pytest.mark.parametrize("tool", TOOLS)
def test_every_verb_says_how_it_is_called(tool: str) -> None:
    for name, verb in verbs_of(tool).items():
        text = run(tool, "help", name).stdout
        assert name in text
        assert verb.note in text
        least, most = verb.words
        assert most is None or least <= most


def test_the_page_has_the_verbs_that_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rabbitmqctl.md").read_text()
    rows = {line for line in page.splitlines() if line.startswith("| `")}
    for tool in TOOLS:
        assert f"## {tool}\n" in page
        for name, verb in verbs_of(tool).items():
            takes = verb.takes.replace("|", "\\|")
            shown = f"`{takes}`" if takes else ""
            assert f"| `{name}` | {shown} | {verb.note} |" in rows
    verbs = {name for tool in TOOLS for name in verbs_of(tool)}
    named = {row.split("`")[1] for row in rows if not row.startswith("| `-")}
    assert named - {"--formatter NAME"} == verbs
