"""Processes that are started together: who is told what, and that none is left."""

import signal
import sys
from pathlib import Path

import pytest

from fluffle.broker.cli import cluster_up
from fluffle.broker.cli.cluster_up import LAST_LINES, NodeProcess, ProcessGroup
from fluffle.broker.process.data_directory import NODE_FILE, node_pid

READY = """
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
"""What a node of these tests begins with."""
GOES_WHEN_TOLD = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready(); signal.pause()"
INTERRUPTS_WHEN_ALL_ARE_READY = (
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready()\n"
    "for other in others: until(other / 'node.json')\n"
    "until(folder.parent / 'ready'); tell(signal.SIGINT); signal.pause()"
)


def run(tmp_path: Path, **scripts: str) -> tuple[int, list[str]]:
    """The exit code, and what was told; scripts see the file `ready` once all are."""
    code, told, _ready = run_and_watch(tmp_path, **scripts)
    return code, told


def run_and_watch(tmp_path: Path, **scripts: str) -> tuple[int, list[str], list[str]]:
    """The same, and who was ready, in order."""
    members = []
    for name, script in scripts.items():
        others = [other for other in scripts if other != name]
        words = [sys.executable, "-c", READY + script, str(tmp_path / name), *others]
        members.append(NodeProcess(name, words, tmp_path / name, tmp_path / f"{name}.log"))
    told: list[str] = []
    ready: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if line == "ready":
            (tmp_path / "ready").touch()
        if "is not ready yet" in line:
            (tmp_path / "impatient").touch()

    def explain(data_dir: Path) -> str:
        return "it was forgotten" if data_dir.name == "forgotten" else ""

    return ProcessGroup(members, tell, ready.append, explain).run("ready"), told, ready


def test_an_interrupt_stops_all_in_order(tmp_path: Path) -> None:
    code, told = run(tmp_path, a=GOES_WHEN_TOLD, b=INTERRUPTS_WHEN_ALL_ARE_READY)
    assert code == 0
    assert told[:2] == ["ready", "stopping a, b"]
    assert sorted(told[2:]) == ["a has stopped", "b has stopped"]


def test_who_is_not_ready_for_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_up, "LOOKS_PATIENT", 2)
    late = "until(folder.parent / 'impatient'); " + INTERRUPTS_WHEN_ALL_ARE_READY
    code, told, ready = run_and_watch(tmp_path, a=GOES_WHEN_TOLD, b=late)
    where = tmp_path / "b"
    assert f"b is not ready yet: fluffle status --data-dir {where}" in told
    assert (code, sorted(ready)) == (0, ["a", "b"])


def test_who_is_not_ready_for_a_reason_has_that_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_up, "LOOKS_PATIENT", 2)
    late = "until(folder.parent / 'impatient'); " + INTERRUPTS_WHEN_ALL_ARE_READY
    _code, told = run(tmp_path, a=GOES_WHEN_TOLD, forgotten=late)
    assert "forgotten is not ready yet: it was forgotten" in told


def test_who_dies_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    dies = "is_ready(); until(folder.parent / 'ready'); os.kill(os.getpid(), signal.SIGKILL)"
    outlives = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); is_ready()\n"
        "file = others[0] / 'node.json'\n"
        "until(file); pid = json.loads(file.read_text())['pid']\n"
        "while pathlib.Path(f'/proc/{pid}').exists(): pass\n"
        "tell(signal.SIGTERM); signal.pause()"
    )
    code, told = run(tmp_path, a=dies, b=outlives)
    assert code == 0, "whoever was left has stopped in order"
    assert told[:2] == ["ready", "a was ended by SIGKILL; the end of its log:"]
    assert told[2].startswith(f"start it again: {sys.executable} -c ")
    assert told[3:] == ["stopping b", "b has stopped"]


def test_all_that_end_by_themselves_have_failed(tmp_path: Path) -> None:
    dies = "is_ready(); until(folder.parent / 'ready'); os.kill(os.getpid(), signal.SIGKILL)"
    code, told = run(tmp_path, a=dies)
    assert (code, told) == (1, ["ready", "a was ended by SIGKILL; the end of its log:"])


def test_who_does_not_stop_in_order_has_failed(tmp_path: Path) -> None:
    sulks = GOES_WHEN_TOLD.replace("sys.exit(0)", "sys.exit(3)")
    code, _told = run(tmp_path, a=sulks, b=INTERRUPTS_WHEN_ALL_ARE_READY)
    assert code == 1


def test_a_start_that_fails_is_the_end_of_all(tmp_path: Path) -> None:
    fails = "until(others[0] / 'node.json'); print(*range(10), sep='\\n'); sys.exit('no port')"
    code, told = run(tmp_path, a=fails, b=GOES_WHEN_TOLD)
    assert code == 1
    assert told[0] == "a ended with 1; the end of its log:"
    assert told[1 : LAST_LINES + 1] == [f"    {line}" for line in (6, 7, 8, 9, "no port")]
    assert told[LAST_LINES + 1 :] == ["stopping b", "b has stopped"]


def test_nobody_is_left_after_an_error_of_ours(tmp_path: Path) -> None:
    class Unheard(Exception):
        pass

    def tell(_line: str) -> None:
        raise Unheard

    words = [sys.executable, "-c", READY + GOES_WHEN_TOLD, str(tmp_path / "a")]
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
