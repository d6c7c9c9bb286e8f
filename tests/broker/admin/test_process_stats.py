"""What the system says of a process, read from files that look like those of Linux."""

from __future__ import annotations

from pathlib import Path

from fluffle.broker.admin import process_stats

SMAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/python3
Size:                328 kB
Rss:                 100 kB
Pss:                 100 kB
VmFlags: rd ex
00652000-00655000 r--p 00052000 08:02 173521                             /usr/bin/python3
Rss:                  20 kB
00e03000-00e24000 rw-p 00000000 00:00 0                                  [heap]
Rss:                   7 kB
35b1800000-35b1820000 rw-p 00000000 00:00 0
Rss:                   5 kB
7f0000000000-7f0001000000 r--s 00000000 08:02 9                          /var/lib/a b/data.mdb
Rss:                   3 kB
"""


def test_memory_is_told_by_the_file_that_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "smaps").write_text(SMAPS)
    assert process_stats.resident_by_file(tmp_path) == {
        "/usr/bin/python3": 120 * 1024,
        process_stats.NOTHING: 12 * 1024,
        "/var/lib/a b/data.mdb": 3 * 1024,
    }


def test_where_the_system_says_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert process_stats.resident_by_file(tmp_path) == {}
    assert process_stats.open_files(tmp_path) == 0
    assert process_stats.threads_max(tmp_path / "threads-max") == 0


def test_open_files_are_counted_where_linux_does_not(tmp_path: Path) -> None:
    (tmp_path / "fd").mkdir()
    for number in range(3):
        (tmp_path / "fd" / str(number)).touch()
    assert process_stats.open_files(tmp_path) in {3, (tmp_path / "fd").stat().st_size}


def test_of_this_process_all_is_known() -> None:
    assert 0 < process_stats.open_files() <= process_stats.open_files_max()
    assert process_stats.resident_by_file()[process_stats.NOTHING] > 0
    for told in (process_stats.processors, process_stats.threads, process_stats.threads_max):
        assert told() > 0
    for counted in (process_stats.context_switches, process_stats.collections):
        assert counted() >= 0
