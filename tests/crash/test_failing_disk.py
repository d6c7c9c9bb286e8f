"""A disk that fails under a node: it ends at once, and has confirmed nothing that is not there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from fluffle.broker.amqp_client import ConnectionEnded
from fluffle.broker.torture.history import Confirmed, Event, RunEnded
from fluffle.broker.torture.online_checker import OnlineChecker
from fluffle.broker.torture.recording_client import RecordedTarget, RecordingClient
from fluffle.broker.torture.system import NodeAddress
from fluffle.protocol.methods import Queue, make
from tests.crash.recorded_run import PATIENT
from tests.support.daemon import Daemon
from tests.support.powercut import preloaded

TO_Q = RecordedTarget("", "q", ("q",))
FAILURES = {
    "sync": ("sync", errno.EIO),
    "write": ("write", errno.EIO),
    "no space": ("write", errno.ENOSPC),
    "meta page": ("meta", errno.EIO),
}


async def connect(daemon: Daemon, name: str, note: Callable[[Event], None]) -> RecordingClient:
    to = NodeAddress("node", "127.0.0.1", daemon.port)
    return await RecordingClient.connect(to, name, note, PATIENT)


async def publish_forever(client: RecordingClient) -> None:
    while True:
        client.publisher.publish([TO_Q], 1_000)
        await client.publisher.await_confirms()


@pytest.mark.slow("each failure is that of a process of its own")
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_node_ends_with_its_disk(tmp_path: Path, failure: str) -> None:
    switch, source = tmp_path / "failing", Path(__file__).parents[1] / "support" / "failing.c"
    environment = {"LD_PRELOAD": preloaded(source, tmp_path), "FAILING": str(switch)}
    daemon = Daemon(tmp_path / "data", environment=environment)
    history: list[Event] = []
    daemon.start()
    with await connect(daemon, "publisher", history.append) as client:
        await client.connection.call(make(Queue.Declare, queue="q", durable=True))
        await client.publisher.confirm_select()
        client.publisher.publish([TO_Q] * 20, 1_000)
        await client.publisher.await_confirms()
        word, error = FAILURES[failure]
        switch.write_text(f"{word} {error}\n")
        reported = len(history)
        with pytest.raises(ConnectionEnded):
            await publish_forever(client)
    assert daemon.stop() == 1, "the node ended itself"
    assert "critical fatal" in daemon.log
    assert "Traceback" not in daemon.log
    assert not any(isinstance(event, Confirmed) for event in history[reported:])
    switch.unlink()
    with daemon:
        history.append(RunEnded())
        with await connect(daemon, "reader", history.append) as reader:
            while await reader.unacked.get("q") is not None:
                pass
    checker = OnlineChecker()
    checker.read(history)
    report = checker.finish()
    assert [*report.sentences()] == []
    assert report.received >= 20


@pytest.mark.slow("each failure is that of a process of its own")
async def test_a_node_does_not_start_on_a_disk_that_fails(tmp_path: Path) -> None:
    switch, source = tmp_path / "failing", Path(__file__).parents[1] / "support" / "failing.c"
    switch.write_text(f"sync {errno.EIO}\n")
    environment = {"LD_PRELOAD": preloaded(source, tmp_path), "FAILING": str(switch)}
    daemon = Daemon(tmp_path / "data", environment=environment)
    with pytest.raises(RuntimeError, match="did not become ready"):
        daemon.start()
    switch.unlink()
    with daemon, await connect(daemon, "client", lambda _event: None):
        pass
