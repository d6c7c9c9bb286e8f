"""When records leave the hot window."""

from fluffle.storage.batch import Batch
from fluffle.storage.layout import Table
from fluffle.storage.memory import MemoryDisk
from fluffle.storage.mover import UpkeepTuning
from tests.storage.support import Host


def records(disk: MemoryDisk) -> int:
    with disk.view() as view:
        return sum(1 for _ in view.scan(Table.HOT, b"", None))


def test_small_commits_have_records_leave_together() -> None:
    """What leaves dirties pages of its own, so not with each; and the window stays a window."""
    disk = MemoryDisk()
    host = Host(lambda: disk, UpkeepTuning(window_bytes=10_000, slack_share=10))
    leaving = []
    for index in range(1, 301):
        batch = Batch()
        batch.append(1, index, bytes(36))
        host.submit(batch)
        assert host.writer.work is not None
        leaving.append(len(host.writer.work.removes))
        host.settle()
        assert 100 * records(disk) <= 11_000
    assert set(leaving) == {0, 11}
    assert sum(leaving) + records(disk) == 300
    assert host.indexes(1) == list(range(1, 301))
