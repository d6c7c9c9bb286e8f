"""The two oracles of MQTT, each started on free ports of loopback in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.compat.mqtt.configuration import DEFINITIONS, MOSQUITTO, RABBITMQ
from tests.compat.mqtt.scenario import Addresses
from tests.compat.oracle import RabbitMQ, free_port
from tests.support.daemon import environment_for_nodes
from tests.support.process import Process
from tests.support.require import SYSTEM_FOLDERS, require

LOOPBACK = "127.0.0.1"
PLUGINS = "rabbitmq_mqtt"
READY = r"mosquitto version .* running"


@cache
def mosquitto_version() -> str | None:
    """Version of the installed mosquitto; None if there is none."""
    search_path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))
    program = shutil.which("mosquitto", path=search_path)
    if program is None:
        return None
    said = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"mosquitto version (\S+)", said)
    return found[1] if found else None


@contextmanager
def mosquitto(folder: Path) -> Iterator[Addresses]:
    """mosquitto, which keeps nothing on the disk."""
    port = free_port()
    file = folder / "mosquitto.conf"
    file.write_text(MOSQUITTO.format(port=port))
    process = Process([require("mosquitto"), "-c", str(file)], READY, environment_for_nodes())
    try:
        yield Addresses((LOOPBACK, port))
    finally:
        process.kill()


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Addresses]:
    """RabbitMQ with its MQTT plugin, and with users and permissions of ours."""
    port = free_port()
    with RabbitMQ(folder, RABBITMQ.format(port=port), PLUGINS) as node:
        node.import_definitions(DEFINITIONS)
        yield Addresses((LOOPBACK, port), (LOOPBACK, node.port))
