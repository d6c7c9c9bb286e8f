"""`fluffle test-server` as a process: what the command gets, and what becomes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from fluffle.broker import Broker
from fluffle.broker.testing.server.command import test_server as command
from tests.support.daemon import environment_for_nodes
from tests.support.deadlines import DEADLINE_S
from tests.support.process import Process

pytestmark = pytest.mark.slow("each test starts the command as a process")

SERVER = (sys.executable, "-m", "fluffle.broker", "test-server")

IN_BACKGROUND = ("/bin/sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh", *SERVER)
"""Shell command that starts a process as a script does with `&`."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SERVER, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def in_python(text: str) -> Sequence[str]:
    return ("--", sys.executable, "-c", text)


def test_a_command_has_a_broker_and_what_is_inside() -> None:
    program = """
import json, os, pika
from urllib.request import urlopen

def post(path, **arguments):
    url = f"{os.environ['FLUFFLE_CONTROL_URL']}/{path}"
    with urlopen(url, json.dumps(arguments).encode()) as answer:
        return json.load(answer)

vhost = post("vhosts/add")
for url in (os.environ["AMQP_URL"], vhost["url"]):
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare("orders")
        connection.channel().basic_publish("", "orders", b"first")
post(f"vhosts/{vhost['name']}/expect", queue="orders", count=1)
print(post(f"vhosts/{vhost['name']}/messages", queue="orders")["messages"][0]["body"])
print(os.environ["AMQP_URL"])
raise SystemExit(7)
"""
    options = ("--user", "app:secret", "--user", "other:secret", "--vhost", "mine", "--vhost", "/")
    done = run(*options, *in_python(program))
    assert (done.returncode, done.stderr) == (7, "")
    body, url = done.stdout.split()
    assert body == "first"
    amqp = urlsplit(url)
    assert (amqp.username, amqp.password, amqp.hostname, amqp.path) == (
        "app", "secret", "127.0.0.1", "/mine",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (("true",), 0, ""),
        (in_python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), 137, ""),
        (("nothing-of-that-name",), 127, "cannot run nothing-of-that-name: No such file"),
        (("/",), 126, "cannot run /: Permission denied"),
        (("--definitions", __file__, "true"), 125, "JSON"),
        (("--user", "alice", "true"), 2, "write NAME:PASSWORD"),
    ],
)
def test_exit_codes(words: Sequence[str], code: int, printed: str) -> None:
    done = run(*words)
    assert done.returncode == code, done.stderr
    assert printed in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_happened_is_reported_if_the_command_fails() -> None:
    program = """
import os, pika, sys
with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
    connection.channel().queue_declare("orders")
    connection.channel().basic_publish("", "orders", b"first")
    connection.channel().basic_publish("", "bills", b"second")
raise SystemExit(int(sys.argv[1]))
"""
    failed = run("--timeline", *in_python(program), "3")
    assert failed.returncode == 3
    assert failed.stderr.startswith("virtual host '/':\n")
    for printed in ("left in queue 'orders': 1 ready", "unroutable:"):
        assert printed in failed.stderr
    for options, code in ((["--timeline"], "0"), ([], "3")):
        assert run(*options, *in_python(program), code).stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    program = f"""
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
print("ready", flush=True)
raise SystemExit(signal.sigwait([{int(number)}]))
"""
    process = Process([*SERVER, *in_python(program)], "ready", environment_for_nodes())
    assert process.stop(number) == number, process.log


def test_what_a_script_in_the_background_ignores_is_heard_and_passed_on() -> None:
    program = """
import signal
print("ready", signal.getsignal(signal.SIGINT).__name__, flush=True)
signal.pause()
"""
    printed = "^ready default_int_handler"
    process = Process([*IN_BACKGROUND, *in_python(program)], printed, environment_for_nodes())
    assert process.stop(signal.SIGINT) == 128 + signal.SIGINT, process.log
    assert "KeyboardInterrupt" in process.log


def test_without_a_command_it_serves_until_it_is_asked_to_stop() -> None:
    process = Process([*SERVER, "--json"], "AMQP_URL", environment_for_nodes())
    urls = json.loads(process.log)
    assert urls.keys() == {"AMQP_URL", "MQTT_URL", "FLUFFLE_CONTROL_URL"}
    with urlopen(Request(f"{urls['FLUFFLE_CONTROL_URL']}/vhosts", method="POST")) as answer:
        assert json.load(answer) == {"vhosts": ["/"]}
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(urls["FLUFFLE_CONTROL_URL"].rpartition("/")[0] + "/vhosts", method="POST"))
    assert process.stop() == 0
    assert json.loads(process.log) == urls


@pytest.mark.parametrize("server", [SERVER, IN_BACKGROUND], ids=["in front", "in the background"])
def test_urls_are_printed_as_variables(server: Sequence[str]) -> None:
    process = Process(server, "^FLUFFLE_CONTROL_URL=http://127.0.0.1:", environment_for_nodes())
    assert process.stop(signal.SIGINT) == 0
    assert process.log.startswith("AMQP_URL=amqp://guest:guest@127.0.0.1:")
    assert len(process.log.splitlines()) == 3


def test_it_takes_a_file_of_definitions(tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    queue = {"name": "orders", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}
    file.write_text(json.dumps({"vhosts": [{"name": "/"}], "queues": [queue]}))
    program = """
import os
from urllib.request import urlopen
print(urlopen(os.environ["FLUFFLE_CONTROL_URL"] + "/vhosts/%2F/queues", b"{}").read().decode())
"""
    done = run("--definitions", str(file), *in_python(program))
    assert json.loads(done.stdout)["queues"].keys() == {"orders"}


def test_it_starts_fast_because_it_imports_little() -> None:
    """Nothing of clusters, nor what answers requests before there is one."""
    words = [sys.executable, "-X", "importtime", *SERVER[1:], "true"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fluffle.broker.node" in imported
    slow = {
        "aiohttp",
        "fluffle.broker.cluster.raft_host",
        "fluffle.broker.testing.server.operations",
    }
    assert imported & slow == set()


def test_a_command_has_a_cluster() -> None:
    program = """
import json, os
from urllib.request import urlopen
with urlopen(os.environ["FLUFFLE_CONTROL_URL"] + "/nodes", b"{}") as answer:
    urls = [node["url"] for node in json.load(answer)["nodes"]]
assert urls == os.environ["AMQP_URLS"].split(",")
assert urls[0] == os.environ["AMQP_URL"]
assert os.environ["MQTT_URLS"].split(",")[0] == os.environ["MQTT_URL"]
raise SystemExit(len(urls))
"""
    done = run("--nodes", "3", *in_python(program))
    assert (done.returncode, done.stderr) == (3, "")


def test_help_tells_of_the_variables() -> None:
    printed = CliRunner().invoke(command, ["--help"]).output
    assert all(word in printed for word in ("AMQP_URL", "FLUFFLE_CONTROL_URL", "npm test"))


def test_a_broker_that_has_failed_is_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Broker):
        async def __aenter__(self) -> Self:
            await super().__aenter__()
            self.node.fail(RuntimeError("it broke"))
            return self

    monkeypatch.setattr("fluffle.broker.Broker", Failing)
    monkeypatch.setattr("fluffle.broker.base.logs.configure", lambda *_: None)
    done = CliRunner().invoke(command, ["true"])
    assert (done.exit_code, done.output) == (125, "Error: the node has failed: it broke\n")
