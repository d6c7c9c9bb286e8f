"""Whose a data directory is, and how often its node was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluffle.broker.cluster.identity_file import Owned, raise_boot, read_identity
from fluffle.broker.cluster.links.identity import marked
from fluffle.broker.config import IDENTITY_FILE
from fluffle.broker.starting import StartFailed


def test_each_start_is_counted(tmp_path: Path) -> None:
    assert read_identity(tmp_path) is None
    assert [raise_boot(tmp_path, "a", "c").boot for _ in range(3)] == [1, 2, 3]
    assert read_identity(tmp_path) == Owned("a", "c", 3)


def test_the_count_is_safe_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, and then the directory it is in."""
    raise_boot(tmp_path, "a", "c")
    synced: list[tuple[bool, int]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        is_directory = Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path
        owned = read_identity(tmp_path)
        synced.append((is_directory, owned.boot if owned else 0))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert raise_boot(tmp_path, "a", "c").boot == 2
    assert synced == [(False, 1), (True, 2)]


def test_the_data_of_another_are_left_alone(tmp_path: Path) -> None:
    raise_boot(tmp_path, "a", "c")
    with pytest.raises(StartFailed, match="the data of node 'a', not of 'b'; correct --node"):
        raise_boot(tmp_path, "b", "c")
    with pytest.raises(StartFailed, match="cluster 'c', not of 'd'; correct --cluster-name"):
        raise_boot(tmp_path, "a", "d")
    assert read_identity(tmp_path) == Owned("a", "c", 1)


def test_who_founds_a_cluster_is_kept_as_it_was_first_said(tmp_path: Path) -> None:
    first = marked("c", "ab")
    assert raise_boot(tmp_path, "a", first) == Owned("a", first, 1)
    assert raise_boot(tmp_path, "a", marked("c", "abc")) == Owned("a", first, 2)
    assert raise_boot(tmp_path, "a", "c") == Owned("a", first, 3)
    with pytest.raises(StartFailed, match="cluster 'c', not of 'd'"):
        raise_boot(tmp_path, "a", marked("d", "ab"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b'{"node": "a", "cluster": "c", "boot": 0}', b"3",
     b'{"node": "a", "cluster": "c", "boot": "1"}'],
)  # fmt: skip
def test_what_cannot_be_read_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    with pytest.raises(StartFailed, match="restore it, or have the cluster forget the node"):
        raise_boot(tmp_path, "a", "c")
    assert (tmp_path / IDENTITY_FILE).read_bytes() == content
