"""Starts and stops the brokers under measurement, on free ports and in a folder of their own."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Address, ConnectFailed, open_connection
from benchmarks.machine import Cores, family, pinned

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
OWN_COMMAND = Path(sys.executable).with_name("fluffle")


class NotAvailable(Exception):
    """The broker cannot be run here; the text says why."""


class NotStarted(Exception):
    """The broker ended, or accepted no connection in time; carries the tail of its log."""


@dataclass(frozen=True, slots=True)
class Broker:
    name: str
    version: str
    address: Address
    pid: int
    ready_ms: float
    """From exec until it said that it was ready; for RabbitMQ the same as `open_ms`."""
    open_ms: float
    """From exec until the first connection.open-ok."""
    tls_address: Address | None = None
    consume_address: Address | None = None
    """Address of another node for consumers, if there are several nodes."""
    other_pids: tuple[int, ...] = ()
    """Process ids of the other nodes."""
    mqtt_port: int = 0
    """Where it takes MQTT clients, if it does."""
    mqtt_subscriber_port: int = 0
    """Where it takes those that subscribe, if that is another node; 0 if it is the same."""

    def pids(self) -> list[int]:
        return [each for pid in (self.pid, *self.other_pids) for each in family(pid)]


Launcher = Callable[[Path, Cores], AbstractContextManager[Broker]]


@contextmanager
def fluffle(
    folder: Path, cores: Cores, *, command: Path = OWN_COMMAND, options: tuple[str, ...] = ()
) -> Iterator[Broker]:
    """`fluffle serve`, from this interpreter's environment unless it is asked otherwise."""
    if not command.exists():
        raise NotAvailable("fluffle is not installed beside this Python: pip install -e .")
    data, log = folder / "data", folder / "log"
    (data / "node.json").unlink(missing_ok=True)  # of a process before
    arguments = [
        str(command),
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        str(data),
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if "FLUFFLE_" not in name}
    began = time.perf_counter()
    with log.open("wb") as output, pinned(cores):
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)
    with ending(process):
        node = await_node_file(process, data / "node.json", log)
        ready_ms = (time.perf_counter() - began) * 1000
        addresses = {name: Address(*end) for name, end in node["addresses"].items()}
        address = addresses["amqp"]
        version = await_open(process, address, log)
        open_ms = (time.perf_counter() - began) * 1000
        tls_address = addresses.get("amqps")
        mqtt_port = addresses["mqtt"].port if "mqtt" in addresses else 0
        yield Broker(
            "fluffle",
            version,
            address,
            process.pid,
            ready_ms,
            open_ms,
            tls_address,
            mqtt_port=mqtt_port,
        )


@contextmanager
def rabbitmq(
    folder: Path, cores: Cores, *, mqtt: bool = False, config: str = ""
) -> Iterator[Broker]:
    """A RabbitMQ node of its own, with its default settings but for the lines of `config`, and no
    plugins but that of MQTT, if that is to be measured."""
    script, epmd = rabbitmq_commands()
    amqp_port, distribution_port, epmd_port, mqtt_port = free_ports(4)
    erlang = Erlang(config=config)
    if mqtt:
        config += f"mqtt.listeners.tcp.1 = 127.0.0.1:{mqtt_port}\n"
        erlang = Erlang(config=config, plugins="rabbitmq_mqtt")
    environment = rabbitmq_environment(folder, amqp_port, distribution_port, epmd_port, erlang)
    log = folder / "log"
    with log.open("wb") as output, pinned(cores):
        mapper = subprocess.Popen(
            [epmd, "-port", str(epmd_port)], env=environment, stdout=output, stderr=output
        )
        with ending(mapper):
            began = time.perf_counter()
            process = subprocess.Popen([script], env=environment, stdout=output, stderr=output)
            with ending(process, lambda: erlang_machine(process.pid)):
                address = Address("127.0.0.1", amqp_port)
                version = await_open(process, address, log)
                open_ms = (time.perf_counter() - began) * 1000
                yield Broker(
                    "rabbitmq",
                    version,
                    address,
                    erlang_machine(process.pid),
                    open_ms,
                    open_ms,
                    mqtt_port=mqtt_port if mqtt else 0,
                )


BROKERS: dict[str, Launcher] = {"fluffle": fluffle, "rabbitmq": rabbitmq}


@contextmanager
def ending(
    process: "subprocess.Popen[bytes]", reported_pid: Callable[[], int] | None = None
) -> Iterator[None]:
    """Ends `process` afterwards by a SIGTERM to it (or to `reported_pid`), by force if it
    lingers."""
    try:
        yield
    finally:
        if process.poll() is None:
            os.kill(reported_pid() if reported_pid else process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in family(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def await_node_file(
    process: "subprocess.Popen[bytes]", file: Path, log: Path
) -> dict[str, dict[str, tuple[str, int]]]:
    """The content of node.json, once it is there and whole."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = file.read_text() if file.exists() else ""
        if text.rstrip().endswith("}"):
            node: dict[str, dict[str, tuple[str, int]]] = json.loads(text)
            return node
        time.sleep(0.001)
    raise not_started(process, log)


def await_open(process: "subprocess.Popen[bytes]", address: Address, log: Path) -> str:
    """Waits until a connection can be opened; the version the broker names."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with open_connection(address) as connection:
                return connection.server_version
        except ConnectFailed:
            time.sleep(0.005)
    raise not_started(process, log)


def not_started(process: "subprocess.Popen[bytes]", log: Path) -> NotStarted:
    status = process.poll()
    what = f"no connection within {START_TIMEOUT_S:.0f} s" if status is None else f"exit {status}"
    return NotStarted(f"{what}\n{log.read_text(errors='replace')[-2000:]}")


def rabbitmq_commands() -> tuple[Path, Path]:
    """The start script and epmd.  Debian's script on the PATH only changes user and goes on."""
    search_path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    found = shutil.which("rabbitmq-server", path=search_path)
    epmd = shutil.which("epmd", path=search_path)
    if not found or not epmd:
        raise NotAvailable("rabbitmq-server and epmd are not installed")
    script = Path(found).resolve().with_name("rabbitmq-server")
    return (script if script.exists() else Path(found)), Path(epmd)


@dataclass(frozen=True, slots=True)
class Erlang:
    """Name and cookie of a RabbitMQ node; those of a cluster share the cookie."""

    node: str = "bench@localhost"
    cookie: str = field(default_factory=lambda: secrets.token_hex(16))
    config: str = ""
    plugins: str = ""


def rabbitmq_environment(
    folder: Path, amqp_port: int, distribution_port: int, epmd_port: int, erlang: Erlang
) -> dict[str, str]:
    """Everything RabbitMQ reads or writes is in `folder`; it listens on loopback alone."""
    cookie = folder / ".erlang.cookie"
    cookie.unlink(missing_ok=True)
    cookie.write_text(erlang.cookie)
    cookie.chmod(0o400)
    (folder / "enabled_plugins").write_text(f"[{erlang.plugins}].\n")
    listening = f"listeners.tcp.1 = 127.0.0.1:{amqp_port}\n"
    (folder / "rabbitmq.conf").write_text(listening + erlang.config)
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": erlang.node,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(amqp_port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.env"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def erlang_machine(script_pid: int) -> int:
    """The process that is the broker: the start script stays as its parent."""
    for pid in family(script_pid):
        if Path(f"/proc/{pid}/comm").read_text().startswith("beam"):
            return pid
    return script_pid


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in held]
    for listener in held:
        listener.close()
    return ports
