"""status at the desk."""

import os
from pathlib import Path

from tests.broker.admin.verb_harness import VerbHarness


def test_what_a_node_says_of_itself(tmp_path: Path) -> None:
    desk = VerbHarness(tmp_path)
    client = desk.edge.connect()
    client.declare("q")
    desk.context.alarms.set("disk", low=True)
    status = desk.ask("status")
    config = desk.context.config
    measured = {name: status.pop(name) for name in ("memory_bytes", "disk_free_bytes")}
    assert all(value > 0 for value in measured.values())
    assert status == {
        "node": "a",
        "version": config.version,
        "product": "RabbitMQ",
        "product_version": "4.3.5",
        "platform": config.platform,
        "pid": os.getpid(),
        "uptime_s": 4,
        "cluster": None,
        "data_dir": str(tmp_path),
        "addresses": {"amqp": ["127.0.0.1", 5672]},
        "maintenance": False,
        "alarms": ["disk"],
        "memory_bytes_max": config.memory_bytes_max,
        "disk_free_bytes_min": 50_000_000,
        "vhosts": 1,
        "users": 2,
        "queues": 1,
        "queues_crashed": 0,
        "connections": 1,
        "channels": 1,
    }
