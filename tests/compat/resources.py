"""Too little memory or disk, of either broker: RabbitMQ's limits are changed by its command line,
fluffle is told by its system that less is left."""

from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue

from tests.support.powercut import preloaded

SOURCE = Path(__file__).with_name("resources.c")
DEADLINE_S = 20.0

COMMANDS: Mapping[tuple[str, bool], tuple[str, ...]] = {
    ("disk", True): ("set_disk_free_limit", "1000000GB"),
    ("disk", False): ("set_disk_free_limit", "1MB"),
    ("memory", True): ("set_vm_memory_high_watermark", "absolute", "1MB"),
    ("memory", False): ("set_vm_memory_high_watermark", "0.9"),
}
"""Commands of rabbitmqctl by resource and whether it is to be low."""


class Resources:
    """The system of one node of fluffle, which says what it is told to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {"disk": folder / "free", "memory": folder / "statm"}
        self._lines: SimpleQueue[str] = SimpleQueue()
        self.hear = self._lines.put
        """Takes each line of the node's log."""
        self.environment = {
            "LD_PRELOAD": preloaded(SOURCE, folder),
            "LOW_DISK": str(self._files["disk"]),
            "LOW_MEMORY": str(self._files["memory"]),
        }
        """Environment with which the node is started."""

    def begin(self) -> None:
        """There is enough of everything, for a node that is to be started."""
        for file in self._files.values():
            file.unlink(missing_ok=True)

    def switch(self, resource: str, *, low: bool) -> None:
        """Say so, and wait until the node's log does."""
        file = self._files[resource]
        if low == file.exists():
            return
        if low:
            file.write_text({"disk": "1000\n", "memory": f"0 {1 << 40} 0 0 0 0 0\n"}[resource])
        else:
            file.unlink()
        word = "alarm_raised" if low else "alarm_cleared"
        while not (word in (line := self._lines.get(timeout=DEADLINE_S)) and resource in line):
            pass
