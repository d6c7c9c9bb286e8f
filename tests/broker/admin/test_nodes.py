"""nodes.* at the desk: RabbitMQ's names and kinds of values, and where they come from."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from fluffle.broker.admin import nodes
from fluffle.broker.admin.context import in_thread
from fluffle.broker.admin.local_client import answer_of
from fluffle.broker.admin.nodes import enabled_plugins, memory
from fluffle.broker.base.errors import BrokerFailed
from tests.broker.admin.verb_harness import VerbHarness

KINDS = {
    "name": str, "type": str, "running": bool, "being_drained": bool, "os_pid": str, "uptime": int,
    "processors": int, "run_queue": int, "mem_used": int, "mem_limit": int, "mem_alarm": bool,
    "mem_calculation_strategy": str, "disk_free": int, "disk_free_limit": int,
    "disk_free_alarm": bool, "fd_used": int, "fd_total": int, "sockets_used": int,
    "sockets_total": int, "proc_used": int, "proc_total": int, "gc_num": int,
    "context_switches": int, "io_sync_count": int, "io_sync_avg_time": float,
    "io_write_count": int, "io_write_bytes": int, "exchange_types": list, "auth_mechanisms": list,
    "applications": list, "contexts": list, "log_files": list, "db_dir": str, "config_files": list,
    "enabled_plugins": list, "net_ticktime": int, "rates_mode": str, "partitions": list,
    "cluster_links": list,
}  # fmt: skip
"""Columns of a node in RabbitMQ 4.0.5 that fluffle has, too."""


def test_a_node_is_reported_by_rabbitmqs_names(tmp_path: Path) -> None:
    row = VerbHarness(tmp_path).ask("nodes.row")
    assert {name: type(value) for name, value in row.items()} == KINDS
    assert (row["name"], row["uptime"], row["os_pid"]) == ("a", 4_000, str(os.getpid()))
    assert row["db_dir"] == str(tmp_path)
    assert row["running"]


def test_what_is_low_shows() -> None:
    desk = VerbHarness()
    desk.context.alarms.set("disk", low=True)
    row = desk.ask("nodes.row")
    assert (row["mem_alarm"], row["disk_free_alarm"]) == (False, True)
    assert row["disk_free_limit"] == desk.context.alarms.watermarks.disk_free_bytes_min


def test_memory_is_said_to_be_without_pages_of_files() -> None:
    """Linux has that name in /proc/self/status."""
    assert VerbHarness().ask("nodes.row")["mem_calculation_strategy"] == "rss_anon"


def test_connections_are_sockets() -> None:
    desk = VerbHarness()
    desk.edge.connect()
    desk.edge.connect()
    assert desk.ask("nodes.row")["sockets_used"] == 2


def test_who_is_alone_is_all_nodes() -> None:
    (row,) = VerbHarness().rows("nodes.list")
    assert row["name"] == "a"


def test_types_mechanisms_and_parts_are_named() -> None:
    row = VerbHarness().ask("nodes.row")
    types = {each["name"]: each for each in row["exchange_types"]}
    assert {"direct", "fanout", "headers", "topic", "x-delayed-message"} <= types.keys()
    assert types["topic"] == {
        "name": "topic",
        "description": "AMQP topic exchange, as per the AMQP specification",
        "enabled": True,
    }
    assert types["x-jms-topic"]["description"] == "JMS topic exchange"
    assert types["x-consistent-hash"]["description"] == "Consistent hash exchange"
    enabled = {each["name"]: each["enabled"] for each in row["auth_mechanisms"]}
    assert enabled == {"AMQPLAIN": True, "EXTERNAL": True, "PLAIN": True}
    assert {"fluffle", "python", "lmdb"} <= {each["name"] for each in row["applications"]}


def test_where_it_listens() -> None:
    assert VerbHarness().rows("nodes.listeners") == [
        {
            "node": "a",
            "protocol": "amqp",
            "ip_address": "127.0.0.1",
            "port": 5672,
            "tls": False,
            "socket_opts": {},
        }
    ]


def test_plugins_stand_for_what_clients_speak_here(tmp_path: Path) -> None:
    context = VerbHarness(tmp_path).context

    def enabled(*names: str) -> set[str]:
        addresses = dict.fromkeys(names, ("127.0.0.1", 1))
        plugins = enabled_plugins(context._replace(addresses=addresses))
        return {each for each in plugins if "mqtt" in each or "management" in each}

    assert enabled("amqp") == set()
    assert enabled("amqp", "management", "mqtt-2") == {"rabbitmq_management", "rabbitmq_mqtt"}
    assert enabled("mqtts") == {"rabbitmq_mqtt"}
    assert enabled("mqtt-wss") == {"rabbitmq_mqtt", "rabbitmq_web_mqtt"}


async def test_the_parts_of_memory_make_the_whole(tmp_path: Path) -> None:
    row = await answer_of(memory(VerbHarness(tmp_path).context))
    total, strategy = row.pop("total"), row.pop("strategy")
    assert sum(row.values()) == total["rss"] > 0
    assert row["code"] > 0
    assert row["store"] >= 0
    assert strategy == "rss"


async def test_what_a_thread_stumbles_over_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    def look() -> int:
        raise ZeroDivisionError

    with pytest.raises(BrokerFailed):
        await answer_of(in_thread(look, lambda found: {"found": found}))
    assert "ZeroDivisionError" in caplog.text


async def test_what_nobody_can_make_a_row_of_is_an_answer_too() -> None:
    with pytest.raises(BrokerFailed):
        await answer_of(in_thread(lambda: 0, lambda found: {"found": 1 / found}))


async def test_the_loop_goes_on_while_a_thread_looks() -> None:
    reported = threading.Event()
    asyncio.get_running_loop().call_soon(reported.set)
    assert await answer_of(in_thread(reported.wait, lambda found: {"found": found})) == {
        "found": True
    }


SMAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/python3
Size:                328 kB
Rss:                 100 kB
Pss:                 100 kB
VmFlags: rd ex
00652000-00655000 r--p 00052000 08:02 173521                             /usr/bin/python3
Rss:                  20 kB
00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]
Rss:                   7 kB
35b1800000-35b1820000 rw-p 00000000 00:00 0
Rss:                   5 kB
7f0000000000-7f0001000000 r--s 00000000 08:02 9                          /var/lib/a b/data.mdb
Rss:                   3 kB
"""


def test_memory_is_reported_by_the_file_that_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "smaps").write_text(SMAPS)
    assert nodes.resident_by_file(tmp_path) == {
        "/usr/bin/python3": 120 * 1024,
        nodes.NOTHING: 12 * 1024,
        "/var/lib/a b/data.mdb": 3 * 1024,
    }


def test_where_the_system_says_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert nodes.resident_by_file(tmp_path) == {}
    assert nodes.open_files(tmp_path) == 0
    assert nodes.threads_max(tmp_path / "threads-max") == 0


def test_open_files_are_counted_where_linux_does_not(tmp_path: Path) -> None:
    (tmp_path / "fd").mkdir()
    for number in range(3):
        (tmp_path / "fd" / str(number)).touch()
    assert nodes.open_files(tmp_path) in {3, (tmp_path / "fd").stat().st_size}


def test_of_this_process_all_is_known() -> None:
    assert 0 < nodes.open_files() <= nodes.open_files_max()
    assert nodes.resident_by_file()[nodes.NOTHING] > 0
    for reported in (nodes.processors, nodes.threads, nodes.threads_max):
        assert reported() > 0
    for counted in (nodes.context_switches, nodes.garbage_collections):
        assert counted() >= 0
