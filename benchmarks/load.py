"""Builds amqpload, the load generator, and runs it against one broker."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.brokers import Broker, NotAvailable
from benchmarks.client import Address
from benchmarks.machine import Cores, pinned

FOLDER = Path(__file__).with_name("amqpload")
DRAIN_TIMEOUT_S = 120
"""A broker that let publishers run ahead needs this long at most to hand out the rest."""

Report = dict[str, Any]
"""Output of amqpload: rates a second, latencies in µs, CPU in seconds, memory in MiB."""


class LoadFailed(Exception):
    """amqpload could not do its work; the text is what it said."""


def build() -> Path:
    """Compiles amqpload if it is not up to date."""
    return compiled(FOLDER)


def compiled(folder: Path) -> Path:
    """Return the load generator of `folder`, of the folder's name; make compiles it if need be."""
    if not shutil.which("make"):
        raise NotAvailable(f"{folder.name} is built by make, and there is none")
    made = subprocess.run(["make", "-C", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        raise NotAvailable(f"{folder.name} was not built:\n{made.stderr.strip()}")
    return folder / folder.name


def run(
    broker: Broker, cores: Cores, arguments: list[str], *, timeout_s: float, tls: bool = False
) -> Report:
    """Loads `broker` from `cores`; the report accounts for the broker's processes."""
    address = broker.address
    if tls:
        if broker.tls_address is None:
            raise NotAvailable("the broker does not listen for TLS")
        address, arguments = broker.tls_address, [*arguments, "-E"]
    if broker.consume_address is not None:
        arguments = [*arguments, "-C", host_and_port(broker.consume_address)]
    with pinned(cores):
        return command(address, arguments, pids=broker.pids(), timeout_s=timeout_s)


def host_and_port(address: Address) -> str:
    return f"{address.host}:{address.port}"


def command(address: Address, arguments: list[str], *, pids: list[int], timeout_s: float) -> Report:
    """amqpload's report.  A run that lost messages is reported, not raised."""
    options = ["-H", host_and_port(address)]
    if pids:
        options += ["-I", ",".join(map(str, pids))]
    done = subprocess.run(
        [str(FOLDER / "amqpload"), *arguments, *options],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        raise LoadFailed(f"exit {done.returncode}: {done.stderr.strip()[-1000:]}") from None
    if done.stderr.strip():
        report["said"] = done.stderr.strip()[-300:]
    return report
