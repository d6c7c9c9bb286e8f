"""A RabbitMQ node of our own: Debian's package, started by hand on free ports of loopback."""

import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.ports import free_ports
from tests.support.process import Process
from tests.support.require import require

NODE = "oracle@localhost"
LIBRARY = Path("/usr/lib/rabbitmq/lib")
FOLDER = "rabbitmq_server-"
EPMD_READY = "epmd running"
BROKER_READY = r"completed with \d+ plugins"

EXCHANGE_PLUGINS = (
    "rabbitmq_consistent_hash_exchange,rabbitmq_random_exchange,rabbitmq_recent_history_exchange,"
    "rabbitmq_sharding,rabbitmq_jms_topic_exchange"
)
"""Plugins with the exchange types of row 4.5 that RabbitMQ has not built in."""

AWAIT_LEADERS = """
Deadline = erlang:monotonic_time(millisecond) + 60000,
Await = fun F(Id) ->
            case catch ra:consistent_query(Id, fun (_) -> ok end, 1000) of
                {ok, _, _} -> ok;
                Answer ->
                    case erlang:monotonic_time(millisecond) < Deadline of
                        true -> timer:sleep(50), F(Id);
                        false -> exit({no_leader, Id, Answer})
                    end
            end
        end,
[Await(amqqueue:get_pid(Q))
 || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue], ok.
"""
"""Ask each quorum queue until its leader answers, for a minute at most."""


def installed_version() -> str | None:
    """Version of the installed package; None if there is none."""
    found = sorted(LIBRARY.glob(f"{FOLDER}*"))
    return found[-1].name.removeprefix(FOLDER) if found else None


def free_port() -> int:
    """A port that nobody else is given while this process lives."""
    return free_ports(1)[0]


class RabbitMQ:
    """RabbitMQ node with its own data, cookie and port mapper; without plugins, if none are
    named."""

    def __init__(self, folder: Path, config: str = "", plugins: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._config = config
        self._plugins = plugins
        self._processes = ExitStack()

    def __enter__(self) -> Self:
        environment = self._environment = self._make_environment()
        with self._processes as starting:
            epmd = Process(
                [require("epmd"), "-d", "-port", environment["ERL_EPMD_PORT"]],
                EPMD_READY,
                environment,
            )
            starting.callback(epmd.kill)
            self._begin()
            starting.callback(self._end)
            self._processes = starting.pop_all()
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._processes.close()

    def stop(self) -> None:
        """Stop it in order."""
        self.ctl("stop")
        self._end()

    def kill(self) -> None:
        """Send it SIGKILL, after it wrote down what it writes when it has nothing else to do.

        What was acknowledged and purged takes as long as a command does. Which quorum queues there
        are, and their terms, are told to write: what they hold is lost with them, and a queue
        that has forgotten its term never answers.
        """
        self.ctl("eval", "[ok = dets:sync(Table) || Table <- dets:all()], ok.")
        self._end()

    def _end(self) -> None:
        self._broker.kill()

    def start(self) -> None:
        """Start it again, with the same data on the same port; return when each quorum queue has
        a leader that answers.

        A client that asks one sooner may never have an answer.
        """
        self._begin()
        self.ctl("eval", AWAIT_LEADERS)

    def _begin(self) -> None:
        self._broker = Process([script("rabbitmq-server")], BROKER_READY, self._environment)

    def import_definitions(self, definitions: Mapping[str, object]) -> None:
        """Add users, virtual hosts and what is in them; RabbitMQ hashes the passwords."""
        file = self._folder / "import.json"
        file.write_text(json.dumps(definitions))
        self.ctl("import_definitions", str(file))

    def export_definitions(self) -> Path:
        """The file that RabbitMQ writes of what it holds."""
        file = self._folder / "export.json"
        self.ctl("export_definitions", str(file))
        return file

    def ctl(self, *arguments: str) -> str:
        """Output of rabbitmqctl for this node; it is in the error when it fails."""
        return ctl(NODE, self._environment, *arguments)

    def tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Completed run of one of the commands, failed or not."""
        return subprocess.run(
            [script(name), "--node", NODE, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def _make_environment(self) -> dict[str, str]:
        ports = Ports(amqp=self.port, distribution=free_port(), mapper=free_port())
        prepare(self._folder, ports, self._config, self._plugins)
        variables = environment(self._folder, NODE, ports)
        if "log." in self._config:
            del variables["RABBITMQ_LOGS"]  # which would count, and nothing else
        return variables


def ctl(node: str, environment: Mapping[str, str], *arguments: str) -> str:
    """Output of rabbitmqctl; it is in the error when it fails."""
    command = [script("rabbitmqctl"), "--node", node, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"rabbitmqctl {arguments[0]}: {result.stdout}{result.stderr}")
    return result.stdout


class Ports(NamedTuple):
    """Ports of a node, all on loopback."""

    amqp: int
    distribution: int
    mapper: int
    """Where its port mapper is."""


def prepare(folder: Path, ports: Ports, config: str, plugins: str = "", cookie: str = "") -> None:
    """Write the files of a node that has its own folder; nodes of a cluster share the cookie."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".erlang.cookie"
    file.write_text(cookie or secrets.token_hex(16))
    file.chmod(0o600)
    (folder / "plugins").write_text(f"[{plugins}].\n")
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{ports.amqp}\n{config}\n")


def environment(folder: Path, node: str, ports: Ports, *erlang_options: str) -> dict[str, str]:
    """Environment that tells the package's scripts the places of a node's files."""
    inherited = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    return {
        **inherited,
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(ports.mapper),
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": str(folder / "rabbit.log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.env"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join((loopback, *erlang_options)),
    }


def script(name: str) -> str:
    """A script of the package: Debian wraps those on the PATH in one that changes the user, and
    we have some of the same names."""
    return str(Path(require("rabbitmq-server")).resolve().with_name(name))
