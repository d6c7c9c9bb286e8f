"""The reserve: when it is kept, when it is given up, and what for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import lmdb
import pytest

from fluffle.storage import environment as environments
from fluffle.storage import reserve
from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import open_environment
from fluffle.storage.errors import DiskFull, StorageError
from fluffle.storage.layout import Table
from fluffle.storage.reserve import LOW_BYTES, RESERVE_FILE, RESERVED_BYTES, keep

PUT = WriteTransaction(puts=[(Table.COLD, b"a", b"1")])


def test_it_takes_the_room_that_it_stands_for(tmp_path: Path) -> None:
    for _ in range(2):
        keep(tmp_path)
        status = (tmp_path / RESERVE_FILE).stat()
        assert status.st_size == RESERVED_BYTES
        assert status.st_blocks * 512 >= RESERVED_BYTES
    os.truncate(tmp_path / RESERVE_FILE, 1000)  # as one that was interrupted
    keep(tmp_path)
    assert (tmp_path / RESERVE_FILE).stat().st_blocks * 512 >= RESERVED_BYTES


def test_a_commit_on_a_disk_that_is_nearly_full_has_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = open_environment(tmp_path)
    keep(tmp_path)
    for free, is_there in ((LOW_BYTES, True), (LOW_BYTES - 1, False), (0, False)):
        monkeypatch.setattr(reserve, "free_bytes", lambda _folder, free=free: free)
        environment.commit(PUT)
        assert (tmp_path / RESERVE_FILE).exists() is is_there
    environment.close()


def test_so_has_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path)
    monkeypatch.setattr(reserve, "free_bytes", lambda _folder: 0)
    open_environment(tmp_path).close()
    assert not (tmp_path / RESERVE_FILE).exists()


@pytest.mark.parametrize(
    ("error", "free", "kind"),
    [
        (errno.ENOSPC, LOW_BYTES, DiskFull),
        (errno.EDQUOT, LOW_BYTES, DiskFull),
        (errno.EIO, 0, DiskFull),
        (errno.EIO, LOW_BYTES, StorageError),
    ],
)
def test_a_full_disk_is_called_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    free: int,
    kind: type[StorageError],
) -> None:
    """LMDB says EIO when only a part of what it writes finds room."""

    def fail(*_: object) -> None:
        raise lmdb.DiskError(f"mdb_txn_commit: {os.strerror(error)}")

    environment = open_environment(tmp_path)
    monkeypatch.setattr(environments.LmdbEnvironment, "_put", fail)
    monkeypatch.setattr(environments, "free_bytes", lambda _folder: free)
    with pytest.raises(StorageError) as caught:
        environment.commit(PUT)
    assert type(caught.value) is kind
    environment.close()
