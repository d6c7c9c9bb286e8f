"""A node on a file system of its own that others fill or that nobody may write to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest

from fluffle.storage.reserve import keep
from tests.support.daemon import COMMAND, Daemon
from tests.support.deadlines import DEADLINE_S
from tests.support.require import require, unavailable
from tests.support.small_disk import NoDisk, fill, free, small_disk

MESSAGES = 500


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    try:
        with small_disk(folder, mib=128):
            yield folder
    except NoDisk as error:
        unavailable(str(error))


def test_a_node_on_a_full_disk_can_be_emptied_and_started_again(disk: Path) -> None:
    daemon = Daemon(disk)
    with daemon, amqp.Connection(f"127.0.0.1:{daemon.port}", confirm_publish=True) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, auto_delete=False)
        for number in range(MESSAGES):
            message = amqp.Message(f"{number} " + "x" * 1000, delivery_mode=2)
            channel.basic_publish(message, routing_key="q")
        keep(disk)
        fill(disk)
        assert os.statvfs(disk).f_bavail == 0
        for number in range(MESSAGES // 2):
            message = channel.basic_get("q")
            assert message.body.split()[0] == str(number)
            channel.basic_ack(message.delivery_tag)
    free(disk)
    keep(disk)
    fill(disk)
    assert os.statvfs(disk).f_bavail == 0
    with daemon, amqp.Connection(f"127.0.0.1:{daemon.port}") as connection:
        channel = connection.channel()
        for number in range(MESSAGES // 2, MESSAGES):
            message = channel.basic_get("q", no_ack=True)
            assert message.body.split()[0] == str(number)
        assert channel.queue_purge("q") == 0
    assert "alarm_raised" in daemon.log
    assert "critical" not in daemon.log


def test_a_file_system_that_nobody_may_write_to_is_called_so(disk: Path) -> None:
    with Daemon(disk):
        pass
    subprocess.run([require("mount"), "-o", "remount,ro", str(disk)], check=True)
    command = [*COMMAND, "--data-dir", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert f"cannot keep data in {disk} (Read-only file system)" in done.stdout + done.stderr
