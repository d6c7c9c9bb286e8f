"""A disk that fails under a node: it ends at once, and has confirmed nothing that is not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fluffle.protocol.methods import Queue, make
from tests.crash.checker import Checker
from tests.crash.history import Confirmed, Event, RunEnded
from tests.crash.witness import Ended, Target, Witness
from tests.support.daemon import Daemon
from tests.support.powercut import preloaded

TO_Q = Target("", "q", ("q",))
FAILURES = {
    "sync": ("sync", errno.EIO),
    "write": ("write", errno.EIO),
    "no space": ("write", errno.ENOSPC),
    "meta page": ("meta", errno.EIO),
}


def publish_forever(witness: Witness) -> None:
    while True:
        witness.publish([TO_Q], 1_000)
        witness.await_confirms()


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_a_node_ends_with_its_disk(tmp_path: Path, failure: str) -> None:
    switch, source = tmp_path / "failing", Path(__file__).parents[1] / "support" / "failing.c"
    environment = {"LD_PRELOAD": preloaded(source, tmp_path), "FAILING": str(switch)}
    daemon = Daemon(tmp_path / "data", environment=environment)
    history: list[Event] = []
    daemon.start()
    witness = Witness(daemon.port, "publisher", history.append)
    witness.call(make(Queue.Declare, queue="q", durable=True))
    witness.confirm_select()
    witness.publish([TO_Q] * 20, 1_000)
    witness.await_confirms()
    word, error = FAILURES[failure]
    switch.write_text(f"{word} {error}\n")
    told = len(history)
    with pytest.raises(Ended):
        publish_forever(witness)
    witness.close()
    assert daemon.stop() == 1, "the node ended itself"
    assert "critical fatal" in daemon.log
    assert "Traceback" not in daemon.log
    assert not any(isinstance(event, Confirmed) for event in history[told:])
    switch.unlink()
    with daemon:
        history.append(RunEnded())
        reader = Witness(daemon.port, "reader", history.append)
        while reader.get("q") is not None:
            pass
        reader.close()
    checker = Checker()
    checker.read(history)
    report = checker.finish()
    assert report.lost + report.unexpected == []
    assert report.received >= 20


@pytest.mark.slow
def test_a_node_does_not_start_on_a_disk_that_fails(tmp_path: Path) -> None:
    switch, source = tmp_path / "failing", Path(__file__).parents[1] / "support" / "failing.c"
    switch.write_text(f"sync {errno.EIO}\n")
    environment = {"LD_PRELOAD": preloaded(source, tmp_path), "FAILING": str(switch)}
    daemon = Daemon(tmp_path / "data", environment=environment)
    with pytest.raises(RuntimeError, match="did not become ready"):
        daemon.start()
    switch.unlink()
    with daemon:
        Witness(daemon.port, "client", lambda _event: None).close()
