"""`fluffle cluster up`: three processes and one Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pika
import pytest

from fluffle.broker.cli import cluster, options
from fluffle.broker.cli.client import LocalClient
from fluffle.broker.cli.cluster import (
    CLUSTER_PORT_OFFSET,
    LAST_LINES,
    NAMES,
    NodeProcess,
    ProcessGroup,
    keep_founders,
    member_of,
    other_listeners,
    taken,
    why_not_ready,
)
from fluffle.broker.cli.node import shown_cluster
from fluffle.broker.cli.output import Row
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.config.options import resolve
from fluffle.broker.process.data_directory import (
    LOCK_FILE,
    NODE_FILE,
    lock,
    node_pid,
    write_node_file,
)
from tests.broker.cli.running_node import run
from tests.support.deadlines import DEADLINE_S

READY = "all are ready; Ctrl-C stops them\n"

NODES_MAX = 5
BASE_PORTS = range(10_000, 32_768 - CLUSTER_PORT_OFFSET - NODES_MAX, NODES_MAX)
"""With the ports between nodes they end before those that Linux gives out by itself."""


def parameters(port: int) -> pika.ConnectionParameters:
    """With as much patience as for all else here."""
    return pika.ConnectionParameters(port=port, socket_timeout=DEADLINE_S, stack_timeout=DEADLINE_S)


def test_each_node_gets_the_same_of_all(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of all\n")
    ports = dict(zip("abc", (7000, 7001, 7002), strict=True))
    for name, port in ports.items():
        member = member_of(name, "abc", tmp_path, 7000)
        words = iter(member.words[member.words.index("serve") + 1 :])
        flags = {word.removeprefix("--"): [next(words)] for word in words}
        config = resolve(flags, {}).config
        assert config.listen is not None
        assert (config.node_name, config.data_dir, config.listen.port) == (
            name,
            member.data_dir,
            port,
        )
        assert config.cluster is not None
        assert config.cluster.secret == b"of all"
        assert config.cluster.listen == config.cluster.peers[name]
        assert {node: peer.port for node, peer in config.cluster.peers.items()} == {
            node: port + CLUSTER_PORT_OFFSET for node, port in ports.items()
        }


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("cluster", "up", "--data-dir", str(tmp_path / "file" / "data"))
    assert result.exit_code == 1
    assert "cannot keep data in" in result.stderr
    assert result.stderr.count("\n") == 1


def test_only_one_works_in_a_directory(tmp_path: Path) -> None:
    with taken(tmp_path):
        result = run("cluster", "up", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: another `fluffle cluster up` is at work in {tmp_path}")
    assert not (tmp_path / "a").exists()


def test_a_node_that_was_started_by_hand_is_not_started_again(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write_node_file(tmp_path / "b" / NODE_FILE, "b", "1", {})
    with lock(tmp_path / "b" / LOCK_FILE):
        result = run("cluster", "up", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert f"node b runs already in {tmp_path / 'b'} (process {os.getpid()})" in result.stderr


def test_who_has_founded_a_cluster_is_kept(tmp_path: Path) -> None:
    assert keep_founders(tmp_path, "abc") == ["a", "b", "c"]
    assert keep_founders(tmp_path, "abcde") == ["a", "b", "c"]


def test_listeners_are_on_a_port_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of all\n")
    listeners = other_listeners("c", {"mqtt": 1883, "management": 15672, "metrics": None})
    words = member_of("c", "abc", tmp_path, 7000, listeners).words
    given = iter(words[words.index("serve") + 1 :])
    config = resolve({word.removeprefix("--"): [next(given)] for word in given}, {}).config
    assert config.management_listen == ListenAddress("127.0.0.1", 15674)
    assert list(config.mqtt.listen) == [ListenAddress("127.0.0.1", 1885)]
    assert config.metrics_listen is None


def test_the_founders_of_an_older_directory_are_those_that_are_there(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert keep_founders(tmp_path, "abcde") == ["a", "b"]


@pytest.mark.parametrize(
    "words",
    [
        ("--nodes", "0"),
        ("--nodes", str(len(NAMES) + 1)),
        ("--base-port", "60000"),
        ("--management", "65530"),
    ],
)
def test_what_cannot_be_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert run("cluster", "up", *words).exit_code == 2


class OnAlone(LocalClient):
    """A node that forgets another, on which so many queues are alone."""

    count = 12
    forgotten = 0

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        assert (verb, arguments) == ("cluster.check_forget", {"name": "c"})
        return iter([{"vhost": "/", "name": f"q{n}", "type": "classic"} for n in range(self.count)])

    def call(self, verb: str, **arguments: object) -> Row:
        assert (verb, arguments) == ("cluster.forget", {"name": "c"})
        OnAlone.forgotten += 1
        return {"queues": self.count}


@pytest.mark.parametrize(
    ("count", "words", "typed", "forgotten"),
    [(12, (), "n\n", 0), (12, (), "y\n", 1), (12, ("--yes",), "", 1), (0, (), "", 1)],
)
def test_queues_that_go_with_a_node_are_named_before(
    monkeypatch: pytest.MonkeyPatch, count: int, words: tuple[str, ...], typed: str, forgotten: int
) -> None:
    monkeypatch.setattr(options, "LocalClient", OnAlone)
    monkeypatch.setattr(OnAlone, "count", count)
    monkeypatch.setattr(OnAlone, "forgotten", 0)
    result = run("cluster", "forget", "c", *words, input=typed)
    assert OnAlone.forgotten == forgotten
    assert result.exit_code == 1 - forgotten
    is_asked = "12 queues are on 'c' alone, and to be deleted with all messages" in result.output
    assert is_asked is bool(typed)
    assert ("classic queue 'q9' in vhost '/'\nand 2 more" in result.output) is is_asked


class Waiting(LocalClient):
    """A node that others refuse."""

    hindered = ""

    def call(self, verb: str, **arguments: object) -> Row:
        assert (verb, arguments) == ("status", {})
        awaited = {"linked": [], "of": ["a"], "hindered": [self.hindered], "advice": "look there"}
        return {"cluster": {"name": "fluffle", "has_entered": False, "awaited": awaited}}


@pytest.mark.parametrize(
    ("hindered", "said"),
    [
        ("refused by a: former_node", "was told to forget it; stop all, remove {place}, and start"),
        ("refused by a: secret", "fluffle, waiting to be one of it; linked: none of a; refused"),
    ],
)
def test_why_a_node_is_not_ready_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hindered: str, said: str
) -> None:
    monkeypatch.setattr(cluster, "LocalClient", Waiting)
    monkeypatch.setattr(Waiting, "hindered", hindered)
    assert said.format(place=tmp_path) in why_not_ready(tmp_path)


def test_a_node_that_does_not_answer_says_nothing(tmp_path: Path) -> None:
    assert why_not_ready(tmp_path) == ""


def test_what_helps_is_said_once() -> None:
    hindered = [{"reason": f"{name} is refused: x", "advice": "look there"} for name in "bc"]
    row = {
        "name": "fluffle", "has_entered": True, "running": 1, "nodes": 3, "leader": None,
        "hindered": hindered,
    }  # fmt: skip
    said = "1 of 3 nodes, without a leader; b is refused: x, c is refused: x: look there"
    assert shown_cluster(row) == f"fluffle, {said}"


class NoRows(LocalClient):
    """A node that has nothing to list, and says why."""

    def rows(self, verb: str, **arguments: object) -> Iterator[Row]:
        del verb, arguments
        return iter(())

    def call(self, verb: str, **arguments: object) -> Row:
        del arguments
        assert verb == "status"
        hindered = ["refused by c: secret"]
        awaited = {"linked": ["b"], "of": ["b", "c"], "hindered": hindered, "advice": "look there"}
        return {"cluster": {"name": "fluffle", "has_entered": False, "awaited": awaited}}


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (
            (),
            "fluffle, waiting to be one of it; linked: b of b, c; refused by c: secret; "
            "look there\n",
        ),
        (("--json",), "[\n]\n"),
    ],
)
def test_who_waits_to_be_let_in_says_so_in_the_place_of_an_empty_table(
    words: tuple[str, ...], printed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(options, "LocalClient", NoRows)
    assert run("cluster", "status", *words, "--data-dir", str(tmp_path)).output == printed


def test_who_is_refused_is_named_beside_how_many_run() -> None:
    hindered = [{"reason": "refused by c: secret", "advice": "give all nodes the same"}]
    row = {
        "name": "fluffle", "has_entered": True, "running": 2, "nodes": 3, "leader": "a",
        "hindered": hindered,
    }  # fmt: skip
    said = "fluffle, 2 of 3 nodes, led by a; refused by c: secret: give all nodes the same"
    assert shown_cluster(row) == said


@pytest.mark.slow("eight nodes start as processes")
def test_a_cluster_serves_until_it_is_interrupted_and_grows(tmp_path: Path) -> None:
    base = free_base_port()
    for names in ("abc", "abcde"):
        command = [sys.executable, "-m", "fluffle.broker", "cluster", "up"]
        words = ["--data-dir", str(tmp_path / "cluster"), "--base-port", str(base)]
        words += ["--nodes", str(len(names))]
        with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
            try:
                wait_until_ready(process)
                for number in range(len(names)):
                    pika.BlockingConnection(parameters(base + number)).close()
            finally:
                process.send_signal(signal.SIGINT)
            rest, _nothing = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
        stopped = [f"{name} has stopped" for name in names]
        assert sorted(rest.splitlines()) == [*stopped, f"stopping {', '.join(names)}"]


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if line == READY:
            return
        said.append(line)
    pytest.fail(f"not all nodes have started: {said}")


def free_base_port() -> int:
    """Where all nodes find their ports free, for clients and for each other: below those that this
    machine gives out by itself, or a client of somebody else may have one of them by now."""
    for base in Random(os.getpid()).sample(BASE_PORTS, len(BASE_PORTS)):
        with ExitStack() as bound:
            try:
                for port in (*range(base, base + NODES_MAX), *cluster_ports(base)):
                    bound.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError("there are no ports")


def cluster_ports(base: int) -> range:
    return range(base + CLUSTER_PORT_OFFSET, base + CLUSTER_PORT_OFFSET + NODES_MAX)


NODE_SCRIPT = """
import json, os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
others = [folder.parent / name for name in sys.argv[2:]]
def tell(number):
    os.kill(os.getppid(), number)
