"""The process around a node: readiness, signals, exit codes.  The node is a fake that listens."""

import asyncio
import gc
import io
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE, configure
from fluffle.broker.cluster.membership import NodeRemoved
from fluffle.broker.cluster.storage_progress import DiskPutBack
from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.daemon import daemon
from fluffle.broker.daemon.daemon import (
    GC_THRESHOLDS,
    READY,
    STOPPING,
    YOUNG_CPU_S,
    YOUNG_INTERVAL_S,
    YoungCollector,
    notify,
    run,
)
from fluffle.broker.node import Node as RealNode
from fluffle.broker.process.data_directory import node_pid
from fluffle.broker.runtime.turn import Turn
from tests.support.deadlines import DEADLINE_S

LOOPBACK = ListenAddress("127.0.0.1", 0)


class FakeNode:
    """Listens and says so; `on_started` runs in the loop when the daemon has seen it start."""

    def __init__(self, config: Config, on_started: Callable[[], None]) -> None:
        self.config = config
        self.addresses: dict[str, tuple[str, int]] = {}
        self.reason = ""
        self.reloads = 0
        self.turn = Turn(lambda run: run())
        self._on_started = on_started
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop, listen = asyncio.get_running_loop(), self.config.listen
        assert listen is not None
        self._server = await loop.create_server(asyncio.Protocol, listen.host, listen.port)
        self.addresses["amqp"] = self._server.sockets[0].getsockname()[:2]
        loop.call_soon(self._on_started)

    def reload(self) -> None:
        self.reloads += 1
        terminate()

    async def stop(self, reason: str) -> None:
        assert self._server is not None
        self._server.close()
        self.reason = reason


@pytest.fixture(autouse=True)
def _interpreter_as_it_was() -> Iterator[None]:
    """But for what is frozen: all tests that follow would look for garbage in all that pytest has
    collected, for half a second each time."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """Restore SIGHUP's default: the shell that runs the tests may have it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("json", "info", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def events(log: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_node_runs_until_a_signal(
    number: signal.Signals, tmp_path: Path, log: io.StringIO
) -> None:
    config = Config(node_name="a", data_dir=tmp_path / "new" / "data", listen=LOOPBACK)
    node_file = config.data_dir / "node.json"
    seen: dict[str, object] = {}

    def on_started() -> None:
        seen["file"] = json.loads(node_file.read_text())
        seen["others"] = sorted(path.name for path in config.data_dir.iterdir())
        seen["modes"] = [stat.S_IMODE(path.stat().st_mode) for path in (config.data_dir, node_file)]
        os.kill(os.getpid(), number)

    node = FakeNode(config, on_started)
    assert run(config, lambda _config: node) == 0
    host, port = node.addresses["amqp"]
    assert seen == {
        "file": {
            "node": "a",
            "pid": os.getpid(),
            "addresses": {"amqp": [host, port]},
            "version": config.version,
        },
        "others": ["lock", "node.json"],
        "modes": [0o700, 0o600],
    }
    assert node.reason == "shutdown"
    assert not node_file.exists()
    ready, stopping, stopped = events(log)
    assert (ready["event"], ready["node"], ready["amqp"]) == ("ready", "a", f"{host}:{port}")
    assert (stopping["event"], stopping["signal"]) == ("stopping", number.name)
    assert stopped["event"] == "stopped"


class WaitingNode(FakeNode):
    """Waits for others, who do not come."""

    async def start(self) -> None:
        await super().start()
        await asyncio.Event().wait()


