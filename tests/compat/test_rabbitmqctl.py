"""The same words to RabbitMQ's commands and to ours: what they print, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tests.broker.cli.running_node import run
from tests.compat.comparison import difference_of
from tests.compat.embedded import serving
from tests.compat.estate import with_estate
from tests.compat.oracle import NODE
from tests.compat.questions import NODE_AT, asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript

Run: TypeAlias = Callable[..., tuple[int, str]]
"""A command: its exit code and what it prints."""

HERE = "ctl"
CTL = "rabbitmqctl"
DIAGNOSTICS = "rabbitmq-diagnostics"

SAME: tuple[tuple[str, ...], ...] = (
    (CTL, "add_vhost", HERE, "--description", "ours", "--tags", "a,b"),
    (CTL, "add_vhost", HERE),
    (CTL, "list_vhosts", "name", "description", "tags", "tracing"),
    (CTL, "add_user", "dora", "secret"),
    (CTL, "add_user", "dora", "secret"),
    (CTL, "set_user_tags", "dora", "monitoring", "management"),
    (CTL, "list_users"),
    (CTL, "list_users", "--formatter", "json"),
    (CTL, "list_users", "--formatter", "csv"),
    (CTL, "-q", "list_users"),
    (CTL, "-s", "list_users"),
    (CTL, "list_users", "--no-table-headers"),
    (CTL, "authenticate_user", "dora", "secret"),
    (CTL, "authenticate_user", "dora", "wrong"),
    (CTL, "set_permissions", "-p", HERE, "dora", "^a", ".*", ""),
    (CTL, "set_permissions", "-p", "absent", "dora", "^a", ".*", ""),
    (CTL, "set_permissions", "-p", HERE, "absent", "^a", ".*", ""),
    (CTL, "list_permissions", "-p", HERE),
    (CTL, "list_user_permissions", "dora"),
    (CTL, "set_topic_permissions", "-p", HERE, "dora", "amq.topic", "^a", "^b"),
    (CTL, "list_topic_permissions", "-p", HERE),
    (CTL, "list_user_topic_permissions", "dora"),
    (CTL, "clear_topic_permissions", "-p", HERE, "dora", "amq.topic"),
    (CTL, "clear_permissions", "-p", HERE, "dora"),
    (CTL, "set_user_limits", "dora", '{"max-connections": 10}'),
    (CTL, "list_user_limits", "--user", "dora"),
    (CTL, "clear_user_limits", "dora", "all"),
    (CTL, "set_vhost_limits", "-p", HERE, '{"max-queues": 3}'),
    (CTL, "list_vhost_limits", "-p", HERE),
    (CTL, "clear_vhost_limits", "-p", HERE),
    (CTL, "list_queues", "-p", HERE),
    (CTL, "list_queues", "-p", HERE, "absent"),
    (CTL, "list_exchanges", "-p", HERE, "name", "type", "durable", "internal"),
    (CTL, "list_exchanges", "-p", HERE, "--formatter", "json"),
    (CTL, "list_bindings", "-p", HERE),
    (CTL, "purge_queue", "-p", HERE, "absent"),
    (CTL, "delete_queue", "-p", HERE, "absent"),
    (CTL, "close_all_connections", "-p", HERE, "bye"),
    (CTL, "set_policy", "-p", HERE, "p", "^q", '{"max-length":5}', "--apply-to", "queues"),
    (CTL, "list_policies", "-p", HERE),
    (CTL, "list_policies", "-p", HERE, "--formatter", "json"),
    (CTL, "clear_policy", "-p", HERE, "p"),
    (CTL, "clear_policy", "-p", HERE, "p"),
    (CTL, "set_policy", "-p", HERE, "p", "^q", "nojson"),
    (CTL, "list_parameters", "-p", HERE),
    (CTL, "set_global_parameter", "g", '{"a":1}'),
    (CTL, "clear_global_parameter", "g"),
    (CTL, "update_vhost_metadata", HERE, "--description", "other"),
    (CTL, "set_vhost_tags", HERE, "x", "y"),
    (CTL, "trace_on", "-p", HERE),
    (CTL, "trace_off", "-p", HERE),
    (CTL, "set_vm_memory_high_watermark", "0.6"),
    (CTL, "set_disk_free_limit", "50MB"),
    (CTL, "set_log_level", "loud"),
    (CTL, "enable_feature_flag", "all"),
    (CTL, "enable_feature_flag", "absent"),
    (CTL, "forget_cluster_node", "absent"),
    (DIAGNOSTICS, "check_running"),
    (DIAGNOSTICS, "check_local_alarms"),
    (DIAGNOSTICS, "check_alarms"),
    (DIAGNOSTICS, "check_virtual_hosts"),
    (DIAGNOSTICS, "check_port_listener", "1"),
    (DIAGNOSTICS, "check_protocol_listener", "amqp"),
    (DIAGNOSTICS, "alarms", "--formatter", "json"),
    (DIAGNOSTICS, "check_if_node_is_quorum_critical"),
    ("rabbitmq-upgrade", "await_online_quorum_plus_one"),
    ("rabbitmq-queues", "quorum_status", "absent"),
    ("rabbitmq-queues", "rebalance", "classic"),
    (CTL, "delete_vhost", HERE),
    (CTL, "delete_vhost", HERE),
    (CTL, "delete_user", "dora"),
    (CTL, "delete_user", "dora"),
)  # fmt: skip
"""In this order: each finds what those before it have made."""

CODES: tuple[tuple[str, ...], ...] = (
    (CTL, "add_user"),
    (CTL, "absent"),
    (CTL, "list_users", "--absent"),
    (CTL, "set_vm_memory_high_watermark", "5"),
    (CTL, "rotate_logs"),
    (CTL, "status"),
    (CTL, "cluster_status"),
    (CTL, "ping"),
    (CTL, "await_startup"),
    (CTL, "list_feature_flags"),
    (DIAGNOSTICS, "check_port_connectivity"),
    (DIAGNOSTICS, "listeners"),
    (DIAGNOSTICS, "check_protocol_listener", "absent"),
)
"""Commands of which only the exit code is compared: their output is about themselves."""


def shape(text: str, node: str) -> list[str]:
    """Lines in any order, and without the names of nodes; a row of JSON may have a comma first."""
    lines = text.replace(node, "NODE").splitlines()
    return sorted(map(ordered, (line.removeprefix(",") for line in lines)))


def ordered(line: str) -> str:
    """The keys of an object in an order of ours."""
    return json.dumps(json.loads(line), sort_keys=True) if line.startswith("{") else line


def conversation(run: Run, node: str) -> Transcript:
    """All commands, one after the other."""
    said: Transcript = {}
    for number, words in enumerate((*SAME, *CODES)):
        code, printed = run(*words)
        lines = shape(printed, node) if words in SAME else []
        said[f"{number:02} {' '.join(words)}"] = [f"exit {code}", *lines]
    return said


ASKED = asks("rabbitmqctl.commands", conversation, *NODE_AT)


def with_rabbitmq(folder: Path) -> Transcript:
    """Transcript of a fresh RabbitMQ node."""
    with with_estate(folder) as node:

        def run_theirs(*words: str) -> tuple[int, str]:
            done = node.tool(*words)
            return done.returncode, done.stdout

        return conversation(run_theirs, NODE)


def with_fluffle(data_dir: Path) -> Transcript:
    """Its directory says which one."""
    where = "--data-dir", str(data_dir)
    status = run("rabbitmqctl", "cluster_status", "--formatter", "json", *where)
    assert status.exit_code == 0, status.output
    (node,) = json.loads(status.stdout)["maintenance_status"]

    def run_ours(*words: str) -> tuple[int, str]:
        done = run(*words, *where)
        return done.exit_code, done.stdout

    return conversation(run_ours, node)


def test_what_is_printed_and_how_it_ends(
    answers: Answers, definitions: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "fluffle", answers, f"--definitions={definitions}") as broker:
        theirs, ours = answers.both(
            ASKED,
            lambda: with_rabbitmq(tmp_path / "rabbitmq"),
            lambda: with_fluffle(broker.data_dir),
        )
    assert ours == theirs, difference_of(theirs, ours)