def is_ready():
    folder.mkdir()
    (folder / "draft").write_text(json.dumps({"pid": os.getpid()}))
    (folder / "draft").rename(folder / "node.json")
def until(path):
    while not path.exists():
        pass
"""
"""Start of the nodes' scripts in these tests."""
GOES_WHEN_ASKED = (
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready(); signal.pause()"
)
INTERRUPTS_WHEN_ALL_ARE_READY = (
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready()\n"
    "for other in others: until(other / 'node.json')\n"
    "until(folder.parent / 'ready'); tell(signal.SIGINT); signal.pause()"
)


def run_processes(tmp_path: Path, **scripts: str) -> tuple[int, list[str]]:
    """The exit code, and what was reported; scripts see the file `ready` once all are."""
    code, printed, _ready = run_and_watch(tmp_path, **scripts)
    return code, printed


def run_and_watch(tmp_path: Path, **scripts: str) -> tuple[int, list[str], list[str]]:
    """The same, and who was ready, in order."""
    members = []
    for name, script in scripts.items():
        others = [other for other in scripts if other != name]
        words = [sys.executable, "-c", NODE_SCRIPT + script, str(tmp_path / name), *others]
        members.append(NodeProcess(name, words, tmp_path / name, tmp_path / f"{name}.log"))
    printed: list[str] = []
    ready: list[str] = []

    def tell(line: str) -> None:
        printed.append(line)
        if line == "ready":
            (tmp_path / "ready").touch()
        if "is not ready yet" in line:
            (tmp_path / "impatient").touch()

    def explain(data_dir: Path) -> str:
        return "it was forgotten" if data_dir.name == "forgotten" else ""

    return ProcessGroup(members, tell, ready.append, explain).run("ready"), printed, ready