def test_a_node_that_still_waits_for_others_stops_in_order(
    tmp_path: Path, log: io.StringIO
) -> None:
    node = WaitingNode(Config(data_dir=tmp_path, listen=LOOPBACK), terminate)
    assert run(node.config, lambda _config: node) == 0
    assert node.reason == "shutdown"
    assert [line["event"] for line in events(log)] == ["stopped"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_hangup_makes_a_node_with_certificates_read_them_again(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, listen=LOOPBACK, tls_listen=LOOPBACK)
    node = FakeNode(config, lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert run(node.config, lambda _config: node) == 0
    assert node.reloads == 1


def test_the_interpreter_is_tuned_once_the_node_is_up(tmp_path: Path) -> None:
    seen: dict[str, object] = {}
    here_before: list[object] = [[]]

    def on_started() -> None:
        seen["thresholds"] = gc.get_threshold()
        seen["frozen"] = not any(each is here_before for each in gc.get_objects())
        seen["interval_us"] = round(sys.getswitchinterval() * 1e6)
        terminate()

    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    run(config, lambda config: FakeNode(config, on_started))
    assert seen == {"thresholds": GC_THRESHOLDS, "frozen": True, "interval_us": 500}


def test_young_objects_that_take_the_places_of_others_are_collected_by_the_time_of_the_loop() -> (
    None
):
    collector = YoungCollector(Turn(lambda run: run()), lambda _delay_s, _call: None)
    now_s = time.thread_time()
    young = {number: [number] for number in range(100)}
    gc.collect(1)
    for number in range(1_000):
        young[number % 100] = [number]
    assert not collector.collect_after(now_s)
    assert any(each is young[7] for each in gc.get_objects(0))
    assert collector.collect_after(now_s + YOUNG_CPU_S + 1)
    assert not any(each is young[7] for each in [*gc.get_objects(0), *gc.get_objects(1)])
    assert not collector.collect_after(now_s + YOUNG_CPU_S + 1)


def test_young_objects_are_looked_for_only_after_a_turn() -> None:
    turn = Turn(lambda run: run())
    calls: list[tuple[float, Callable[[], None]]] = []
    YoungCollector(turn, lambda delay_s, call: calls.append((delay_s, call))).start()
    assert not calls
    for _ in range(3):
        turn.touch_commit()
    assert [delay_s for delay_s, _ in calls] == [YOUNG_INTERVAL_S]
    calls.pop()[1]()
    assert not calls
    turn.touch_commit()
    assert [delay_s for delay_s, _ in calls] == [YOUNG_INTERVAL_S]


def test_collections_of_young_objects_seldom_bring_a_full_one() -> None:
    """`gc.collect(1)` counts for it: at ten a second one comes in 40 minutes to an hour of work."""
    assert 40 * 60 < GC_THRESHOLDS[2] * YOUNG_INTERVAL_S < 60 * 60
    generations: list[int] = []

    def on_collection(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            generations.append(info["generation"])

    collector = YoungCollector(Turn(lambda run: run()), lambda _delay_s, _call: None)
    gc.set_threshold(*GC_THRESHOLDS)
    gc.callbacks.append(on_collection)
    try:
        for number in range(1, 100):
            collector.collect_after(time.thread_time() + number)
        young = [[number] for number in range(2 * GC_THRESHOLDS[0])]
    finally:
        gc.callbacks.remove(on_collection)
    assert len(generations) >= 100
    assert max(generations) == 1
    assert len(young) == 2 * GC_THRESHOLDS[0]


def test_the_service_manager_is_notified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        config = Config(data_dir=tmp_path, listen=LOOPBACK)
        assert run(config, lambda config: FakeNode(config, terminate)) == 0
        assert [manager.recv(64) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    assert "notify_failed" not in log.getvalue()


def test_a_deaf_service_manager_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    assert run(config, lambda config: FakeNode(config, terminate)) == 0
    names = [event["event"] for event in events(log)]
    assert names == ["notify_failed", "ready", "stopping", "notify_failed", "stopped"]


def test_a_disk_that_takes_no_file_is_one_line(tmp_path: Path, log: io.StringIO) -> None:
    (tmp_path / "node.tmp").mkdir()  # where the draft of node.json goes
    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    node = FakeNode(config, lambda: None)
    assert run(config, lambda _config: node) == 1
    (only,) = events(log)
    assert (only["event"], only["reason"]) == (
        "start_failed",
        f"cannot keep data in {tmp_path} (Is a directory); name another place with --data-dir",
    )
    assert node.reason == "start failed"


def test_a_port_in_use_is_one_line(tmp_path: Path, log: io.StringIO) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = ListenAddress(*other.getsockname())
        config = Config(data_dir=tmp_path, listen=listen)
        assert run(config, lambda config: FakeNode(config, terminate)) == 1
    (only,) = events(log)
    assert (only["event"], only["reason"]) == (
        "start_failed",
        f"cannot listen on {listen}, which is in use; stop the process that uses it, or name "
        "another address with --listen",
    )
    assert not (tmp_path / "node.json").exists()


def test_an_address_that_is_not_ours_is_one_line(tmp_path: Path, log: io.StringIO) -> None:
    config = Config(data_dir=tmp_path, listen=ListenAddress("192.0.2.1", 5672))
    assert run(config, lambda config: FakeNode(config, terminate)) == 1
    (only,) = events(log)
    assert only["reason"].startswith("cannot listen on 192.0.2.1:5672 (")


def test_definitions_that_cannot_be_used_are_one_line(tmp_path: Path, log: io.StringIO) -> None:
    file = tmp_path / "definitions.json"
    file.write_text('{"users": [{}]}')
    assert run(Config(data_dir=tmp_path, listen=LOOPBACK, definitions=file), RealNode) == 1
    (only,) = events(log)
    assert only["reason"] == f"definitions {file}: users, entry 1: there is no 'name'"


def test_a_host_without_an_address_is_one_line(tmp_path: Path, log: io.StringIO) -> None:
    class Unresolved(FakeNode):
        async def start(self) -> None:
            where = "(while attempting to bind on address ('nohost.invalid', 5672))"
            raise OSError(socket.EAI_NONAME, f"Name or service not known {where}")

    config = Config(data_dir=tmp_path, listen=ListenAddress("nohost.invalid", 5672))
    assert run(config, lambda config: Unresolved(config, terminate)) == 1
    (only,) = events(log)
    assert only["reason"] == (
        "cannot listen on nohost.invalid:5672 (Name or service not known); name another address "
        "with --listen"
    )


def test_a_second_node_is_refused_and_leaves_the_first_alone(
    tmp_path: Path, log: io.StringIO
) -> None:
    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    command = [sys.executable, "-m", "fluffle.broker", "serve", "--listen=127.0.0.1:0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLUFFLE_")}
    seen: dict[str, object] = {}

    def on_started() -> None:
        second = subprocess.run(
            [*command, "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env=environment,
        )
        seen["second"] = (second.returncode, second.stderr.count("\n"))
        seen["said"] = f"another node (process {os.getpid()}) keeps its data in" in second.stderr
        seen["named"] = str(tmp_path) in second.stderr
        seen["file"] = (tmp_path / "node.json").exists()
        terminate()

    assert run(config, lambda config: FakeNode(config, on_started)) == 0
    assert seen == {"second": (1, 1), "said": True, "named": True, "file": True}
    assert run(config, lambda config: FakeNode(config, terminate)) == 0, log.getvalue()


def test_the_node_file_of_somebody_else_stays(tmp_path: Path) -> None:
    file = tmp_path / "node.json"

    def on_started() -> None:
        file.write_text('{"pid": 1}', encoding="utf-8")
        terminate()

    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    assert run(config, lambda config: FakeNode(config, on_started)) == 0
    assert file.read_text(encoding="utf-8") == '{"pid": 1}'


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": null}', '{"pid": "x"}'])
def test_a_node_file_that_says_nothing_names_no_process(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.json"
    assert node_pid(file) is None
    file.write_text(text, encoding="utf-8")
    assert node_pid(file) is None


def test_a_data_directory_that_cannot_be_is_one_line(tmp_path: Path, log: io.StringIO) -> None:
    (tmp_path / "file").touch()
    config = Config(data_dir=tmp_path / "file", listen=LOOPBACK)
    assert run(config, lambda config: FakeNode(config, terminate)) == 1
    (only,) = events(log)
    assert only["reason"] == (
        f"cannot keep data in {tmp_path / 'file'} (File exists); name another place with --data-dir"
    )


def test_a_file_system_that_nobody_may_write_to_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    """Not `Permission denied`, which sends root looking for permissions."""
    values = list(os.statvfs(tmp_path))
    values[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))
    config = Config(data_dir=tmp_path, listen=LOOPBACK)
    assert run(config, lambda config: FakeNode(config, terminate)) == 1
    (only,) = events(log)
    assert only["reason"] == (
        f"cannot keep data in {tmp_path} (Read-only file system); "
        "name another place with --data-dir"
    )


NEVER_STOPS = """
import asyncio, os, signal, sys
from pathlib import Path
from fluffle.broker.config.config import Config
from fluffle.broker.daemon.daemon import run
from fluffle.broker.runtime.turn import Turn

class Node:
    addresses = {}
    turn = Turn(lambda run: run())
    async def start(self):
        os.kill(os.getpid(), signal.SIGTERM)
    def reload(self):
        pass
    async def stop(self, reason):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.get_running_loop().create_future()

sys.exit(run(Config(data_dir=Path(sys.argv[1])), lambda _config: Node()))
"""


def test_a_second_signal_ends_a_node_that_does_not_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NEVER_STOPS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 128 + signal.SIGINT, done.stderr


HANGS_UP = """
import asyncio, os, signal, sys
from pathlib import Path
from fluffle.broker.config.config import Config
from fluffle.broker.daemon.daemon import run
from fluffle.broker.runtime.turn import Turn
from fluffle.broker.base.logs import configure

class Node:
    addresses = {}
    turn = Turn(lambda run: run())
    async def start(self):
        for number in sys.argv[2:]:
            os.kill(os.getpid(), int(number))
    async def stop(self, reason):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)

configure("json", "info", sys.stderr)
signal.signal(signal.SIGHUP, signal.Handlers[os.environ["HANGUP"]])
sys.exit(run(Config(data_dir=Path(sys.argv[1])), lambda _config: Node()))
"""


@pytest.mark.parametrize(
    ("hangup", "numbers", "stopped_by"),
    [
        ("SIG_DFL", [signal.SIGHUP, signal.SIGHUP], "SIGHUP"),
        ("SIG_IGN", [signal.SIGHUP, signal.SIGTERM], "SIGTERM"),
    ],
    ids=["a terminal closes", "nohup"],
)
def test_a_hangup_stops_a_node_in_order(
    tmp_path: Path, hangup: str, numbers: list[int], stopped_by: str
) -> None:
    command = [sys.executable, "-c", HANGS_UP, str(tmp_path), *(str(int(n)) for n in numbers)]
    environment = {**os.environ, "HANGUP": hangup}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    (stopping,) = (json.loads(line) for line in done.stderr.splitlines() if '"stopping"' in line)
    assert stopping["signal"] == stopped_by


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [
        (NodeRemoved("said once"), False),
        (DiskPutBack("said once"), False),
        (ValueError("said once"), True),
    ],
    ids=repr,
)
def test_an_end_that_explains_itself_has_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    has_traceback: bool,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    daemon.end_process(error)
    assert codes == [daemon.EXIT_FAILED]
    (record,) = caplog.records
    fields = getattr(record, FIELDS_ATTRIBUTE)
    assert str(fields["reason"]) == "said once"
    assert ("traceback" in fields) is has_traceback


def path_name(folder: Path) -> str:
    return str(folder / "notify")


def abstract_name(_folder: Path) -> str:
    if not sys.platform.startswith("linux"):
        pytest.skip("abstract socket names are Linux's")
    return f"@fluffle-test-{os.getpid()}"


@pytest.mark.parametrize("make_name", [path_name, abstract_name])
def test_the_manager_is_notified(make_name: Callable[[Path], str], tmp_path: Path) -> None:
    name = make_name(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(DEADLINE_S)
        for state in (READY, STOPPING):
            assert notify(state, {"NOTIFY_SOCKET": name})
            assert manager.recv(64) == state.encode()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_manager_nothing_is_sent(environment: dict[str, str]) -> None:
    assert not notify(READY, environment)


def test_a_manager_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})
