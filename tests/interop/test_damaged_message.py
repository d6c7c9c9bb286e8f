"""A message that was damaged on disk, as a client and an operator of a real node meet it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import amqp
import pytest

from fluffle.storage.environment import DATA_FILE, STORE_FOLDER
from tests.support.daemon import COMMAND, Daemon
from tests.support.deadlines import DEADLINE_S


def queues(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND[:3], "queues", *arguments, "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_a_flipped_byte_stops_one_queue_until_it_is_repaired(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with daemon, amqp.Connection(f"127.0.0.1:{daemon.port}", confirm_publish=True) as connection:
        channel = connection.channel()
        for name in ("q", "r"):
            channel.queue_declare(name, durable=True, auto_delete=False)
            for number in range(3):
                message = amqp.Message(f"{name} number {number}", delivery_mode=2)
                channel.basic_publish(message, routing_key=name)
    file = tmp_path / STORE_FOLDER / DATA_FILE
    data = file.read_bytes()
    assert b"q number 1" in data
    file.write_bytes(data.replace(b"q number 1", b"q number 7"))
    with daemon, amqp.Connection(f"127.0.0.1:{daemon.port}", confirm_publish=True) as connection:
        channel = connection.channel()
        assert channel.basic_get("q", no_ack=True).body == "q number 0"
        with pytest.raises(amqp.NotFound, match="queue 'q' in vhost '/' has crashed and failed to"):
            channel.basic_get("q")
        channel = connection.channel()
        assert channel.basic_get("r", no_ack=True).body == "r number 0"
        assert "crashed" in queues(tmp_path, "list").stdout
        refused = queues(tmp_path, "repair", "q")
        assert (refused.returncode, "1 messages of queue 'q'" in refused.stderr) == (1, True)
        repaired = queues(tmp_path, "repair", "q", "--drop-damaged")
        assert (repaired.returncode, repaired.stdout) == (0, "1\n"), repaired.stderr
        assert channel.basic_get("q", no_ack=True).body == "q number 2"
    line = next(line for line in daemon.log.splitlines() if "queue_crashed" in line)
    assert 'vhost=/ queue=q place="table hot, record ' in line
    assert "Traceback" not in daemon.log