def test_an_interrupt_stops_all_in_order(tmp_path: Path) -> None:
    code, printed = run_processes(tmp_path, a=GOES_WHEN_ASKED, b=INTERRUPTS_WHEN_ALL_ARE_READY)
    assert code == 0
    assert printed[:2] == ["ready", "stopping a, b"]
    assert sorted(printed[2:]) == ["a has stopped", "b has stopped"]


def test_who_is_not_ready_for_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LOOKS_PATIENT", 2)
    late = "until(folder.parent / 'impatient'); " + INTERRUPTS_WHEN_ALL_ARE_READY
    code, printed, ready = run_and_watch(tmp_path, a=GOES_WHEN_ASKED, b=late)
    where = tmp_path / "b"
    assert f"b is not ready yet: fluffle status --data-dir {where}" in printed
    assert (code, sorted(ready)) == (0, ["a", "b"])


def test_a_node_that_is_not_ready_reports_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LOOKS_PATIENT", 2)
    late = "until(folder.parent / 'impatient'); " + INTERRUPTS_WHEN_ALL_ARE_READY
    _code, printed = run_processes(tmp_path, a=GOES_WHEN_ASKED, forgotten=late)
    assert "forgotten is not ready yet: it was forgotten" in printed


def test_who_dies_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    dies = "is_ready(); until(folder.parent / 'ready'); os.kill(os.getpid(), signal.SIGKILL)"
    outlives = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready()\n"
        "file = others[0] / 'node.json'\n"
        "until(file); pid = json.loads(file.read_text())['pid']\n"
        "while pathlib.Path(f'/proc/{pid}').exists(): pass\n"
        "tell(signal.SIGTERM); signal.pause()"
    )
    code, printed = run_processes(tmp_path, a=dies, b=outlives)
    assert code == 0, "whoever was left has stopped in order"
    assert printed[:2] == ["ready", "a was ended by SIGKILL; the end of its log:"]
    assert printed[2].startswith(f"start it again: {sys.executable} -c ")
    assert printed[3:] == ["stopping b", "b has stopped"]


