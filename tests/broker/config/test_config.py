"""Limits on memory in trees of control groups of both versions."""

from pathlib import Path

import pytest

from fluffle.broker.config.config import memory_bytes, memory_limits

V1 = "sys/fs/cgroup/memory"
V2 = "sys/fs/cgroup"


def make_tree(root: Path, cgroup: str, limits: dict[str, str]) -> None:
    for name, text in {"proc/self/cgroup": cgroup, **limits}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


@pytest.mark.parametrize(
    ("cgroup", "limits", "found"),
    [
        (
            "0::/a/b",
            {
                f"{V2}/a/b/memory.max": "max",
                f"{V2}/a/memory.max": "4096",
                f"{V2}/memory.max": "8192",
                f"{V2}/a/b/c/memory.max": "1",
                f"{V2}/other/memory.max": "2",
            },
            [4096, 8192],
        ),
        (
            "3:cpu,memory:/a\n2:cpuset:/b\n0::/",
            {
                f"{V1}/a/memory.limit_in_bytes": "4096",
                f"{V1}/memory.limit_in_bytes": "9223372036854771712",
                f"{V1}/b/memory.limit_in_bytes": "1",
            },
            [4096, 9223372036854771712],
        ),
        ("0::/elsewhere", {f"{V2}/memory.max": "4096"}, [4096]),
        ("0::/", {}, []),
    ],
    ids=["version 2", "version 1", "a container", "no limit"],
)
def test_limits(cgroup: str, limits: dict[str, str], found: list[int], tmp_path: Path) -> None:
    make_tree(tmp_path, cgroup, limits)
    assert list(memory_limits(tmp_path)) == found


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert list(memory_limits(tmp_path)) == []
    assert memory_bytes(tmp_path) > 1 << 20


def test_the_smallest_limit_counts_if_the_machine_has_more(tmp_path: Path) -> None:
    limits = {f"{V2}/a/memory.max": "8192", f"{V2}/memory.max": "4096"}
    make_tree(tmp_path, "0::/a", limits)
    assert memory_bytes(tmp_path) == 4096
