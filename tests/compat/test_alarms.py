"""Runs the scenarios about low resources: RabbitMQ's limits are changed by its command line,
fluffle is told by its system that less is left."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.compat.comparing import compare
from tests.compat.oracle import RabbitMQ
from tests.compat.scenario import ALARMS, load_scenarios
from tests.support.daemon import Daemon
from tests.support.powercut import preloaded

pytestmark = pytest.mark.compat

load_scenarios()

SOURCE = Path(__file__).with_name("resources.c")
DEADLINE_S = 20.0
COMMANDS = {
    ("disk", True): ("set_disk_free_limit", "1000000GB"),
    ("disk", False): ("set_disk_free_limit", "1MB"),
    ("memory", True): ("set_vm_memory_high_watermark", "absolute", "1MB"),
    ("memory", False): ("set_vm_memory_high_watermark", "0.9"),
}


class Resources:
    """A fluffle whose system says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self._files = {"disk": folder / "free", "memory": folder / "statm"}
        self._lines: SimpleQueue[str] = SimpleQueue()
        self.daemon = Daemon(
            folder / "data",
            on_line=self._lines.put,
            environment={
                "LD_PRELOAD": preloaded(SOURCE, folder),
                "LOW_DISK": str(self._files["disk"]),
                "LOW_MEMORY": str(self._files["memory"]),
            },
        )

    def switch(self, resource: str, *, low: bool) -> None:
        """Say so, and wait until the node's log does."""
        file = self._files[resource]
        if low:
            file.write_text({"disk": "1000\n", "memory": f"0 {1 << 40} 0 0 0 0 0\n"}[resource])
        else:
            file.unlink()
        word = "alarm_raised" if low else "alarm_cleared"
        while not (word in (line := self._lines.get(timeout=DEADLINE_S)) and resource in line):
            pass


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resources]:
    made = Resources(tmp_path_factory.mktemp("resources"))
    with made.daemon:
        yield made


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_both_hold_up_the_same(name: str, rabbitmq: RabbitMQ, resources: Resources) -> None:
    def switch(resource: str, *, low: bool) -> None:
        rabbitmq.ctl(*COMMANDS[resource, low])

    scenario = ALARMS[name]
    try:
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(scenario.run, rabbitmq.port, switch)
            ours = scenario.run(resources.daemon.port, resources.switch)
            theirs = running.result()
    finally:
        for resource in ("disk", "memory"):
            switch(resource, low=False)
    compare(name, theirs, ours)