def test_all_that_end_by_themselves_have_failed(tmp_path: Path) -> None:
    dies = "is_ready(); until(folder.parent / 'ready'); os.kill(os.getpid(), signal.SIGKILL)"
    code, printed = run_processes(tmp_path, a=dies)
    assert (code, printed) == (1, ["ready", "a was ended by SIGKILL; the end of its log:"])


def test_who_does_not_stop_in_order_has_failed(tmp_path: Path) -> None:
    sulks = GOES_WHEN_ASKED.replace("sys.exit(0)", "sys.exit(3)")
    code, _reported = run_processes(tmp_path, a=sulks, b=INTERRUPTS_WHEN_ALL_ARE_READY)
    assert code == 1


def test_a_start_that_fails_is_the_end_of_all(tmp_path: Path) -> None:
    fails = "until(others[0] / 'node.json'); print(*range(10), sep='\\n'); sys.exit('no port')"
    code, printed = run_processes(tmp_path, a=fails, b=GOES_WHEN_ASKED)
    assert code == 1
    assert printed[0] == "a ended with 1; the end of its log:"
    assert printed[1 : LAST_LINES + 1] == [f"    {line}" for line in (6, 7, 8, 9, "no port")]
    assert printed[LAST_LINES + 1 :] == ["stopping b", "b has stopped"]


def test_nobody_is_left_after_an_error_of_ours(tmp_path: Path) -> None:
    class Unheard(Exception):
        pass

    def tell(_line: str) -> None:
        raise Unheard

    words = [sys.executable, "-c", NODE_SCRIPT + GOES_WHEN_ASKED, str(tmp_path / "a")]
    processes = ProcessGroup(
        [NodeProcess("a", words, tmp_path / "a", tmp_path / "log")],
        tell,
        lambda _name: None,
        lambda _data_dir: "",
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Unheard):
        processes.run("ready")
    pid = node_pid(tmp_path / "a" / NODE_FILE)
    assert not Path(f"/proc/{pid}").exists()
    assert signal.getsignal(signal.SIGTERM) is before
