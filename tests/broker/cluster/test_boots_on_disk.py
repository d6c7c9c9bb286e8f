"""Whose the data are, and in which life their node is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fluffle.broker.cluster.boots import BootRecord, DiskAtStart, begin_boot
from fluffle.broker.config.config import ClusterConfig, Config, ListenAddress
from fluffle.broker.config.start_error import StartFailed
from fluffle.broker.durability.definitions.node_identity import IDENTITY, store_owner_of
from fluffle.broker.durability.durability import open_durability
from fluffle.broker.process.environment import store_in
from fluffle.broker.runtime.turn import Turn
from fluffle.storage.environment import data_file
from fluffle.storage.errors import Corrupt
from fluffle.storage.file_mark import mark_of


async def begun(
    place: Path, drawn: int, *, node: str = "a", cluster: str = "c", peers: str = "ab"
) -> BootRecord:
    """A life that is on disk, and has ended."""
    durability = open_durability(
        store_in(place, asyncio.get_running_loop().call_soon_threadsafe),
        Turn(lambda _act: None, _raise),
        on_fatal=_raise,
    )
    try:
        listen = ListenAddress("127.0.0.1", 0)
        told = ClusterConfig(
            name=cluster, listen=listen, peers=dict.fromkeys(peers, listen), secret=b"secret"
        )
        config = Config(node_name=node, data_dir=place, cluster=told)
        disk = DiskAtStart(durability.store.disk.commit_number, mark_of(data_file(place)))
        life = begin_boot(durability.identity, config, told, drawn.to_bytes(16), disk)
        await durability.durable()
        return life
    finally:
        durability.close(())


def _raise(error: Exception) -> None:
    raise error


async def test_each_start_is_another_life_and_all_are_remembered(tmp_path: Path) -> None:
    lives = [await begun(tmp_path, drawn) for drawn in (7, 8, 9)]
    assert [life.identity.boot.count for life in lives] == [1, 2, 3]
    assert all(lives[-1].lives.remember(life.identity.boot) for life in lives)
    assert not lives[0].lives.remember(lives[1].identity.boot)


async def test_the_data_of_another_are_left_alone(tmp_path: Path) -> None:
    await begun(tmp_path, 7)
    with pytest.raises(StartFailed, match="the data of node 'a', not of 'b'; correct --node"):
        await begun(tmp_path, 8, node="b")
    with pytest.raises(StartFailed, match="cluster 'c', not of 'd'; correct --cluster-name"):
        await begun(tmp_path, 8, cluster="d")
    assert (await begun(tmp_path, 8)).identity.boot.count == 2


async def test_whose_cluster_it_is_depends_on_nothing_that_it_is_told(tmp_path: Path) -> None:
    """A node that was told of more founders than before is of the cluster that it was of."""
    for peers in ("ab", "abc", "b"):
        assert (await begun(tmp_path, 8, peers=peers)).identity.cluster == "c"


@pytest.mark.parametrize("value", [b"", b"\xff", b"\xc1", b"\x90", b"\x94\xa1a\xa1c\x01\x02"])
def test_what_cannot_be_read_is_damage(value: bytes) -> None:
    with pytest.raises(Corrupt, match=f"catalog {IDENTITY}"):
        store_owner_of([(b"", value)])
